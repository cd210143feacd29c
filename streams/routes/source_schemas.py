"""Checks a route against the schema registry before it runs: the schemas of its sources, and that of its sink."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.schemas.connection import SchemaRegistryConnection
from inferd.schemas.errors import SchemaMismatchError, SchemaNotFoundError
from inferd.schemas.models import Feature
from inferd.schemas.routes import Route
from inferd.streams.routes.formats import check_given_schema, is_from_registry, sink_schema, subject_of
from inferd.streams.routes.schema_registry import SchemaRegistryClient


async def check_schemas(
    connection: SchemaRegistryConnection | None, route: Route, features: Sequence[Feature]
) -> list[str]:
    """Checks that the paths of a route lead to values in the latest schemas of its sources, and that the subject of its
    sink takes the schema of what it writes. `features`: those of its model.

    Returns what could not be checked. Raises `SchemaMismatchError`, naming field, schema and subject, and
    `SchemaRegistryError` if the registry does not answer.
    """
    check_given_schema(route, features)
    if connection is None or not is_from_registry(route):
        return []
    client = SchemaRegistryClient(connection)
    try:
        found = [await _check_source(client, topic, route, features) for topic in route.source.topics]
    finally:
        await client.close()
    return [note for note in found if note is not None]


async def _check_source(
    client: SchemaRegistryClient, topic: str, route: Route, features: Sequence[Feature]
) -> str | None:
    # How the subjects of the sources are named is for their producers to say. Nearly all name them by the topic; the
    # others have the name of a record, which is not known before there is one.
    subject = subject_of("topic", topic, "")
    try:
        schema = await client.latest(subject)
    except SchemaNotFoundError:
        return f"the schema of topic {topic} is not checked: the registry has no subject {subject}"
    written = sink_schema(schema, subject, route, features)
    if (reason := await client.incompatibility(written.subject, written.schema)) is not None:
        raise SchemaMismatchError(
            f"subject {written.subject} of the schema registry does not take the schema of what the route writes for"
            f" schema {schema.schema_id} of subject {subject}: {reason}"
        )
    return None

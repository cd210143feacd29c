"""Checks a route that is being created against the schema registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.models import manifest_behind
from inferd.schemas.connection import SchemaRegistryConnection
from inferd.schemas.requests import ModelReference
from inferd.schemas.routes import Route

if TYPE_CHECKING:
    from inferd.client import Client


async def check_route_schemas(client: Client, connection: SchemaRegistryConnection | None, route: Route) -> list[str]:
    """Returns what could not be checked: a registry that is away is no reason to refuse a route, whose records wait.

    Raises `SchemaMismatchError` for a schema that does not fit, and `ModelNotFoundError` or `VersionNotFoundError`.
    """
    from inferd.streams.routes import check_schemas
    from inferd.streams.routes.formats import has_schema, is_from_registry
    from inferd.streams.routes.schema_registry import SchemaRegistryError

    if not has_schema(route):
        return []
    if connection is None and is_from_registry(route):
        return ["the schemas of the route are not checked here: INFERD_SCHEMA_REGISTRY_URL is not set"]
    manifest = manifest_behind(await client.models(), ModelReference.parse(route.model))
    try:
        return await check_schemas(connection, route, manifest.features)
    except SchemaRegistryError as error:
        return [f"the schemas of the route are not checked: {error.message}"]

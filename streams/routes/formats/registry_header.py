"""The header that Confluent's serializers write before a value: a zero byte, and the id of the schema in four."""

from __future__ import annotations

from inferd.schemas.errors import InvalidValueError, MalformedError
from inferd.schemas.routes import Format
from inferd.streams.routes.formats.format import Schemas

HEADER_BYTES = 5
MAGIC = 0


def schema_id_of(value: bytes | None) -> int | MalformedError:
    """The id of the schema of a value."""
    if not value:
        return MalformedError("record: the value is empty")
    if value[0] != MAGIC:
        return MalformedError(
            f"record: it begins with the byte {value[0]}, expected {MAGIC} and the id of a schema in the registry; give"
            " the route a schema if its records have no such header"
        )
    if len(value) < HEADER_BYTES:
        return MalformedError(f"record: {len(value)} bytes, which is shorter than the header of a schema registry")
    return int.from_bytes(value[1:HEADER_BYTES], "big")


def header_of(schema_id: int) -> bytes:
    """The header of values with this schema."""
    return bytes((MAGIC,)) + schema_id.to_bytes(4, "big")


def registry_of(schemas: Schemas | None, options: Format) -> Schemas:
    """The schemas of the registry; `InvalidValueError` if there is none."""
    if schemas is None:
        raise InvalidValueError(
            f"format {options.name} needs a schema registry (INFERD_SCHEMA_REGISTRY_URL), or a schema in the route"
        )
    return schemas

"""JSON Schema of wire types, in the dialect of AsyncAPI 3: draft 7, which has no `prefixItems`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from inferd.schemas.requests import ITEM_BYTES, Rows

REF = "#/components/schemas/{name}"
BASE64 = {"type": "string", "contentEncoding": "base64"}
_TENSOR = {
    "description": "A C-ordered tensor of shape (rows, features); in JSON, data is base64.",
    "type": "object",
    "required": ["dtype", "shape", "data"],
    "additionalProperties": False,
    "properties": {
        "dtype": {"enum": sorted(ITEM_BYTES)},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2},
        "data": BASE64,
    },
}
_LATER = ("prefixItems", "discriminator")
"""Keywords that draft 7 does not have. Without the second one, `anyOf` says the same less directly."""
ROW_FIELDS = ("input_data", "input_batch")
"""Fields that hold rows; decoders leave them undecoded."""


def rows_schema() -> dict[str, Any]:
    """A row or rows, by position or by name, or a tensor."""
    return {"anyOf": [*msgspec.json.schema(Rows)["anyOf"], _TENSOR]}


def schemas_of(types: Sequence[Any]) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """The schema of each type, and the components that they refer to."""
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    named = {name.lstrip("_"): _with_rows(_titled(draft_7(schema))) for name, schema in components.items()}
    return dict(zip(types, map(draft_7, schemas), strict=True)), named


def draft_7(schema: Any) -> Any:
    """A schema of JSON Schema 2020-12 as one of draft 7."""
    if isinstance(schema, list):
        return [draft_7(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: draft_7(value) for name, value in schema.items() if name not in _LATER}
    if "prefixItems" in schema:
        changed["items"] = draft_7(schema["prefixItems"])
        changed["additionalItems"] = False
    if isinstance(changed.get("$ref"), str):
        changed["$ref"] = changed["$ref"].replace("/schemas/_", "/schemas/")
    return changed


def _titled(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the underscore of a private type in its title."""
    return {**schema, "title": schema["title"].lstrip("_")} if "title" in schema else schema


def _with_rows(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    found = {name: rows_schema() for name in ROW_FIELDS if name in properties}
    return {**schema, "properties": {**properties, **found}} if found else schema

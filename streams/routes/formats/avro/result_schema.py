"""The schema of what inferd adds: the type of an output, the added field, and the record of the mode `result`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from inferd.schemas.errors import SchemaMismatchError
from inferd.schemas.requests import OUTPUTS, OWN_OUTPUTS

NAMESPACE = "ai.inferd"

# The branches that `encoder.py` writes by their number. Numbers have one type: where there are two, clients in
# JavaScript wrap each value in an object that names its type.
SCALAR: Sequence[Any] = ("null", "double", "boolean", "string")
LIST: Sequence[Any] = (*SCALAR, {"type": "array", "items": [*SCALAR]}, {"type": "map", "values": [*SCALAR]})
OUTPUT: Sequence[Any] = (*SCALAR, {"type": "array", "items": [*LIST]}, {"type": "map", "values": [*LIST]})
"""What an output may be: one value of a number, text or boolean, or lists and maps of these up to two deep."""
CARRIED: Sequence[Any] = (*SCALAR, "long")
"""What a carried field may be: ids need all 64 bits."""
RESULT_FIELDS = (*OUTPUTS, OWN_OUTPUTS, "model_id", "version", "error")


def result_fields(prefix: str) -> list[dict[str, Any]]:
    """The fields of a result. `prefix`: of the name of the record of errors."""
    error = {"type": "record", "name": f"{prefix}Error", "namespace": NAMESPACE, "fields": [
        {"name": "code", "type": "string"}, {"name": "message", "type": "string"}]}  # fmt: skip
    types: dict[str, Any] = {name: [*OUTPUT] for name in OUTPUTS}
    types[OWN_OUTPUTS] = ["null", {"type": "map", "values": [*OUTPUT]}]
    types |= {"model_id": ["null", "string"], "version": ["null", "long"], "error": ["null", error]}
    return [{"name": name, "type": types[name], "default": None} for name in RESULT_FIELDS]


def widened(schema: Mapping[str, Any], field: str) -> str:
    """The text of a writer's schema with one more field, which may be null, at its end.

    `SchemaMismatchError` if it has the field already.
    """
    if any(each["name"] == field for each in schema.get("fields", ())):
        raise SchemaMismatchError(f"record: it has the field {field!r} already; the route adds a field of this name")
    taken = set(_names(schema))
    number = next(number for number in range(1, len(taken) + 2) if not _added(number) & taken)
    record = {"type": "record", "name": f"Prediction{_suffix(number)}", "namespace": NAMESPACE}
    added = {"name": field, "type": ["null", record | {"fields": result_fields(f"Prediction{_suffix(number)}")}]}
    return json.dumps(
        {**schema, "fields": [*schema.get("fields", ()), added | {"default": None}]}, separators=(",", ":")
    )


def result_schema(topic: str, carried: Sequence[str]) -> tuple[str, str]:
    """The text of the schema of results with carried fields, and its full name."""
    name = "Result_" + re.sub(r"[^A-Za-z0-9_]", "_", topic)
    fields = [{"name": each, "type": [*CARRIED], "default": None} for each in carried]
    schema = {"type": "record", "name": name, "namespace": NAMESPACE, "fields": [*fields, *result_fields(name)]}
    return json.dumps(schema, separators=(",", ":")), f"{NAMESPACE}.{name}"


def full_name(schema: Mapping[str, Any]) -> str:
    """The full name of a record schema."""
    name: str = schema["name"]
    namespace = schema.get("namespace")
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _suffix(number: int) -> str:
    return "" if number == 1 else str(number)


def _added(number: int) -> set[str]:
    return {f"Prediction{_suffix(number)}", f"Prediction{_suffix(number)}Error"}


def _names(schema: Any) -> Iterator[str]:
    """The names, without namespaces, of all types in a schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from _names(each)
    elif isinstance(schema, Mapping):
        if isinstance(name := schema.get("name"), str):
            yield name.rpartition(".")[2]
        for key in ("type", "items", "values", "fields"):
            yield from _names(schema.get(key))

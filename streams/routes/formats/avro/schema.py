"""Avro schemas as a graph of types. The library `fastavro` checks them, and resolves names and namespaces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from fastavro import parse_schema
from fastavro.schema import SchemaParseException, UnknownType

from inferd.schemas.errors import InvalidValueError
from inferd.streams.routes.formats.library_errors import printable

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NOTHING: Final = object()
"""A field has no default."""
_PARSE_ERRORS = (
    SchemaParseException, UnknownType, LookupError, TypeError, ValueError, AttributeError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Primitive:
    """A type without a name. `logical` is its logical type, if it is one of those that change the value."""

    kind: str
    logical: str | None = None
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Fixed:
    """`size` bytes."""

    name: str
    size: int
    logical: str | None = None
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Enum:
    """One of some symbols."""

    name: str
    symbols: tuple[str, ...]
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record. `names` are its name and its aliases."""

    names: tuple[str, ...]
    type: Type
    default: Any = NOTHING


@dataclass(slots=True, eq=False)
class Record:
    """Its fields are added after it is made, since they may refer to it."""

    name: str
    fields: list[Field] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Array:
    """Any number of items."""

    items: Type


@dataclass(frozen=True, slots=True)
class Map:
    """Any number of values by name."""

    values: Type


@dataclass(frozen=True, slots=True)
class Union:
    """A value of one of some types."""

    branches: tuple[Type, ...]


Type: TypeAlias = Primitive | Fixed | Enum | Record | Array | Map | Union


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """A record schema."""

    json: Mapping[str, Any]
    """As it was written."""
    root: Record


def parse_avro(text: str, imported: Iterable[tuple[str, str]] = ()) -> AvroSchema:
    """Parse a schema, after those that it refers to. `InvalidValueError` if it is not the schema of a record."""
    try:
        named: dict[str, Any] = {}
        for _, other in imported:
            parse_schema(json.loads(other), named)
        written = json.loads(text)
        parsed = parse_schema(written, named)
        root = _Graph(named).type_of(parsed)
    except _PARSE_ERRORS as error:
        raise InvalidValueError(f"the Avro schema cannot be used: {printable(error)}") from None
    if not isinstance(root, Record):
        raise InvalidValueError("the Avro schema is not that of a record")
    return AvroSchema(written, root)


def is_empty(schema: Type, within: frozenset[str] = frozenset()) -> bool:
    """Whether all values of a type take no bytes."""
    if isinstance(schema, Record):
        inside = within | {schema.name}
        return schema.name not in within and all(is_empty(each.type, inside) for each in schema.fields)
    if isinstance(schema, Fixed):
        return schema.size == 0
    return schema == Primitive("null")


def describe(schema: Type) -> str:
    """A type in words."""
    if isinstance(schema, Primitive):
        return f"{schema.kind} ({schema.logical})" if schema.logical else schema.kind
    if isinstance(schema, Union):
        return f"a union of {', '.join(map(describe, schema.branches))}"
    return {Fixed: "fixed bytes", Enum: "an enum", Record: "a record", Array: "an array", Map: "a map"}[type(schema)]


class _Graph:
    """Types by their full name, as fastavro lists them in `named`."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._made: dict[str, Type] = {}

    def type_of(self, parsed: Any) -> Type:
        if isinstance(parsed, list):
            return Union(tuple(map(self.type_of, parsed)))
        if isinstance(parsed, str):
            return Primitive(parsed) if parsed in PRIMITIVES else self._of_name(parsed)
        kind = parsed["type"]
        if kind == "array":
            return Array(self.type_of(parsed["items"]))
        if kind == "map":
            return Map(self.type_of(parsed["values"]))
        if kind in ("record", "error", "enum", "fixed"):
            return self._of_name(parsed["name"])
        if not isinstance(kind, str):
            return self.type_of(kind)
        if kind not in PRIMITIVES:
            return self._of_name(kind)
        return Primitive(kind, *_logical(parsed, kind))

    def _of_name(self, name: str) -> Type:
        made = self._made.get(name)
        return made if made is not None else self._make(name, self._named[name])

    def _make(self, name: str, parsed: Mapping[str, Any]) -> Type:
        kind = parsed["type"]
        if kind == "enum":
            self._made[name] = Enum(name, tuple(parsed["symbols"]), parsed.get("default"))
        elif kind == "fixed":
            self._made[name] = Fixed(name, parsed["size"], *_logical(parsed, "fixed"))
        else:
            record = self._made[name] = Record(name)
            for each in parsed["fields"]:
                names = (each["name"], *each.get("aliases", ()))
                record.fields.append(Field(names, self.type_of(each["type"]), each.get("default", NOTHING)))
        return self._made[name]


def _logical(parsed: Mapping[str, Any], kind: str) -> tuple[str | None, int]:
    logical = parsed.get("logicalType")
    if logical == "decimal" and kind in ("bytes", "fixed"):
        return "decimal", parsed.get("scale", 0)
    if logical == "uuid" and kind == "fixed" and parsed.get("size") == 16:
        return "uuid", 0
    return None, 0

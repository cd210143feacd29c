"""Finds the place of a path in the schema of a writer, by the rules of schema resolution where a reader's is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inferd.schemas.errors import InferenceError, SchemaMismatchError
from inferd.schemas.routes import Path
from inferd.streams.routes.formats.avro.schema import (
    NOTHING,
    Array,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Type,
    Union,
    describe,
)
from inferd.streams.routes.formats.format import Value

WHOLE, REAL = frozenset({"int", "long"}), frozenset({"float", "double"})
NULL = Primitive("null")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is in a writer's records: the steps there, and what the reader expects at their end."""

    steps: tuple[str | int, ...]
    expected: Type | None = None
    """None: whatever the writer has."""


@dataclass(frozen=True, slots=True)
class Constant:
    """The writer does not have the value; the reader's schema has a default."""

    value: Value


def find(path: Path, writer: Record, reader: Record | None, where: str) -> Place | Constant:
    """The place of a path. `where` names the writer's schema in messages.

    `SchemaMismatchError` if no record of the writer has a value there.
    """
    found = _located(path, writer, reader, where)
    if isinstance(found, Constant):
        return found
    steps, written, expected = found
    _ = _values_at(written, expected, path, where)
    return Place(steps, expected)


def is_only_text(path: Path, writer: Record, reader: Record | None, where: str) -> bool:
    """Whether all values at a path are text, or missing. Raises as `find` does."""
    found = _located(path, writer, reader, where)
    if isinstance(found, Constant):
        return isinstance(found.value, str)
    _, written, expected = found
    return all(each == NULL or _is_text(each) for each in _values_at(written, expected, path, where))


def _is_text(schema: Type) -> bool:
    if isinstance(schema, Primitive):
        return schema.kind == "string"
    return isinstance(schema, Enum) or (isinstance(schema, Fixed) and schema.logical == "uuid")


def _located(
    path: Path, writer: Record, reader: Record | None, where: str
) -> tuple[tuple[str | int, ...], Type, Type | None] | Constant:
    """The steps to a value, what the writer has there, and what the reader expects."""
    expected: Type | None = reader
    written: Type = writer
    steps: list[str | int] = []
    for number, step in enumerate(path.steps):
        written_at = _branch_with(written, step, _names(expected, step))
        if written_at is None:
            raise SchemaMismatchError(f"record: path {path}: {where} has {describe(written)} there, without {step!r}")
        if isinstance(written_at, str):  # a field that the writer does not have
            return _default(path, expected, step, path.steps[number + 1 :], where)
        name, written = written_at
        expected = _below(expected, step, path, where)
        steps.append(name)
    return tuple(steps), written, expected


def field_named(expected: Type | None, name: str | int) -> Field | None:
    """The field of a reader's record, or of the record in its union."""
    for record in _branches(expected):
        if isinstance(record, Record):
            for each in record.fields:
                if each.names[0] == name:
                    return each
    return None


def _names(expected: Type | None, step: str | int) -> Sequence[str | int]:
    """The names that the writer's field may have."""
    found = field_named(expected, step)
    return (step,) if found is None else found.names


def _branch_with(written: Type, step: str | int, names: Sequence[str | int]) -> tuple[str | int, Type] | str | None:
    """The step in the writer's schema, and the type there; a text if it has a record without the field, None if it has
    nothing that the step leads into."""
    missing: str | None = None
    for branch in _branches(written):
        if isinstance(branch, Map) and isinstance(step, str):
            return step, branch.values
        if isinstance(branch, Array) and isinstance(step, int):
            return step, branch.items
        if isinstance(branch, Record) and isinstance(step, str):
            for name in names:
                for each in branch.fields:
                    if each.names[0] == name:
                        return name, each.type
            missing = branch.name
    return missing


def _below(expected: Type | None, step: str | int, path: Path, where: str) -> Type | None:
    """What the reader expects below a step."""
    if expected is None:
        return None
    if (found := field_named(expected, step)) is not None:
        return found.type
    for branch in _branches(expected):
        if isinstance(branch, Map) and isinstance(step, str):
            return branch.values
        if isinstance(branch, Array) and isinstance(step, int):
            return branch.items
    raise SchemaMismatchError(f"record: path {path}: the route's schema has {describe(expected)} there, not {step!r}")


def _default(path: Path, expected: Type | None, step: str | int, rest: Sequence[str | int], where: str) -> Constant:
    found = field_named(expected, step)
    if found is None or found.default is NOTHING:
        raise SchemaMismatchError(f"record: path {path}: {where} has no field {step!r}")
    value: Any = found.default
    for below in rest:
        if isinstance(below, str) and isinstance(value, dict):
            value = value.get(below)
        elif isinstance(below, int) and isinstance(value, list):
            value = value[below] if below < len(value) else None
        elif value is not None:
            raise SchemaMismatchError(f"record: path {path}: the default of {step!r} has nothing there")
    if isinstance(value, dict | list):
        raise SchemaMismatchError(f"record: path {path}: the default of {step!r} is not a value")
    return Constant(value)


def _values_at(written: Type, expected: Type | None, path: Path, where: str) -> Sequence[Type]:
    """The types of the values."""
    values = [branch for branch in _branches(written) if is_value(branch) and fits(branch, expected)]
    if not values or (values == [NULL] and written != NULL):
        wanted = "a number, text or boolean" if expected is None else describe(expected)
        raise SchemaMismatchError(f"record: path {path}: {where} has {describe(written)} there, expected {wanted}")
    return values


def is_value(schema: Type) -> bool:
    """Whether values of a type are features: numbers, texts, booleans and null."""
    if isinstance(schema, Primitive):
        return schema.kind != "bytes" or schema.logical is not None
    return isinstance(schema, Enum) or (isinstance(schema, Fixed) and schema.logical is not None)


def fits(written: Type, expected: Type | None) -> bool:
    """Whether a reader takes a writer's values: the same type, or one that it can be promoted to."""
    if expected is None or written == NULL:
        return expected is None or NULL in _branches(expected)
    return any(_fits(written, branch) for branch in _branches(expected))


def _fits(written: Type, expected: Type) -> bool:
    if isinstance(written, Primitive) and isinstance(expected, Primitive):
        if written.logical or expected.logical:
            return written == expected
        return written.kind == expected.kind or _promotes(written.kind, expected.kind)
    if isinstance(written, Fixed) and isinstance(expected, Fixed):
        return (written.size, written.logical, written.scale) == (expected.size, expected.logical, expected.scale)
    return isinstance(written, Enum) and isinstance(expected, Enum)


def _promotes(written: str, expected: str) -> bool:
    order = ("int", "long", "float", "double")
    if written in order and expected in order:
        return order.index(written) < order.index(expected)
    return {written, expected} == {"bytes", "string"}


def _branches(schema: Type | None) -> Sequence[Type]:
    if schema is None:
        return ()
    return schema.branches if isinstance(schema, Union) else (schema,)


def converted(value: Value, expected: Type | None) -> Value:
    """A writer's value as the reader has it."""
    branches = _branches(expected)
    if isinstance(value, int) and not isinstance(value, bool):
        kinds = {branch.kind for branch in branches if isinstance(branch, Primitive)}
        return float(value) if branches and not kinds & WHOLE else value
    if isinstance(value, str):
        for branch in branches:
            if isinstance(branch, Enum) and value not in branch.symbols:
                if branch.default is None:
                    raise SchemaMismatchError(f"record: the symbol {value[:80]!r} is unknown to the route's schema")
                return branch.default
    return value


def needs_conversion(expected: Type | None) -> bool:
    """Whether `converted` may change a value."""
    branches = _branches(expected)
    kinds = {branch.kind for branch in branches if isinstance(branch, Primitive)}
    return any(isinstance(branch, Enum) for branch in branches) or bool(kinds & REAL and not kinds & WHOLE)


Found = Place | Constant | InferenceError

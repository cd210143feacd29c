"""Values at paths of messages, as functions that are made once for a schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from inferd.schemas.errors import SchemaMismatchError
from inferd.schemas.routes import Path
from inferd.streams.routes.formats.format import Value

Get: TypeAlias = Callable[[Any], Any]
WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String")
)
TIMES = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})
NANOS = 1_000_000_000


def getter(path: Path, message: Descriptor, where: str) -> Callable[[Any], Value]:
    """A function from a message to its value at a path; None where it is missing.

    `SchemaMismatchError` if no message of the schema, which `where` names, has a value there.
    """
    steps, below = _located(path, message, where)
    return _chained([*steps, *_value(below, path, where)])


def is_only_text(path: Path, message: Descriptor, where: str) -> bool:
    """Whether all values at a path are text, or missing. Raises as `getter` does."""
    _, below = _located(path, message, where)
    _ = _value(below, path, where)
    if isinstance(below, Descriptor):
        return bool(below.full_name == "google.protobuf.StringValue")
    return below.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM)


def _located(path: Path, message: Descriptor, where: str) -> tuple[list[Get], Descriptor | FieldDescriptor]:
    """The steps to a value, and what the schema has there."""
    steps: list[Get] = []
    below: Descriptor | FieldDescriptor = message
    at = 0
    while at < len(path.steps):
        step = path.steps[at]
        if not isinstance(below, Descriptor) or not isinstance(step, str) or step not in below.fields_by_name:
            raise SchemaMismatchError(f"record: path {path}: {where} has no field {step!r} there")
        field = below.fields_by_name[step]
        at += 1
        if not field.is_repeated:
            steps.append(_single(field))
        elif at == len(path.steps):
            raise SchemaMismatchError(f"record: path {path}: {where} has a repeated field or a map there")
        else:
            steps.append(_item(field, path, at, where))
            field = _entry_value(field) or field
            at += 1
        below = field.message_type or field
    return steps, below


def _chained(steps: list[Get]) -> Get:
    if len(steps) == 1:
        return steps[0]

    def get(message: Any) -> Any:
        for step in steps:
            message = step(message)
            if message is None:
                return None
        return message

    return get


def _single(field: FieldDescriptor) -> Get:
    """The value of a field; None if it is not set, where that can be told and it has no default of its own."""
    name = field.name
    if field.has_presence and not field.has_default_value:
        return lambda message: getattr(message, name) if message.HasField(name) else None
    return lambda message: getattr(message, name)


def _item(field: FieldDescriptor, path: Path, at: int, where: str) -> Get:
    name, step = field.name, path.steps[at]
    if _entry_value(field) is not None:
        key = _key(field, step, path, where)
        return lambda message: _of_map(getattr(message, name), key)
    if not isinstance(step, int):
        raise SchemaMismatchError(f"record: path {path}: {where} has a repeated field there, not {step!r}")

    def get(message: Any) -> Any:
        items = getattr(message, name)
        return items[step] if step < len(items) else None

    return get


def _of_map(entries: Any, key: Any) -> Any:
    return entries.get(key)


def _entry_value(field: FieldDescriptor) -> FieldDescriptor | None:
    """The field of the values of a map; None if the field is no map."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry or not field.is_repeated:
        return None
    value: FieldDescriptor = entry.fields_by_name["value"]
    return value


def _key(field: FieldDescriptor, step: str | int, path: Path, where: str) -> Any:
    kind = field.message_type.fields_by_name["key"].cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return str(step)
    try:
        return {"true": True, "false": False}[str(step)] if kind == FieldDescriptor.CPPTYPE_BOOL else int(step)
    except (KeyError, ValueError):
        raise SchemaMismatchError(f"record: path {path}: {where} has a map there without keys like {step!r}") from None


def _value(below: Descriptor | FieldDescriptor, path: Path, where: str) -> list[Get]:
    """What turns the value of the last field into a feature's."""
    if isinstance(below, Descriptor):
        if below.full_name in WRAPPERS:
            return [lambda message: message.value]
        if below.full_name in TIMES:
            return [lambda message: message.seconds + message.nanos / NANOS]
        raise SchemaMismatchError(f"record: path {path}: {where} has a message there, expected a value")
    if below.type == FieldDescriptor.TYPE_BYTES:
        raise SchemaMismatchError(f"record: path {path}: {where} has bytes there, expected a value")
    if below.type == FieldDescriptor.TYPE_ENUM:
        names = {number: each.name for number, each in below.enum_type.values_by_number.items()}
        return [lambda number: names.get(number, number)]
    return []

"""Reads values at paths from JSON and MessagePack: typed decoding of the needed fields, and a slow path for the rest.

The typed decoder skips all other fields. A record that it rejects is decoded as a whole and searched path by path,
which finds the values, or says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, groupby
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.codecs import DECODE_ERRORS, NESTING_MAX, Codec, decode_error
from inferd.schemas.errors import InferenceError, MalformedError, SchemaMismatchError
from inferd.schemas.routes import Path
from inferd.streams.inference import FeatureSchema, Matrix, RecordKernel
from inferd.streams.routes.formats.format import Document, Pending, RowReader, SourceRecord, Value

_UNTYPED_NAME = re.compile(r'[\x00-\x1f"\\]')
"""Characters that names of typed fields cannot have."""
_KINDS: dict[type, str] = {dict: "an object", list: "an array", bytes: "bytes"}
_Leaf = float | int | bool | str | None


class TreeReader:
    """A reader of records that are objects: maps from names to values."""

    def __init__(self, codec: Codec, paths: Sequence[Path], new_field: str | None) -> None:
        self._codec = codec
        self._paths = paths
        self._new_field = new_field
        self._decode_any = codec.decoder(Any)
        self._typed = _typed_reader(codec, paths, new_field)

    def row_reader(self, features: FeatureSchema) -> RowReader | None:
        names = [[step for step in path.steps if isinstance(step, str)] for path in self._paths]
        if any(len(steps) != len(path.steps) for steps, path in zip(names, self._paths, strict=True)):
            return None
        kernel = features.record_kernel(names, self._new_field)
        return None if kernel is None else TreeRowReader(features, kernel, self._codec)

    def read(self, records: Sequence[SourceRecord]) -> Sequence[Document | InferenceError | Pending]:
        if self._typed is None:
            return [self._read_any(record.value) for record in records]
        decode, values_of, count = self._typed
        checks = self._new_field is not None
        read: list[Document | InferenceError | Pending] = []
        for record in records:
            try:
                values = values_of(decode(record.value or b""))
            except (*DECODE_ERRORS, AttributeError, TypeError):  # the latter two: an object on the way is null
                read.append(self._read_any(record.value))
                continue
            if checks:
                if values[count] is not None:
                    read.append(self._present())
                    continue
                values = values[:count]
            read.append(Document(values))
        return read

    def _read_any(self, value: bytes | None) -> Document | InferenceError:
        if not value:
            return MalformedError("record: the value is empty")
        try:
            tree = self._decode_any(value)
        except DECODE_ERRORS as error:
            return decode_error(value, self._codec, error, "record", NESTING_MAX)
        if not isinstance(tree, dict):
            return MalformedError(f"record: expected an object, got {_kind(tree)}")
        if self._new_field is not None and self._new_field in tree:
            return self._present()
        try:
            return Document([value_at(tree, path) for path in self._paths])
        except InferenceError as error:
            return error

    def _present(self) -> SchemaMismatchError:
        return SchemaMismatchError(
            f"record: it has the field {self._new_field!r} already; the route adds a field of this name"
        )


class TreeRowReader:
    """Reads rows with the compiled kernel."""

    def __init__(self, features: FeatureSchema, kernel: RecordKernel, codec: Codec) -> None:
        self._features, self._kernel, self._codec = features, kernel, codec

    def rows(self, values: Sequence[bytes]) -> tuple[Matrix, NDArray[np.bool_]]:
        return self._features.of_records(self._kernel, self._codec, values)


def value_at(tree: Mapping[Any, Any], path: Path) -> Value:
    """The value at a path of a decoded record; None if it is null or missing.

    `SchemaMismatchError` if the path leads to an object or an array, or through something else.
    """
    value: Any = tree
    for place, step in enumerate(path.steps):
        if value is None:
            return None
        if isinstance(step, int):
            if not isinstance(value, list):
                raise _mismatch(path, place, f"an array, got {_kind(value)}")
            value = value[step] if step < len(value) else None
        elif isinstance(value, dict):
            value = value.get(step)
        else:
            raise _mismatch(path, place, f"an object, got {_kind(value)}")
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    raise _mismatch(path, len(path.steps), f"a number, text or boolean, got {_kind(value)}")


def _mismatch(path: Path, steps: int, what: str) -> SchemaMismatchError:
    here = "the record" if not steps else f"step {steps} of it" if steps < len(path.steps) else "its end"
    return SchemaMismatchError(f"record: path {path}: {here} must be {what}")


def _kind(value: Any) -> str:
    return _KINDS.get(type(value)) or ("null" if value is None else type(value).__name__)


_Typed = tuple[Callable[[Any], Any], Callable[[Any], tuple[Value, ...]], int]
"""The decoder of the needed fields, the values of what it decodes, and the number of paths."""


def _typed_reader(codec: Codec, paths: Sequence[Path], new_field: str | None) -> _Typed | None:
    """None if the paths cannot all be fields of one typed object."""
    steps = [step for path in paths for step in path.steps] + [new_field or ""]
    if any(isinstance(step, int) or _UNTYPED_NAME.search(step) for step in steps):
        return None
    tree: dict[str, Any] = {}
    places: list[str] = []
    for path in paths:
        place = _insert(tree, [str(step) for step in path.steps])
        if place is None:
            return None
        places.append(place)
    if new_field is not None:
        if new_field in tree:
            return None
        tree[new_field] = msgspec.Raw
        places.append(f"f{len(tree) - 1}")
    if not places:
        return codec.decoder(dict[str, msgspec.Raw]), lambda _: (), 0
    decode = codec.decoder(_struct(tree))
    return decode, _getter(places, tree), len(paths)


def _insert(tree: dict[str, Any], steps: Sequence[str]) -> str | None:
    """Adds a path to the tree of needed fields; returns its attribute path, or None if it conflicts with another."""
    names = []
    for step in steps[:-1]:
        below = tree.setdefault(step, {})
        if not isinstance(below, dict):
            return None
        names.append(f"f{list(tree).index(step)}")
        tree = below
    if isinstance(tree.setdefault(steps[-1], _Leaf), dict):
        return None
    names.append(f"f{list(tree).index(steps[-1])}")
    return ".".join(names)


def _struct(tree: Mapping[str, Any]) -> type[msgspec.Struct]:
    fields: list[tuple[str, Any, Any]] = []
    for number, (_, below) in enumerate(tree.items()):
        if isinstance(below, dict):
            inner = _struct(below)
            fields.append((f"f{number}", inner | None, inner()))
        else:
            fields.append((f"f{number}", below, None))
    rename = {f"f{number}": name for number, name in enumerate(tree)}
    return msgspec.defstruct("Fields", fields, rename=rename, frozen=True, gc=False)


def _getter(places: Sequence[str], tree: Mapping[str, Any]) -> Callable[[Any], tuple[Value, ...]]:
    """The values at attribute paths, in their order. Objects whose fields are all wanted, in order, are taken whole."""
    parts: list[Callable[[Any], tuple[Value, ...]]] = []
    for parent, group in groupby(places, lambda place: place.rpartition(".")[0]):
        wanted = list(group)
        prefix = f"{parent}." if parent else ""
        if wanted == [f"{prefix}f{number}" for number in range(_width(tree, parent))]:
            parts.append(_whole(parent))
        else:
            parts.append(_each(wanted))
    if len(parts) == 1:
        return parts[0]
    first, second = parts[0], parts[1]
    if len(parts) == 2:
        return lambda fields: first(fields) + second(fields)
    return lambda fields: tuple(chain.from_iterable([part(fields) for part in parts]))


def _width(tree: Mapping[str, Any], parent: str) -> int:
    """The number of fields of the object at an attribute path."""
    for name in parent.split(".") if parent else ():
        tree = list(tree.values())[int(name[1:])]
    return len(tree)


def _whole(parent: str) -> Callable[[Any], tuple[Value, ...]]:
    if not parent:
        return msgspec.structs.astuple
    get, astuple = attrgetter(parent), msgspec.structs.astuple
    return lambda fields: astuple(get(fields))


def _each(places: Sequence[str]) -> Callable[[Any], tuple[Value, ...]]:
    if len(places) == 1:
        get = attrgetter(places[0])
        return lambda fields: (get(fields),)
    return attrgetter(*places)

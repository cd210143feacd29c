"""Reads tables of a FlatBuffer with bounds checks (https://flatbuffers.dev/internals/).

A table starts with the distance to its vtable, which has the position of each field. Strings, vectors and tables are
referenced by offsets. Every position is checked against the buffer before it is read.
"""

from __future__ import annotations

import struct
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import MalformedError

_UINT16, _INT32, _UINT32 = (struct.Struct(code) for code in ("<H", "<i", "<I"))


def root_table(buffer: bytes) -> FlatTable:
    """The root table of a buffer; `MalformedError` if it is damaged."""
    reader = _Reader(buffer)
    return FlatTable(reader, reader.offset(0))


class FlatTable:
    """A table. A field that is absent has its default value."""

    def __init__(self, reader: _Reader, place: int) -> None:
        self._reader, self._place = reader, place
        self._vtable = place - reader.number(_INT32, place)
        self._vtable_size = reader.number(_UINT16, self._vtable)

    def integer(self, field: int, default: int) -> int:
        """A field of type int."""
        place = self._field(field)
        return default if place is None else self._reader.number(_INT32, place)

    def text(self, field: int) -> str:
        """A string; empty if it is absent."""
        place = self._field(field)
        return "" if place is None else self._reader.text(self._reader.offset(place))

    def table(self, field: int) -> FlatTable | None:
        place = self._field(field)
        return None if place is None else FlatTable(self._reader, self._reader.offset(place))

    def tables(self, field: int) -> list[FlatTable]:
        """A vector of tables."""
        return [FlatTable(self._reader, place) for place in self._offsets(field)]

    def texts(self, field: int) -> list[str]:
        """A vector of strings."""
        return [self._reader.text(place) for place in self._offsets(field)]

    def array(self, field: int, dtype: str) -> NDArray[Any]:
        """A vector of numbers."""
        place = self._field(field)
        return np.zeros(0, dtype) if place is None else self._reader.vector(self._reader.offset(place), dtype)

    def length(self, field: int, dtype: str) -> int:
        """The length of a vector of numbers."""
        return len(self.array(field, dtype))

    def _offsets(self, field: int) -> list[int]:
        place = self._field(field)
        if place is None:
            return []
        vector = self._reader.offset(place)
        count = len(self._reader.vector(vector, "<u4"))
        return [self._reader.offset(vector + 4 + 4 * index) for index in range(count)]

    def _field(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry + 2 > self._vtable_size:
            return None
        distance = self._reader.number(_UINT16, self._vtable + entry)
        return self._place + distance if distance else None


class _Reader:
    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer

    def number(self, kind: struct.Struct, place: int) -> int:
        if not 0 <= place <= len(self._buffer) - kind.size:
            _fail(place)
        value: int = kind.unpack_from(self._buffer, place)[0]
        return value

    def offset(self, place: int) -> int:
        return place + self.number(_UINT32, place)

    def text(self, place: int) -> str:
        try:
            return self.vector(place, "u1").tobytes().decode("utf-8")
        except UnicodeDecodeError:
            return _fail(place)

    def vector(self, place: int, dtype: str) -> NDArray[Any]:
        count, kind = self.number(_UINT32, place), np.dtype(dtype)
        if count * kind.itemsize > len(self._buffer) - place - 4:
            _fail(place)
        return np.frombuffer(self._buffer, kind, count, place + 4)


def _fail(place: int) -> NoReturn:
    raise MalformedError(f"model file: damaged at byte {place} of its FlatBuffer")

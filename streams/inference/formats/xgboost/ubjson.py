"""Decodes Universal Binary JSON as XGBoost writes it (`UBJWriter` and `UBJReader` in its `json.cc`).

Numbers are big-endian. Lengths are always int64 (`L`). An array of numbers starts with its type and length, and becomes
a numpy array over the same bytes. Every length is checked against the remaining bytes, so that allocated memory is
bounded by the file size.
"""

from __future__ import annotations

import struct
from typing import Any, NoReturn

import numpy as np

from inferd.schemas.errors import MalformedError

DEPTH_MAX = 32
_LENGTH = struct.Struct(">q")
_NUMBERS = {
    marker: (struct.Struct(f">{code}"), np.dtype(f">{dtype}"))
    for marker, code, dtype in (
        (ord("i"), "b", "i1"),
        (ord("U"), "B", "u1"),
        (ord("I"), "h", "i2"),
        (ord("l"), "i", "i4"),
        (ord("L"), "q", "i8"),
        (ord("d"), "f", "f4"),
        (ord("D"), "d", "f8"),
    )
}
_CONSTANTS = {ord("Z"): None, ord("T"): True, ord("F"): False}
_OBJECT, _OBJECT_END, _ARRAY, _ARRAY_END, _STRING = b"{}[]S"
_TYPE, _COUNT, _INT64 = b"$#L"


def decode_ubjson(content: bytes) -> Any:
    """The value of a UBJSON document: dicts, lists, numpy arrays, str, int, float, bool and None.

    `MalformedError` naming the byte at which the document is damaged.
    """
    reader = _Reader(content)
    value = reader.value(0)
    if reader.place != len(content):
        reader.fail("the document has ended, and bytes follow it")
    return value


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._size = len(content)
        self.place = 0

    def fail(self, what: str) -> NoReturn:
        raise MalformedError(f"model file: UBJSON, byte {self.place}: {what}")

    def value(self, depth: int) -> Any:
        marker = self._byte()
        if (number := _NUMBERS.get(marker)) is not None:
            return number[0].unpack(self._take(number[0].size))[0]
        if marker == _STRING:
            return self._text()
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if depth >= DEPTH_MAX:
            self.fail(f"nested deeper than {DEPTH_MAX} levels")
        if marker == _OBJECT:
            return self._object(depth + 1)
        if marker == _ARRAY:
            return self._array(depth + 1)
        return self.fail("begins no value")

    def _object(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while self._peek() != _OBJECT_END:
            name = self._text()
            if name in values:
                self.fail(f"{name[:40]!r} comes twice")
            values[name] = self.value(depth)
        self.place += 1
        return values

    def _array(self, depth: int) -> Any:
        marker = self._peek()
        if marker == _TYPE:
            self.place += 1
            return self._numbers()
        if marker == _COUNT:
            return [self.value(depth) for _ in range(self._count())]
        values = []
        while self._peek() != _ARRAY_END:
            values.append(self.value(depth))
        self.place += 1
        return values

    def _numbers(self) -> Any:
        """An array of values of one type."""
        number = _NUMBERS.get(self._byte())
        if number is None:
            self.fail("is not a type of numbers")
        count, dtype = self._count(), number[1]
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def _count(self) -> int:
        if self._byte() != _COUNT:
            self.fail("an array without its length")
        # A value takes at least one byte.
        return self._length()

    def _text(self) -> str:
        try:
            return self._take(self._length()).decode("utf-8")
        except UnicodeDecodeError:
            return self.fail("text is not UTF-8")

    def _length(self) -> int:
        if self._byte() != _INT64:
            self.fail("a length that is not int64")
        (length,) = _LENGTH.unpack(self._take(8))
        if not 0 <= length <= self._size - self.place:
            self.fail(f"a length of {length}, with {self._size - self.place} bytes left")
        return int(length)

    def _take(self, size: int) -> bytes:
        start, self.place = self.place, self.place + size
        if self.place > self._size:
            self.place = start
            self.fail("ends too early")
        return self._content[start : self.place]

    def _byte(self) -> int:
        value = self._peek()
        self.place += 1
        return value

    def _peek(self) -> int:
        if self.place >= self._size:
            self.fail("ends too early")
        return self._content[self.place]

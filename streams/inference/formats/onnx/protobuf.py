"""Messages in the wire format of protocol buffers, read without a library: bounded by the bytes that are there.

The format is that of the specification "Encoding" of protocol buffers: a tag (field number and wire type), and a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import MalformedError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_SIZES = {FIXED64: 8, FIXED32: 4}
_VARINT_BYTES_MAX = 10
_SIGN, _RANGE = 1 << 63, 1 << 64


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: a number for VARINT, bytes otherwise."""

    number: int
    wire: int
    integer: int
    content: memoryview


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message in order; `MalformedError` where it is damaged."""
    place, end, nothing = 0, len(message), message[:0]
    while place < end:
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, place = _varint(message, place)
            yield Field(number, wire, value, nothing)
            continue
        if wire == BYTES:
            size, place = _varint(message, place)
        elif wire in _SIZES:
            size = _SIZES[wire]
        else:
            raise MalformedError(f"model file: protocol buffer with the wire type {wire}")
        if not number or size > end - place:
            raise MalformedError("model file: protocol buffer ends within a field")
        yield Field(number, wire, 0, message[place : place + size])
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    for byte in message[place : place + _VARINT_BYTES_MAX]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value % _RANGE, place + shift // 7
    raise MalformedError("model file: protocol buffer with a damaged number")


def signed(value: int) -> int:
    """An int64 from its varint."""
    return value - _RANGE if value >= _SIGN else value


def text(field: Field) -> str:
    """A string field; `MalformedError` if it is not UTF-8."""
    if field.wire != BYTES:
        raise MalformedError("model file: a number where text is expected")
    try:
        return bytes(field.content).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("model file: a name that is not UTF-8") from None


def packed_integers(content: memoryview) -> NDArray[np.int64]:
    """The int64 of a packed repeated field."""
    data = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    if len(data) and (not len(ends) or ends[-1] != len(data) - 1):
        raise MalformedError("model file: protocol buffer with a damaged number")
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    sizes = ends - starts + 1
    if len(sizes) and sizes.max() > _VARINT_BYTES_MAX:
        raise MalformedError("model file: protocol buffer with a damaged number")
    values = np.zeros(len(ends), np.uint64)
    for byte in range(int(sizes.max()) if len(sizes) else 0):
        longer = sizes > byte
        values[longer] |= (data[starts[longer] + byte] & 0x7F).astype(np.uint64) << np.uint64(7 * byte)
    return values.view(np.int64)

"""Reads messages in the wire format of protocol buffers, without a library and without reading out of bounds.

The format is that of the specification "Encoding" of protocol buffers: a tag (field number and wire type), then a
value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import MalformedError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
INTEGERS = 8
"""No wire type of the format: several VARINT fields of one number, read at once as int64."""
_SIZES = {FIXED64: 8, FIXED32: 4}
_VARINT_BYTES_MAX = 10
_RUN_MIN, _RUN_BYTES = 16, 65_536
"""After so many fields of one tag, the next ones are read at once, from so many bytes at most."""
_SIGN, _RANGE = 1 << 63, 1 << 64


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: a number for VARINT, bytes otherwise; for INTEGERS the bytes of an array of int64."""

    number: int
    wire: int
    integer: int
    content: memoryview


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message in order; `MalformedError` if it is damaged.

    Unpacked repeated numbers, one field each, are most of the file of a forest. Long runs are returned in few fields:
    integers as INTEGERS, and floats as the bytes of several.
    """
    place, end, nothing = 0, len(message), message[:0]
    previous = repeated = 0
    while place < end:
        start = place
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        repeated = repeated + 1 if tag == previous else 0
        previous = tag
        if repeated >= _RUN_MIN and tag < 0x80 and wire in (VARINT, FIXED32):
            values, size = _run(message[start : start + _RUN_BYTES], tag, wire)
            if size:
                place = start + size
                yield Field(number, INTEGERS if wire == VARINT else FIXED32, 0, values)
                continue
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


def _run(message: memoryview, tag: int, wire: int) -> tuple[memoryview, int]:
    """The values of a run of fields with the same one-byte tag, and the number of bytes that they take."""
    data = np.frombuffer(message, np.uint8)
    if wire == FIXED32:
        count = _leading(data[: len(data) // 5 * 5 : 5] == tag)
        return memoryview(data[: count * 5].reshape(count, 5)[:, 1:].tobytes()), count * 5
    ends = np.flatnonzero(data < 0x80)
    ends = ends[: len(ends) // 2 * 2]
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    count = _leading((ends[::2] == starts[::2]) & (data[starts[::2]] == tag))
    if not count:
        return message[:0], 0
    values = _decoded(data, starts[1 : 2 * count : 2], ends[1 : 2 * count : 2])
    return memoryview(values.tobytes()), int(ends[2 * count - 1]) + 1


def _leading(true: NDArray[np.bool_]) -> int:
    """The number of leading True values."""
    return int(np.argmin(true)) if len(true) and not true.all() else len(true)


def _decoded(data: NDArray[np.uint8], starts: NDArray[np.intp], ends: NDArray[np.intp]) -> NDArray[np.int64]:
    """The numbers of varints, given their first and last bytes."""
    sizes = ends - starts + 1
    if len(sizes) and sizes.max() > _VARINT_BYTES_MAX:
        raise MalformedError("model file: protocol buffer with a damaged number")
    values = np.zeros(len(sizes), np.uint64)
    for byte in range(int(sizes.max()) if len(sizes) else 0):
        longer = sizes > byte
        values[longer] |= (data[starts[longer] + byte] & 0x7F).astype(np.uint64) << np.uint64(7 * byte)
    return values.view(np.int64)


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    for byte in message[place : place + _VARINT_BYTES_MAX]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value % _RANGE, place + shift // 7
    raise MalformedError("model file: protocol buffer with a damaged number")


def signed(value: int) -> int:
    """The int64 that a varint encodes."""
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
    return _decoded(data, starts, ends)

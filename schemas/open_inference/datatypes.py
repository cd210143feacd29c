"""Datatypes of tensors, and their values in JSON and in binary (row-major, little-endian)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

from inferd.schemas.errors import InvalidValueError, MalformedError
from inferd.schemas.requests import Scalar

TEXT: Final = "BYTES"
"""Strings: in JSON as strings, in binary as UTF-8 after a length of four bytes."""
FORMATS: Final = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
"""Format of `struct` by datatype, other than `BYTES`."""
DATATYPES: Final = (*FORMATS, TEXT)
_FLOATS: Final = ("FP16", "FP32", "FP64")
_LENGTH: Final = struct.Struct("<I")


def check_datatype(name: str, datatype: str) -> str:
    """Returns the datatype of a tensor; `InvalidValueError` if it is unknown."""
    if datatype not in DATATYPES:
        raise InvalidValueError(f"tensor {name!r}: datatype {datatype[:40]!r}: expected one of {', '.join(DATATYPES)}")
    return datatype


def values_of_json(name: str, datatype: str, values: Sequence[Any]) -> list[Scalar]:
    """The values of a tensor from JSON; null is a missing value. Floats are rounded to the datatype.

    `InvalidValueError` naming the item that the datatype cannot represent.
    """
    present = [value for value in values if value is not None]
    allowed = _types(datatype)
    if not allowed.issuperset(map(type, present)):
        place, wrong = next((place, each) for place, each in enumerate(values) if not _is_of(each, allowed))
        raise _invalid(name, datatype, place, wrong)
    if datatype in (TEXT, "BOOL"):
        return list(values)
    try:
        rounded = _rounded(FORMATS[datatype], present)
    except (struct.error, OverflowError):
        place = next(place for place, each in enumerate(values) if not _fits(FORMATS[datatype], each))
        raise _invalid(name, datatype, place, values[place]) from None
    if len(present) == len(values):
        return rounded
    following = iter(rounded)
    return [None if value is None else next(following) for value in values]


def values_of_binary(name: str, datatype: str, data: bytes, count: int) -> list[Scalar]:
    """The values of a tensor from binary; a NaN is a missing value.

    `MalformedError` for a wrong number of bytes, `InvalidValueError` for a byte of `BOOL` that is neither 0 nor 1.
    """
    if datatype == TEXT:
        return _texts(name, data, count)
    size = struct.calcsize(FORMATS[datatype]) * count
    if len(data) != size:
        raise MalformedError(f"tensor {name!r}: {len(data)} bytes, but {count} items of {datatype} take {size}")
    if datatype == "BOOL" and data.translate(None, b"\x00\x01"):
        raise InvalidValueError(f"tensor {name!r}: a byte of BOOL is neither 0 nor 1")
    return list(struct.unpack(f"<{count}{FORMATS[datatype]}", data))


def binary_of_values(datatype: str, values: Sequence[Any]) -> bytes:
    """The values of a tensor in binary; None is NaN (only for floats) or an empty string."""
    if datatype == TEXT:
        texts = ["" if value is None else value for value in values]
        return b"".join(_LENGTH.pack(len(data)) + data for data in map(str.encode, texts))
    numbers = [math.nan if value is None else value for value in values]
    return struct.pack(f"<{len(numbers)}{FORMATS[datatype]}", *numbers)


def datatype_of(values: Sequence[Any]) -> str:
    """The datatype that represents values of one kind; numbers of several kinds are `FP64`."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str}:
        return TEXT
    if None in values:
        return "FP64"
    return {frozenset({bool}): "BOOL", frozenset({int}): "INT64"}.get(frozenset(kinds), "FP64")


def _types(datatype: str) -> frozenset[type]:
    if datatype in _FLOATS:
        return frozenset((float, int))
    return frozenset((str if datatype == TEXT else bool if datatype == "BOOL" else int,))


def _is_of(value: Any, allowed: frozenset[type]) -> bool:
    return value is None or type(value) in allowed


def _rounded(form: str, values: Sequence[Any]) -> list[Scalar]:
    layout = f"<{len(values)}{form}"
    return list(struct.unpack(layout, struct.pack(layout, *values)))


def _fits(form: str, value: Any) -> bool:
    try:
        return value is None or bool(_rounded(form, [value]))
    except (struct.error, OverflowError):
        return False


def _invalid(name: str, datatype: str, place: int, value: Any) -> InvalidValueError:
    return InvalidValueError(f"tensor {name!r}, item {place}: {repr(value)[:80]} is not of type {datatype}")


def _texts(name: str, data: bytes, count: int) -> list[Scalar]:
    texts: list[Scalar] = list(_pieces(name, data))
    if len(texts) != count:
        raise MalformedError(f"tensor {name!r}: {len(texts)} strings, but its shape has {count} items")
    return texts


def _pieces(name: str, data: bytes) -> Iterator[str]:
    start = 0
    while start < len(data):
        end = start + _LENGTH.size
        end += _LENGTH.unpack_from(data, start)[0] if end <= len(data) else 0
        if not start + _LENGTH.size <= end <= len(data):
            raise MalformedError(f"tensor {name!r}: it ends within a string")
        try:
            yield data[start + _LENGTH.size : end].decode()
        except UnicodeDecodeError as error:
            raise InvalidValueError(f"tensor {name!r}: a string is not UTF-8 ({error.reason})") from None
        start = end

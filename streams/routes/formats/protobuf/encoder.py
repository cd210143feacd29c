"""Encodes what inferd adds to messages: the fields of a result; outputs are of the type `google.protobuf.Value`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.requests import OWN_OUTPUTS
from inferd.streams.routes.formats.format import Value
from inferd.streams.routes.formats.protobuf.schema import CARRIED_NUMBER, RESULT_NUMBERS

_DOUBLE = Struct("<d")
_VARINT, _LENGTH = 0, 2
_NULL, _NUMBER, _TEXT, _TRUE, _FALSE, _STRUCT, _LIST = (
    b"\x08\0",
    b"\x11",
    b"\x1a",
    b"\x20\1",
    b"\x20\0",
    b"\x2a",
    b"\x32",
)
"""Tags of `Value`; null and booleans with their value."""
EXACT_MAX = 1 << 53
DEPTH_MAX = 30
"""Libraries read messages up to 100 deep; a list is two."""


def encode_varint(value: int) -> bytes:
    """A base-128 varint of 64 bits."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append((value & 0x7F) | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field_tag(number: int) -> bytes:
    """The tag of a field with a length."""
    return encode_varint(number << 3 | _LENGTH)


def delimited(number: int, data: bytes) -> bytes:
    """A field with a length."""
    return field_tag(number) + encode_varint(len(data)) + data


def encode_output(value: Any, depth: int = DEPTH_MAX) -> bytes:
    """A `Value`. `InvalidValueError` if it cannot be one."""
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, float | int):
        return _NUMBER + _DOUBLE.pack(value)
    if value is None:
        return _NULL
    if isinstance(value, str):
        data = _text(value)
        return _TEXT + encode_varint(len(data)) + data
    if depth == 0:
        raise InvalidValueError(f"an output is nested deeper than {DEPTH_MAX} lists")
    if isinstance(value, Mapping):
        data = b"".join(delimited(1, _entry(key, each, depth)) for key, each in value.items())
        return _STRUCT + encode_varint(len(data)) + data
    data = b"".join(delimited(1, encode_output(each, depth - 1)) for each in value)
    return _LIST + encode_varint(len(data)) + data


def _entry(key: Any, value: Any, depth: int = DEPTH_MAX) -> bytes:
    return delimited(1, _text(str(key))) + delimited(2, encode_output(value, depth - 1))


def _text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidValueError("the text of a result is not Unicode") from None


def encode_result(fields: Mapping[str, Any]) -> bytes:
    """The fields of a result."""
    return b"".join(_field(name, fields[name]) for name in RESULT_NUMBERS if fields.get(name) is not None)


def encode_carried(values: Sequence[Value]) -> bytes:
    """Carried fields."""
    return b"".join(delimited(number, _carried(value)) for number, value in enumerate(values, CARRIED_NUMBER))


def _carried(value: Value) -> bytes:
    # As in the JSON of Protobuf: whole numbers that float64 does not have are texts.
    if isinstance(value, int) and abs(value) > EXACT_MAX:
        return encode_output(str(value))
    return encode_output(value)


def _field(name: str, value: Any) -> bytes:
    number = RESULT_NUMBERS[name]
    if name == OWN_OUTPUTS:
        return b"".join(delimited(number, _entry(key, each)) for key, each in value.items())
    if name == "model_id":
        return delimited(number, _text(value))
    if name == "version":
        return encode_varint(number << 3 | _VARINT) + encode_varint(value)
    if name == "error":
        return delimited(number, delimited(1, _text(value["code"])) + delimited(2, _text(value["message"])))
    return delimited(number, encode_output(value))

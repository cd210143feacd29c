"""Encodes what inferd adds to records, with the schemas of `result_schema.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.requests import OWN_OUTPUTS
from inferd.streams.routes.formats.avro.result_schema import RESULT_FIELDS
from inferd.streams.routes.formats.format import Value

_DOUBLE = Struct("<d")
NULL, DOUBLE, TRUE, FALSE, STRING, ARRAY, MAP = b"\0", b"\2", b"\4\1", b"\4\0", b"\6", b"\x08", b"\x0a"
"""Numbers of branches; a boolean with its value."""
CARRIED_LONG = b"\x08"
PRESENT = b"\2"
"""The second branch of a union with null."""
DEPTH_MAX = 2
_LONG_MAX = 1 << 63


def encode_long(value: int) -> bytes:
    """A zigzag integer of 64 bits."""
    rest = (value << 1) ^ (value >> 63)
    if rest < 0x80:
        return bytes((rest,))
    encoded = bytearray()
    while rest >= 0x80:
        encoded.append((rest & 0x7F) | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def encode_text(text: str) -> bytes:
    """A string; `InvalidValueError` for one that is not Unicode."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise InvalidValueError("the text of a result is not Unicode") from None
    return encode_long(len(data)) + data


def encode_output(value: Any, depth: int = DEPTH_MAX) -> bytes:
    """A value of the type `OUTPUT`; of `SCALAR` if `depth` is 0. `InvalidValueError` if it is nested deeper."""
    if isinstance(value, float):
        return DOUBLE + _DOUBLE.pack(value)
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, int):
        return DOUBLE + _DOUBLE.pack(float(value))
    if isinstance(value, str):
        return STRING + encode_text(value)
    if depth == 0:
        raise InvalidValueError(f"an output is nested deeper than {DEPTH_MAX} lists, which is the limit of this format")
    if isinstance(value, Mapping):
        return MAP + _map_of(value, depth - 1)
    return ARRAY + _array_of(value, depth - 1)


def _array_of(items: Sequence[Any], depth: int) -> bytes:
    if not len(items):
        return b"\0"
    return b"".join((encode_long(len(items)), *(encode_output(each, depth) for each in items), b"\0"))


def _map_of(items: Mapping[Any, Any], depth: int) -> bytes:
    if not items:
        return b"\0"
    encoded = (encode_text(str(key)) + encode_output(value, depth) for key, value in items.items())
    return b"".join((encode_long(len(items)), *encoded, b"\0"))


def encode_result(fields: Mapping[str, Any]) -> bytes:
    """The fields of a result, in their order."""
    return b"".join(_field(name, fields.get(name)) for name in RESULT_FIELDS)


def result_template(fields: Mapping[str, Any], hole: str) -> tuple[bytes, bytes]:
    """The fields of a result before and after the one named `hole`."""
    at = RESULT_FIELDS.index(hole)
    encoded = [_field(name, fields.get(name)) for name in RESULT_FIELDS]
    return b"".join(encoded[:at]), b"".join(encoded[at + 1 :])


def encode_carried(values: Sequence[Value]) -> bytes:
    """Carried fields."""
    return b"".join(map(_carried, values))


def _carried(value: Value) -> bytes:
    if isinstance(value, int) and not isinstance(value, bool) and -_LONG_MAX <= value < _LONG_MAX:
        return CARRIED_LONG + encode_long(value)
    return encode_output(value, 0)


def _field(name: str, value: Any) -> bytes:
    if value is None:
        return NULL
    if name == OWN_OUTPUTS:
        return PRESENT + _map_of(value, DEPTH_MAX)
    if name == "model_id":
        return PRESENT + encode_text(value)
    if name == "version":
        return PRESENT + encode_long(value)
    if name == "error":
        return PRESENT + encode_text(value["code"]) + encode_text(value["message"])
    return encode_output(value)

"""Tensors in requests: dtype, shape and bytes, checked against each other before memory is allocated."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from math import prod

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, Codec, Decoders, printable
from inferd.schemas.errors import InvalidValueError, MalformedError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.schemas.requests.request import TensorRows

ITEM_BYTES: dict[str, int] = {
    "<f4": 4,
    "<f8": 8,
    "<i4": 4,
    "<i8": 8,
    "|b1": 1,
    "|i1": 1,
    "|u1": 1,
    "<i2": 2,
    "<u2": 2,
    "<u4": 4,
}
"""Bytes per item by dtype (numpy's array-protocol names)."""

FIELDS = {"dtype", "shape", "data"}
_SHAPE_BYTES_MAX = 256
_TEXT, _SHAPE, _BYTES = Decoders(str), Decoders(list[int]), Decoders(bytes)


def is_tensor(fields: Mapping[str, msgspec.Raw], codec: Codec) -> bool:
    """Whether a map is a tensor and not a row: it has a tensor's fields, and `shape` is a list, unlike any feature."""
    if fields.keys() != FIELDS:
        return False
    return codec.kinds(bytes(fields["shape"]))[0] == "array"


def decode_tensor(fields: Mapping[str, msgspec.Raw], codec: Codec, limits: Limits) -> TensorRows:
    """Decode a tensor; `data` is base64 in a format without bytes.

    `MalformedError` for a wrong type or number of bytes, `InvalidValueError` for an unknown dtype or a shape that is
    not two-dimensional, `TooLargeError` for a shape over the limits. Checked in the order dtype, shape, data.
    """
    dtype = _decode_dtype(fields["dtype"], codec)
    rows, features = _decode_shape(fields["shape"], codec, limits)
    size = ITEM_BYTES[dtype] * rows * features
    data = (_decode_data if codec.binary else _decode_base64)(fields["data"], codec, size)
    if len(data) != size:
        raise MalformedError(f"tensor data: {len(data)} bytes, but {rows} x {features} of {dtype} take {size}")
    if dtype == "|b1" and data.translate(None, b"\x00\x01"):
        raise InvalidValueError("tensor data: a byte of |b1 is neither 0 nor 1")
    return TensorRows(dtype, (rows, features), data)


def _decode_dtype(raw: msgspec.Raw, codec: Codec) -> str:
    try:
        dtype: str = _TEXT[codec](raw)
    except DECODE_ERRORS as error:
        raise MalformedError(f"tensor dtype: {printable(str(error))}") from None
    if dtype not in ITEM_BYTES:
        raise InvalidValueError(f"tensor dtype {dtype[:80]!r}: expected one of {', '.join(ITEM_BYTES)}")
    return dtype


def _decode_shape(raw: msgspec.Raw, codec: Codec, limits: Limits) -> tuple[int, int]:
    if len(raw) > _SHAPE_BYTES_MAX:
        raise InvalidValueError(f"tensor shape: {len(raw)} bytes; expected [rows, features]")
    try:
        shape = _SHAPE[codec](raw)
    except DECODE_ERRORS as error:
        raise MalformedError(f"tensor shape: {printable(str(error))}") from None
    if len(shape) != 2 or min(shape) < 0:
        raise InvalidValueError(f"tensor shape {shape}: expected [rows, features], both 0 or more")
    rows, features = shape
    for count, count_max, what in (
        (rows, limits.rows_max, "rows"),
        (features, limits.features_max, "features"),
        (prod(shape), limits.values_max, "values"),
    ):
        if count > count_max:
            raise TooLargeError(f"tensor shape {shape}: {count} {what}; at most {count_max} are allowed")
    return rows, features


def _decode_data(raw: msgspec.Raw, codec: Codec, size: int) -> bytes:
    try:
        data: bytes = _BYTES[codec](raw)
    except DECODE_ERRORS as error:
        raise MalformedError(f"tensor data: {printable(str(error))}") from None
    return data


def _decode_base64(raw: msgspec.Raw, codec: Codec, size: int) -> bytes:
    """Decode base64; text of a wrong length for `size` bytes is rejected before memory is allocated."""
    try:
        text = _TEXT[codec](raw)
        if len(text) != (size + 2) // 3 * 4:
            raise MalformedError(f"tensor data: {len(text)} characters of base64 do not encode {size} bytes")
        return binascii.a2b_base64(text, strict_mode=True)
    except DECODE_ERRORS as error:
        raise MalformedError(f"tensor data: not base64: {printable(str(error))}") from None

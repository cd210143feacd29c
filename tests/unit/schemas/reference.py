"""An independent decoder of requests: the packages `msgpack` and `json`, and a second implementation of the wire
format's rules."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

import msgpack

from inferd.schemas.codecs import JSON, Codec
from inferd.schemas.limits import Limits

SCALARS = (float, int, bool, str, type(None))
OUTPUTS = ("prediction", "probabilities", "raw", "contributions", "leaves")
DTYPES = {"<f4": 4, "<f8": 8, "<i4": 4, "<i8": 8, "|b1": 1, "|i1": 1, "|u1": 1, "<i2": 2, "<u2": 2, "<u4": 4}


class RefusedError(Exception):
    """The reference rejects the bytes."""


def loads(value: bytes, codec: Codec) -> Any:
    """The reference package's decoding, without values that the wire format never allows."""
    try:
        if codec is JSON:
            return json.loads(value.decode(), object_pairs_hook=_pairs, parse_constant=_constant)
        return msgpack.unpackb(value, raw=False, strict_map_key=True, object_pairs_hook=_pairs, ext_hook=_extension)
    except (ValueError, RecursionError, OverflowError, msgpack.UnpackException, TypeError) as error:
        raise RefusedError(str(error)) from error


def request(value: bytes, codec: Codec, limits: Limits) -> dict[str, Any]:
    """The request in `value` as the reference reads it; `RefusedError` if it breaks a rule of the wire format."""
    _need(0 < len(value) <= limits.message_bytes_max)
    fields: dict[str, Any] = loads(value, codec)
    _need(isinstance(fields, dict))
    _need({"model_id", "input_data"} <= fields.keys() <= {"id", "model_id", "input_data", "outputs"})
    _need(isinstance(fields["model_id"], str))
    _need(re.fullmatch(r"[A-Za-z0-9._-]{1,64}(:[1-9][0-9]{0,8}|@[A-Za-z0-9._-]{1,64})?", fields["model_id"]))
    if "id" in fields:
        _need(isinstance(fields["id"], str) and re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", fields["id"]))
    if "outputs" in fields:
        outputs = fields["outputs"]
        _need(isinstance(outputs, list) and outputs)
        _need(all(isinstance(name, str) and 0 < len(name) <= 256 for name in outputs))
        _need(not any("\ud800" <= character <= "\udfff" for name in outputs for character in name))
        _need(len(set(outputs)) == len(outputs) <= 100)
    _check_input(fields["input_data"], codec, limits)
    return fields


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type, NaN with NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (one, math.copysign(1, one)) == (
            other,
            math.copysign(1, other),
        )
    return bool(one == other)


def _pairs(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    _need(len(fields) == len(pairs) and all(isinstance(key, str) for key in fields))
    return fields


def _constant(text: str) -> None:
    raise RefusedError(text)


def _extension(code: int, data: bytes) -> None:
    raise RefusedError(f"ext {code}")


def _need(condition: object) -> None:
    if not condition:
        raise RefusedError


def _check_input(data: Any, codec: Codec, limits: Limits) -> None:
    if isinstance(data, dict):
        if data.keys() == {"dtype", "shape", "data"} and isinstance(data["shape"], list):
            _check_tensor(data, codec, limits)
        else:
            _check_named(data, codec, limits)
        return
    _need(isinstance(data, list))
    _need(len(data) <= (limits.rows_max if data and isinstance(data[0], list | dict) else limits.features_max))
    if data and isinstance(data[0], dict):
        for row in data:
            _check_named(row, codec, limits)
        _need(sum(map(len, data)) <= limits.values_max)
    elif data and isinstance(data[0], list):
        for row in data:
            _need(isinstance(row, list) and len(row) == len(data[0]) <= limits.features_max)
            _check_scalars(row, codec, limits)
        _need(sum(map(len, data)) <= limits.values_max)
    else:
        _check_scalars(data, codec, limits)


def _check_named(row: Any, codec: Codec, limits: Limits) -> None:
    _need(isinstance(row, dict) and len(row) <= limits.features_max)
    _need(all(_is_text(name) for name in row))
    _check_scalars(list(row.values()), codec, limits)


def _check_scalars(row: list[Any], codec: Codec, limits: Limits) -> None:
    for value in row:
        _need(type(value) in SCALARS)
        if isinstance(value, str):
            _need(_is_text(value) and len(value) <= limits.string_chars_max)
        if codec is JSON and isinstance(value, float | int):
            try:
                _need(math.isfinite(float(value)))
            except OverflowError:
                raise RefusedError from None


def _is_text(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _check_tensor(tensor: dict[str, Any], codec: Codec, limits: Limits) -> None:
    dtype, shape, data = tensor["dtype"], tensor["shape"], tensor["data"]
    _need(isinstance(dtype, str) and dtype in DTYPES)
    _need(len(shape) == 2 and all(type(count) is int and count >= 0 for count in shape))
    _need(shape[0] <= limits.rows_max and shape[1] <= limits.features_max and shape[0] * shape[1] <= limits.values_max)
    if codec is JSON:
        _need(isinstance(data, str) and len(data) == -(-shape[0] * shape[1] * DTYPES[dtype] // 3) * 4)
        try:
            data = base64.b64decode(data, validate=True)
        except ValueError:
            raise RefusedError from None
    _need(isinstance(data, bytes) and len(data) == shape[0] * shape[1] * DTYPES[dtype])
    _need(dtype != "|b1" or set(data) <= {0, 1})

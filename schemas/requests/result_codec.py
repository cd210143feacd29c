"""Encodes results, deterministically, and decodes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from inferd.schemas.errors import InferenceError, MalformedError, ModelServingError
from inferd.schemas.headers import Encoding
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests.request import OUTPUTS, Scalar
from inferd.schemas.requests.result import (
    Failure,
    Prediction,
    Result,
    RowError,
)
from inferd.schemas.strict import (
    DECODE_ERRORS,
    check_nesting,
    check_size,
    decode_error,
    depth_fault,
    header,
    printable,
    repeats_key,
)

_encode_msgpack = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode

# Contributions are the deepest output: lists of rows, of classes, of features. `top_k` adds a map.
_Level1 = Scalar | list[Scalar] | dict[str, Scalar]
_Level2 = Scalar | list[_Level1] | dict[str, Scalar]
_Level3 = Scalar | list[_Level2] | dict[str, Scalar]
_Values = Scalar | list[_Level3] | dict[str, Scalar]


class _ErrorFields(msgspec.Struct):
    """Unknown fields are ignored, for forward compatibility."""

    code: str
    message: str
    retryable: bool = False


class _Identity(msgspec.Struct):
    """The fields that predictions and failures share."""

    id: str
    model_id: str | None = None


def _decoders(type_: Any) -> dict[Encoding, Any]:
    return {"msgpack": msgspec.msgpack.Decoder(type_).decode, "json": msgspec.json.Decoder(type_).decode}


_KNOWN = frozenset({"id", "model_id", "version", "digest", "error", "errors", *OUTPUTS})
_FIELDS = _decoders(dict[str, msgspec.Raw])
_TEXT = _decoders(str)
_OPTIONAL_TEXT = _decoders(str | None)
_INTEGER = _decoders(int)
_VALUES = _decoders(_Values)
_ERROR = _decoders(_ErrorFields)
_IDENTITY = _decoders(_Identity)
_ROW_ERRORS = _decoders(list[RowError])


def encode_result(result: Result, encoding: Encoding) -> bytes:
    """Encode a result, with the fields in wire order and the outputs in the requested order.

    Equal results give equal bytes. JSON has neither NaN nor infinity; both become null.
    """
    fields: dict[str, Any]
    if isinstance(result, Prediction):
        fields = {"id": result.id, "model_id": result.model_id, "version": result.version, "digest": result.digest}
        fields.update(result.outputs)
        if result.errors is not None:
            fields["errors"] = result.errors
    else:
        error = {"code": result.code, "message": result.message, "retryable": result.retryable}
        fields = {"id": result.id, "model_id": result.model_id, "error": error}
    return _encode_msgpack(fields) if encoding == "msgpack" else _encode_json(fields)


def encode_failure_for(value: bytes, encoding: Encoding, error: ModelServingError) -> bytes:
    """Encode `error` as the result of the same request as the encoded result `value`."""
    identity: _Identity = _IDENTITY[encoding](value)
    return encode_result(Failure.of(error, identity.id, identity.model_id), encoding)


def decode_result(value: bytes | None, encoding: Encoding, limits: Limits = DEFAULT_LIMITS) -> Result:
    """Decode a result. Unknown fields are ignored, so that older clients keep working.

    `TooLargeError`, `MalformedError` or `TooDeepError` if it is invalid. `outputs` keep the order of the bytes.
    """
    data = check_size(value, limits.result_bytes_max, "result")
    try:
        fields: dict[str, msgspec.Raw] = _FIELDS[encoding](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, encoding, error, "result", limits.depth_max) from None
    if header(data)[1] != len(fields) if encoding == "msgpack" else repeats_key(data):
        raise decode_error(data, encoding, ValueError("a key appears twice"), "result", limits.depth_max)
    if not _KNOWN.issuperset(fields):
        check_nesting(data, encoding, "result")
    try:
        return _failure(fields, encoding, limits) if "error" in fields else _prediction(fields, encoding, limits)
    except InferenceError as error:
        if fault := depth_fault(data, encoding, limits.depth_max):
            raise type(fault)(f"result: {fault.message}") from None
        raise error from None


def _prediction(fields: Mapping[str, msgspec.Raw], encoding: Encoding, limits: Limits) -> Prediction:
    names = [name for name in fields if name in OUTPUTS]
    return Prediction(
        id=_field(fields, "id", _TEXT, encoding, limits),
        model_id=_field(fields, "model_id", _TEXT, encoding, limits),
        version=_field(fields, "version", _INTEGER, encoding, limits),
        digest=_field(fields, "digest", _TEXT, encoding, limits),
        outputs={name: _field(fields, name, _VALUES, encoding, limits) for name in names},
        errors=_field(fields, "errors", _ROW_ERRORS, encoding, limits) if "errors" in fields else None,
    )


def _failure(fields: Mapping[str, msgspec.Raw], encoding: Encoding, limits: Limits) -> Failure:
    error: _ErrorFields = _field(fields, "error", _ERROR, encoding, limits)
    return Failure(
        id=_field(fields, "id", _TEXT, encoding, limits),
        model_id=_field(fields, "model_id", _OPTIONAL_TEXT, encoding, limits) if "model_id" in fields else None,
        code=error.code,
        message=error.message,
        retryable=error.retryable,
    )


def _field(
    fields: Mapping[str, msgspec.Raw], name: str, decoders: Mapping[Encoding, Any], encoding: Encoding, limits: Limits
) -> Any:
    if name not in fields:
        raise MalformedError(f"result: the field {name} is missing; it has {printable(', '.join(fields))[:200]}")
    raw = fields[name]
    try:
        return decoders[encoding](raw)
    except DECODE_ERRORS as error:
        raise decode_error(bytes(raw), encoding, error, f"result, field {name}", limits.depth_max, depth=1) from None

"""Encodes results, deterministically, and decodes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from inferd.schemas.codecs import (
    DECODE_ERRORS,
    Codec,
    Decoders,
    check_nesting,
    check_size,
    decode_error,
    depth_fault,
    printable,
)
from inferd.schemas.errors import InferenceError, MalformedError, ModelServingError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests.request import OUTPUTS, Scalar
from inferd.schemas.requests.result import (
    OWN_OUTPUTS,
    Failure,
    Prediction,
    Result,
    RowError,
    output_fields,
)

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


_KNOWN = frozenset({"id", "model_id", "version", "digest", "error", "errors", *OUTPUTS, OWN_OUTPUTS})
_FIELDS = Decoders(dict[str, msgspec.Raw])
_TEXT = Decoders(str)
_OPTIONAL_TEXT = Decoders(str | None)
_INTEGER = Decoders(int)
_VALUES = Decoders(_Values)
_ERROR = Decoders(_ErrorFields)
_IDENTITY = Decoders(_Identity)
_ROW_ERRORS = Decoders(list[RowError])


def encode_result(result: Result, codec: Codec) -> bytes:
    """Encode a result, with the fields in wire order (`output_fields`) and the outputs in the requested order.

    Equal results give equal bytes. JSON has neither NaN nor infinity; both become null.
    """
    fields: dict[str, Any]
    if isinstance(result, Prediction):
        fields = {"id": result.id, "model_id": result.model_id, "version": result.version, "digest": result.digest}
        fields.update(output_fields(result.outputs))
        if result.errors is not None:
            fields["errors"] = result.errors
    else:
        error = {"code": result.code, "message": result.message, "retryable": result.retryable}
        fields = {"id": result.id, "model_id": result.model_id, "error": error}
    return codec.encode(fields)


def encode_failure_for(value: bytes, codec: Codec, error: ModelServingError) -> bytes:
    """Encode `error` as the result of the same request as the encoded result `value`."""
    return encode_result(Failure.of(error, *result_identity(value, codec)), codec)


def result_identity(value: bytes, codec: Codec) -> tuple[str, str | None]:
    """Id and model_id of an encoded result of ours."""
    identity: _Identity = _IDENTITY[codec](value)
    return identity.id, identity.model_id


def decode_result(value: bytes | None, codec: Codec, limits: Limits = DEFAULT_LIMITS) -> Result:
    """Decode a result. Unknown fields are ignored, so that older clients keep working.

    `TooLargeError`, `MalformedError` or `TooDeepError` if it is invalid. `outputs` keep the order of the bytes.
    """
    data = check_size(value, limits.result_bytes_max, "result")
    try:
        fields: dict[str, msgspec.Raw] = _FIELDS[codec](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, "result", limits.depth_max) from None
    if codec.repeats_key(data, len(fields), ()):
        raise decode_error(data, codec, ValueError("a key appears twice"), "result", limits.depth_max)
    if not _KNOWN.issuperset(fields):
        check_nesting(data, codec, "result")
    try:
        return _failure(fields, codec, limits) if "error" in fields else _prediction(fields, codec, limits)
    except InferenceError as error:
        if fault := depth_fault(data, codec, limits.depth_max):
            raise type(fault)(f"result: {fault.message}") from None
        raise error from None


def _prediction(fields: Mapping[str, msgspec.Raw], codec: Codec, limits: Limits) -> Prediction:
    names = [name for name in fields if name in OUTPUTS]
    outputs = {name: _field(fields, name, _VALUES, codec, limits) for name in names}
    if OWN_OUTPUTS in fields:
        outputs |= _own_outputs(fields, codec, limits)
    return Prediction(
        id=_field(fields, "id", _TEXT, codec, limits),
        model_id=_field(fields, "model_id", _TEXT, codec, limits),
        version=_field(fields, "version", _INTEGER, codec, limits),
        digest=_field(fields, "digest", _TEXT, codec, limits),
        outputs=outputs,
        errors=_field(fields, "errors", _ROW_ERRORS, codec, limits) if "errors" in fields else None,
    )


def _own_outputs(fields: Mapping[str, msgspec.Raw], codec: Codec, limits: Limits) -> dict[str, Any]:
    own: dict[str, msgspec.Raw] = _field(fields, OWN_OUTPUTS, _FIELDS, codec, limits)
    if codec.repeats_key(bytes(fields[OWN_OUTPUTS]), len(own), ()):
        raise MalformedError(f"result, field {OWN_OUTPUTS}: a key appears twice")
    return {name: _field(own, name, _VALUES, codec, limits) for name in own}


def _failure(fields: Mapping[str, msgspec.Raw], codec: Codec, limits: Limits) -> Failure:
    error: _ErrorFields = _field(fields, "error", _ERROR, codec, limits)
    return Failure(
        id=_field(fields, "id", _TEXT, codec, limits),
        model_id=_field(fields, "model_id", _OPTIONAL_TEXT, codec, limits) if "model_id" in fields else None,
        code=error.code,
        message=error.message,
        retryable=error.retryable,
    )


def _field(fields: Mapping[str, msgspec.Raw], name: str, decoders: Decoders, codec: Codec, limits: Limits) -> Any:
    if name not in fields:
        raise MalformedError(f"result: the field {name} is missing; it has {printable(', '.join(fields))[:200]}")
    raw = fields[name]
    try:
        return decoders[codec](raw)
    except DECODE_ERRORS as error:
        raise decode_error(bytes(raw), codec, error, f"result, field {name}", limits.depth_max, depth=1) from None

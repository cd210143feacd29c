"""Inference requests: decodes them, and converts their tensors to `input_data`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

from msgspec import Struct

from inferd.schemas.codecs import DECODE_ERRORS, JSON, MSGPACK, Decoders, check_nesting, check_size, decode_error
from inferd.schemas.errors import (
    InvalidHeaderError,
    InvalidValueError,
    MalformedError,
    SchemaMismatchError,
    TooLargeError,
)
from inferd.schemas.headers import JSON_LENGTH
from inferd.schemas.limits import Limits
from inferd.schemas.open_inference.datatypes import check_datatype, values_of_binary, values_of_json
from inferd.schemas.requests import ModelReference, Scalar

BINARY_SIZE, BINARY, BINARY_OUTPUT = "binary_data_size", "binary_data", "binary_data_output"
NUMPY = "np"
"""`content_type` of an input that is a matrix of all features, as MLServer's clients name it."""
DTYPES = {
    "BOOL": "|b1",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""dtype of our tensors by datatype."""
Parameters = dict[str, bool | int | float | str]


class Input(Struct, frozen=True, kw_only=True):
    """A tensor: in `data`, or after the JSON if `parameters` have `binary_data_size`."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | None = None


class RequestedOutput(Struct, frozen=True, kw_only=True):
    """An output to compute; `binary_data` in `parameters`: after the JSON of the response."""

    name: str
    parameters: Parameters = {}


class InferenceRequest(Struct, frozen=True, kw_only=True):
    """A request: one matrix of all features, or one tensor for each feature, of as many items as there are rows."""

    inputs: list[Input]
    id: str | None = None
    parameters: Parameters = {}
    outputs: list[RequestedOutput] = []

    def wants_binary(self, output: str) -> bool:
        """Whether to return an output in binary: as its own parameter says, else as that of the request does."""
        of_all = self.parameters.get(BINARY_OUTPUT, False)
        named = {each.name: each.parameters.get(BINARY, of_all) for each in self.outputs}
        return bool(named.get(output, of_all))


class NamedRequest(InferenceRequest, frozen=True, kw_only=True):
    """A request that names its model, with the fields that the protocol has for it over gRPC."""

    model_name: str | None = None
    model_version: str | int | None = None
    """A version number, or an alias."""


R = TypeVar("R", bound=InferenceRequest)
_REQUEST, _NAMED_REQUEST = Decoders(InferenceRequest), Decoders(NamedRequest)


def decode_request(body: bytes, json_bytes: int | None, limits: Limits) -> tuple[InferenceRequest, bytes]:
    """The request, and the bytes of its binary tensors. `json_bytes`: length of the JSON; None: all of the body.

    `MalformedError`, `TooDeepError` or `TooLargeError` if it is invalid.
    """
    return _decode(body, json_bytes, limits, _REQUEST[JSON])


def decode_named_request(body: bytes, json_bytes: int | None, limits: Limits) -> tuple[NamedRequest, bytes]:
    """Like `decode_request`, with the name of the model."""
    return _decode(body, json_bytes, limits, _NAMED_REQUEST[JSON])


def _decode(body: bytes, json_bytes: int | None, limits: Limits, decode: Callable[[bytes], R]) -> tuple[R, bytes]:
    if json_bytes is not None and json_bytes > len(body):
        raise MalformedError(f"body: the JSON has {json_bytes} bytes by its header, the body {len(body)}")
    text, binary = (body, b"") if json_bytes is None else (body[:json_bytes], body[json_bytes:])
    try:
        request = decode(check_size(text, len(text), "body"))
    except DECODE_ERRORS as error:
        raise decode_error(text, JSON, error, "body", limits.depth_max) from None
    check_nesting(text, JSON, "body")
    return request, binary


def model_reference(name: str, version: str | None) -> ModelReference:
    """The model that a name and a version name: the version is a number or an alias, or is part of the name.

    `InvalidIdError`; `InvalidValueError` for two versions.
    """
    reference = ModelReference.parse(name)
    if version is None:
        return reference
    if reference.version is not None or reference.alias is not None:
        raise InvalidValueError(f"{reference} names a version already: leave out the version {version[:80]!r}")
    return ModelReference.parse(f"{reference.name}{':' if version.isdecimal() else '@'}{version}")


def parse_json_length(text: str) -> int:
    """The value of the header with the length of the JSON in bytes; `InvalidHeaderError`."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 12:
        raise InvalidHeaderError(f"header {JSON_LENGTH}: {text[:40]!r} is not a number of bytes")
    return int(text)


def wire_request(request: InferenceRequest, binary: bytes, model_id: str, own_id: str | None, limits: Limits) -> bytes:
    """The same request as a MessagePack request of ours, with the id `own_id`.

    `InvalidValueError`, `MalformedError`, `SchemaMismatchError` or `TooLargeError` if its tensors are invalid or do
    not fit each other.
    """
    fields: dict[str, Any] = {} if own_id is None else {"id": own_id}
    fields |= {"model_id": model_id, "input_data": _input_data(request, binary, limits)}
    if request.outputs:
        fields["outputs"] = [output.name for output in request.outputs]
    return MSGPACK.encode(fields)


def row_values(request: InferenceRequest, binary: bytes, names: Sequence[str], limits: Limits) -> list[list[Scalar]]:
    """The rows of the inputs `names`, in their order: of the tensors of these names, or of one matrix of these columns.
    Other tensors are ignored.

    Raises what `wire_request` raises; `SchemaMismatchError` if there is no tensor of a name, or the matrix has another
    number of columns.
    """
    tensors = request.inputs
    parts = _checked(request, binary, limits)
    if len(tensors) == 1 and _is_matrix(tensors[0]):
        if tensors[0].shape[1] != len(names):
            raise SchemaMismatchError(
                f"tensor {tensors[0].name!r}: {tensors[0].shape[1]} columns; expected {len(names)}, those of"
                f" {', '.join(names[:20])}"
            )
        return _row_lists(tensors[0], parts[0])
    places = _places(tensors)
    if missing := [name for name in names if name not in places]:
        raise SchemaMismatchError(f"inputs: there is no tensor {missing[0]!r} among {[*places][:20]}")
    wanted = [places[name] for name in names]
    columns = [_values(tensors[place], parts[place]) for place in wanted]
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in range(tensors[0].shape[0])]


def _input_data(request: InferenceRequest, binary: bytes, limits: Limits) -> Any:
    parts = _checked(request, binary, limits)
    if len(request.inputs) == 1 and _is_matrix(request.inputs[0]):
        return _matrix(request.inputs[0], parts[0])
    return _columns(request.inputs, parts)


def _checked(request: InferenceRequest, binary: bytes, limits: Limits) -> list[bytes | None]:
    """The bytes of each binary input. Raises the error of the first invalid input."""
    parts = _binary_parts(request.inputs, binary)
    for each in request.inputs:
        _check(each, limits)
    return parts


def _binary_parts(inputs: Sequence[Input], binary: bytes) -> list[bytes | None]:
    """The bytes of each input that is binary, which follow one another in the order of the inputs."""
    parts: list[bytes | None] = []
    start = 0
    for each in inputs:
        size = each.parameters.get(BINARY_SIZE)
        if size is not None and (type(size) is not int or size < 0):
            raise MalformedError(f"tensor {each.name!r}: {BINARY_SIZE} {size!r} is not a number of bytes")
        if (size is None) == (each.data is None):
            raise MalformedError(f"tensor {each.name!r}: it needs either data or {BINARY_SIZE}")
        parts.append(None if size is None else binary[start : start + size])
        start += size or 0
    if start != len(binary):
        raise MalformedError(f"body: {len(binary)} bytes follow the JSON, but the tensors take {start}")
    return parts


def _check(tensor: Input, limits: Limits) -> None:
    check_datatype(tensor.name, tensor.datatype)
    shape = tensor.shape
    if not 1 <= len(shape) <= 2 or min(shape) < 0:
        raise InvalidValueError(f"tensor {tensor.name!r}: shape {str(shape)[:80]}: expected [rows] or [rows, features]")
    if prod(shape) > limits.values_max or shape[0] > limits.rows_max:
        raise TooLargeError(
            f"tensor {tensor.name!r}: shape {shape}: at most {limits.rows_max} rows and {limits.values_max} values are"
            " allowed"
        )


def _is_matrix(tensor: Input) -> bool:
    """Whether a tensor has all features: of several columns, or named so by its content type."""
    return len(tensor.shape) == 2 and (tensor.shape[1] != 1 or tensor.parameters.get("content_type") == NUMPY)


def _matrix(tensor: Input, part: bytes | None) -> Any:
    rows, features = tensor.shape
    if part is not None and tensor.datatype in DTYPES:
        return {"dtype": DTYPES[tensor.datatype], "shape": [rows, features], "data": part}
    return _row_lists(tensor, part)


def _row_lists(tensor: Input, part: bytes | None) -> list[list[Scalar]]:
    rows, features = tensor.shape
    values = _values(tensor, part)
    return [values[row * features : (row + 1) * features] for row in range(rows)]


def _columns(tensors: Sequence[Input], parts: Sequence[bytes | None]) -> list[dict[str, Scalar]]:
    names = [*_places(tensors)]
    columns = [_values(tensor, part) for tensor, part in zip(tensors, parts, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _places(tensors: Sequence[Input]) -> dict[str, int]:
    """The index of each tensor by its name; raises unless all have one feature and the same rows."""
    names = [tensor.name for tensor in tensors]
    if not names:
        raise SchemaMismatchError("inputs: expected a tensor for each feature, or one matrix of all features")
    if len(set(names)) < len(names):
        raise MalformedError(f"inputs: a name appears twice in {names[:20]}")
    rows = tensors[0].shape[0]
    for tensor in tensors:
        if tensor.shape not in ([rows], [rows, 1]):
            raise SchemaMismatchError(
                f"tensor {tensor.name!r}: shape {tensor.shape}: among several tensors each has one feature, so its"
                f" shape is [{rows}] or [{rows}, 1] as that of {names[0]!r}"
            )
    return {name: place for place, name in enumerate(names)}


def _values(tensor: Input, part: bytes | None) -> list[Scalar]:
    count = prod(tensor.shape)
    if part is not None:
        return values_of_binary(tensor.name, tensor.datatype, part, count)
    values = _flat(tensor.data or [])
    if len(values) != count:
        raise MalformedError(f"tensor {tensor.name!r}: {len(values)} items, but the shape {tensor.shape} has {count}")
    return values_of_json(tensor.name, tensor.datatype, values)


def _flat(data: list[Any]) -> list[Any]:
    """The items of `data`, which is flat or nested as its shape."""
    if not any(isinstance(item, list) for item in data):
        return data
    return [value for item in data for value in (item if isinstance(item, list) else [item])]

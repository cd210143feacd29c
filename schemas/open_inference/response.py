"""Inference responses: a result of ours as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from inferd.schemas.open_inference.datatypes import binary_of_values, datatype_of
from inferd.schemas.open_inference.request import BINARY_SIZE, InferenceRequest, Parameters
from inferd.schemas.requests import Prediction


class OutputTensor(Struct, frozen=True, kw_only=True):
    """An output: its first dimension is the number of rows."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | UnsetType = UNSET
    data: list[Any] | UnsetType = UNSET
    """Row-major and flat; absent if the data follows the JSON."""


class InferenceResponse(Struct, frozen=True, kw_only=True):
    """The outputs, and the version that computed them."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET


class ErrorResponse(Struct, frozen=True):
    """The response to a request that failed: `<code>: <message>`."""

    error: str
    id: str | UnsetType = UNSET


def encode_response(
    prediction: Prediction, request: InferenceRequest, *, may_be_binary: bool = True
) -> tuple[bytes, int | None]:
    """The body of the response to `request`, and the length of its JSON if binary tensors follow it.

    `prediction` is a result for rows. Numbers keep their bits, in JSON, too; NaN is null in JSON. Unless it
    `may_be_binary`, all of it is JSON, whatever the request wants.
    """
    tensors, parts = [], []
    for name, rows in prediction.outputs.items():
        tensor, part = _tensor(name, rows, binary=may_be_binary and request.wants_binary(name))
        tensors.append(tensor)
        parts.append(part)
    response = InferenceResponse(
        model_name=prediction.model_id,
        model_version=str(prediction.version),
        id=UNSET if request.id is None else request.id,
        parameters={"digest": prediction.digest},
        outputs=tensors,
    )
    text = msgspec.json.encode(response)
    data = b"".join(part for part in parts if part is not None)
    return text + data, None if all(part is None for part in parts) else len(text)


def encode_error(code: str, message: str, request: InferenceRequest | None) -> bytes:
    """The body of the response to a request that failed; None: one that could not be decoded."""
    its_id = UNSET if request is None or request.id is None else request.id
    return msgspec.json.encode(ErrorResponse(f"{code}: {message}", its_id))


def _tensor(name: str, rows: Sequence[Any], *, binary: bool) -> tuple[OutputTensor, bytes | None]:
    shape, values = _flat(rows)
    datatype = datatype_of(values)
    if not binary:
        return OutputTensor(name=name, shape=shape, datatype=datatype, data=values), None
    data = binary_of_values(datatype, values)
    return OutputTensor(name=name, shape=shape, datatype=datatype, parameters={BINARY_SIZE: len(data)}), data


def _flat(rows: Sequence[Any]) -> tuple[list[int], list[Any]]:
    """Shape and values; what has no shape (objects, lists of different lengths) becomes JSON text."""
    shape, values = [len(rows)], list(rows)
    while values and all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        shape.append(len(values[0]))
        values = [item for value in values for item in value]
    if any(isinstance(value, list | dict) for value in values):
        return shape, [msgspec.json.encode(value).decode() for value in values]
    return shape, values

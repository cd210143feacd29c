"""Scores rows with one model version in the caller's thread, with the checks and postprocessing of the lane."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np

from inferd.schemas.codec import decode_request, encode_request
from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import InvalidValueError
from inferd.schemas.limits import Limits
from inferd.schemas.requests import InputData, Output
from inferd.streams.inference import Inputs, PinnedModelId, ServedModel

_NO_BOUND = 2**50
UNBOUNDED: Final = Limits(message_bytes_max=_NO_BOUND, rows_max=_NO_BOUND, values_max=_NO_BOUND)
"""Limits for input that a program passes to a predictor: it is in memory already."""


class LoadsModels(Protocol):
    """The part of `ModelManager` that predictors use."""

    def load(self, model_id: str, *, routing_key: bytes = b"") -> ServedModel: ...


def model_of(models: LoadsModels, model_id: str, routing_key: bytes = b"") -> ServedModel:
    """The version that `model_id` is pinned to, or that it resolves to now."""
    if isinstance(model_id, PinnedModelId):
        return model_id.model
    return models.load(model_id, routing_key=routing_key)


def checked_input(model_id: str, input_data: Any, outputs: tuple[Output, ...], limits: Limits) -> InputData:
    """Encode and decode `input_data` as a request, with the same checks and errors."""
    value = encode_request(input_data, str(model_id), outputs=outputs)
    return decode_request(value, MSGPACK, limits).input_data


def are_rows(input_data: Any) -> bool:
    """Whether decoded `input_data` is a list of rows and not a single row."""
    return isinstance(input_data, list) and (not input_data or isinstance(input_data[0], list | dict))


def columns_of(model: ServedModel, inputs: Inputs, outputs: tuple[Output, ...]) -> dict[Output, list[Any]]:
    """For each of `outputs` one value per row of `inputs`; `InferenceError` if one is not finite or not available."""
    model.check_outputs(outputs)
    arrays = model.runtime.predict(inputs, model.postprocessor.needed(outputs))
    unfit = model.postprocessor.check(arrays)
    if unfit is not None and unfit.any():
        raise InvalidValueError(f"the model's output for row {int(np.argmax(unfit))} is not a finite number")
    return model.postprocessor.columns(arrays, outputs)

"""Results: a prediction, or a typed failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from inferd.schemas.errors import ModelServingError, error_of_code
from inferd.schemas.requests.request import OUTPUTS, Output


class RowError(msgspec.Struct, frozen=True):
    """Why a row has no prediction; `row` is its index in the request or in the job."""

    row: int
    code: str
    message: str

    def error(self) -> ModelServingError:
        """The exception for this row."""
        return error_of_code(self.code, self.message)


class Prediction(msgspec.Struct, frozen=True):
    """The outputs of a model version for a request: one value each, or a list of values. First those of `OUTPUTS`, then
    the model's own, each in the requested order.

    `errors` are present, in row order, if the request asked for them; the lists have None for those rows.
    """

    id: str
    model_id: str
    version: int
    digest: str
    outputs: dict[str, Any]
    errors: list[RowError] | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why a request has no prediction; `model_id` is None if it could not be decoded."""

    id: str
    model_id: str | None
    code: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, error: ModelServingError, id: str, model_id: str | None) -> Failure:  # noqa: A002  # the wire's own name
        """The failure of request `id` with `error`."""
        return cls(id, model_id, error.code, error.message, error.retryable)

    def error(self) -> ModelServingError:
        """The exception for this failure."""
        return error_of_code(self.code, self.message)


Result = Prediction | Failure
OWN_OUTPUTS = "outputs"
"""The field of a result that has the model's own outputs by name."""


def output_fields(outputs: Mapping[Output, Any]) -> dict[str, Any]:
    """The fields of a result for its outputs: a field for each of `OUTPUTS`, and one for all of the model's own."""
    fields = {name: value for name, value in outputs.items() if name in OUTPUTS}
    own = {name: value for name, value in outputs.items() if name not in OUTPUTS}
    return fields | {OWN_OUTPUTS: own} if own else fields

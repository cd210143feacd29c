"""Results as frozen values: a prediction, or a typed failure."""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.schemas.errors import ModelServingError, error_of_code


class RowError(msgspec.Struct, frozen=True):
    """Why a row of a request has no prediction."""

    row: int
    code: str
    message: str

    def error(self) -> ModelServingError:
        """The typed error that it stands for."""
        return error_of_code(self.code, self.message)


class Prediction(msgspec.Struct, frozen=True):
    """What a model version said to a request: `outputs` in the order asked for, values or lists of them.

    `errors`, in the order of rows, where the request asked for them; the lists have None for those rows.
    """

    id: str
    model_id: str
    version: int
    digest: str
    outputs: dict[str, Any]
    errors: list[RowError] | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why a request has no prediction; `model_id` is None where it could not be read."""

    id: str
    model_id: str | None
    code: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, error: ModelServingError, id: str, model_id: str | None) -> Failure:  # noqa: A002  # the wire's own name
        """The failure that answers request `id` with `error`."""
        return cls(id, model_id, error.code, error.message, error.retryable)

    def error(self) -> ModelServingError:
        """The typed error that this failure carries."""
        return error_of_code(self.code, self.message)


Result = Prediction | Failure

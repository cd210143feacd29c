"""Results as frozen values: a prediction, or a typed failure."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.errors import ModelServingError, error_of_code


class Prediction(msgspec.Struct, frozen=True):
    """What a model version said to a request: `outputs` in the order asked for, values or lists of them."""

    id: str
    model_id: str
    version: int
    digest: str
    outputs: dict[str, Any]


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

"""Errors of rollouts. They are never sent as results."""

from __future__ import annotations

from inferd.schemas.errors import ModelServingError, error_of_code
from inferd.schemas.models import AliasChangedError


class RolloutNotFoundError(ModelServingError):
    """The model has no rollout."""

    code = "rollout_not_found"
    http_status = 404
    meaning = "the model has no rollout"


class RolloutConflictError(ModelServingError):
    """The message does not fit the phase that the rollout is in; nothing was changed."""

    code = "rollout_conflict"
    http_status = 409
    meaning = "the message does not fit the phase of the model's rollout: look at it, and decide again"


class GuardUnavailableError(ModelServingError):
    """The workers do not measure the metric of a guard, so that it could never be breached."""

    code = "guard_unavailable"
    http_status = 422
    meaning = "the workers do not measure the metric of a guard: it could never be breached"


_OWN = {cls.code: cls for cls in (RolloutNotFoundError, RolloutConflictError, GuardUnavailableError, AliasChangedError)}


def error_of_answer(code: str, reason: str) -> ModelServingError:
    """The exception that a message was refused with."""
    cls = _OWN.get(code)
    return error_of_code(code, reason) if cls is None else cls(reason)

"""Errors of rollouts. They are never sent as results."""

from __future__ import annotations

from inferd.schemas.errors import ModelServingError


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
    """Nothing measures what a guard is about, so that it could never be breached."""

    code = "guard_unavailable"
    http_status = 422
    meaning = "nothing measures what a guard is about: it could never be breached"

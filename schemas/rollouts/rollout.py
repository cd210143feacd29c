"""Rollouts: their messages, their state, and what was answered to a message."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.schemas.models import CHAMPION, AliasTarget

Phase = Literal["running", "paused", "rolled_back", "promoted", "aborted", "superseded"]
ENDED: frozenset[Phase] = frozenset({"rolled_back", "promoted", "aborted", "superseded"})
REQUESTS_MIN = 100
"""Default number of requests of the new version that a step, or a guard, needs at least."""
EVENTS_MAX = 64
ANSWERS_MAX = 16
REASON_CHARS_MAX = 256


class _Message(
    msgspec.Struct, frozen=True, tag_field="type", forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    id: str
    """32 hexadecimal digits that no other message has."""


class StartRollout(_Message, frozen=True, tag="start", forbid_unknown_fields=True, kw_only=True):
    """Starts a rollout of version `to`; its `id` becomes that of the rollout.

    `steps` and `guards`: see `parse_steps` and `parse_guards`.
    """

    to: int
    steps: list[str]
    alias: str = CHAMPION
    guards: list[str] = []
    requests_min: int = REQUESTS_MIN
    """Requests that the new version must have had in a step which names no number of its own."""
    guard_requests_min: int = REQUESTS_MIN
    """Requests that a guard needs before it can be breached."""
    revision: int | None = None
    """The revision of the alias that the sender knows; None if any will do."""
    by: str | None = None


class _Control(_Message, frozen=True, forbid_unknown_fields=True, kw_only=True):
    rollout: str | None = None
    """The rollout that the sender knows; None if any will do."""
    by: str | None = None


class PauseRollout(_Control, frozen=True, tag="pause", forbid_unknown_fields=True, kw_only=True):
    """Stays in the step. Guards still roll back."""


class ResumeRollout(_Control, frozen=True, tag="resume", forbid_unknown_fields=True, kw_only=True):
    """Resumes a paused rollout."""


class PromoteRollout(_Control, frozen=True, tag="promote", forbid_unknown_fields=True, kw_only=True):
    """Gives all requests to the new version now, and ends."""


class AbortRollout(_Control, frozen=True, tag="abort", forbid_unknown_fields=True, kw_only=True):
    """Returns the alias to what it was before the start; also after a promotion."""


Control = PauseRollout | ResumeRollout | PromoteRollout | AbortRollout
RolloutMessage = StartRollout | Control
MESSAGES: dict[str, type[msgspec.Struct]] = {
    "start": StartRollout,
    "pause": PauseRollout,
    "resume": ResumeRollout,
    "promote": PromoteRollout,
    "abort": AbortRollout,
}
"""The type of each message, by its `type`."""


class Move(msgspec.Struct, frozen=True):
    """The last change of the alias that the rollout has written."""

    revision: int
    target: AliasTarget
    seen: bool = False
    """Whether it was read from the log, and counted there."""


class Breach(msgspec.Struct, frozen=True):
    """The guard that was breached, and its figures: shares in [0, 1], times in milliseconds."""

    guard: str
    value: float
    limit: float
    requests: int
    """Of the new version, in the step."""
    step: str
    at: int
    """Unix milliseconds."""
    champion: float | None = None
    """The champion's value, if the limit depends on it."""


class RolloutEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened to a rollout, for people."""

    at: int
    """Unix milliseconds."""
    what: str
    revision: int | None = None
    """The revision of the alias that it wrote."""
    by: str | None = None


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout. Times are Unix milliseconds."""

    id: str
    model_id: str
    alias: str
    version: int
    """The new version."""
    base: AliasTarget
    """What the alias pointed at before, and points at again after a breach."""
    base_revision: int
    steps: list[str]
    guards: list[str]
    requests_min: int
    guard_requests_min: int
    started_at: int
    started_by: str | None = None
    phase: Phase = "running"
    step: int = 0
    """Index of the running step, or of the last one."""
    since: int | None = None
    """Since when the step has run without a pause; None until workers can know of it, and during a pause."""
    held_ms: int = 0
    """How long it ran before that."""
    move: Move | None = None
    breach: Breach | None = None
    ended_at: int | None = None
    superseded_by: str | None = None
    """Whose change of the alias ended the rollout's part in it: the rollout never changes it again."""
    events: list[RolloutEvent] = []
    """Oldest first; the first, and the newest `EVENTS_MAX`."""

    @property
    def ended(self) -> bool:
        return self.phase in ENDED


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether a message was accepted: without `code`, it was."""

    id: str
    code: str | None = None
    reason: str | None = None


class Measure(msgspec.Struct, frozen=True):
    """What a guard measured in the running step. None: unknown, or not enough requests yet."""

    guard: str
    value: float | None
    limit: float | None
    requests: int


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The newest status of a model's rollout."""

    rollout: Rollout | None = None
    """None if the model never had one."""
    answers: list[Answer] = []
    """Of the newest `ANSWERS_MAX` messages, oldest first."""
    requests: int = 0
    """Requests of the new version in the running step."""
    measures: list[Measure] = []
    at: int = 0
    """When it was published, in Unix milliseconds."""

    def answer(self, message_id: str) -> Answer | None:
        """The answer to a message; None if it was not processed yet, or long ago."""
        return next((answer for answer in self.answers if answer.id == message_id), None)

"""The result of one input of a job: its next state and the records to publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inferd.schemas.errors import InvalidValueError, ModelServingError
from inferd.schemas.jobs import (
    Barrier,
    Chunk,
    JobError,
    JobStatus,
    Phase,
)
from inferd.schemas.limits import Limits
from inferd.schemas.requests import ModelReference, Output
from inferd.streams.jobs.state.report import missing_of, status_of
from inferd.streams.jobs.state.state import (
    NO_CHUNKS,
    NO_MESSAGES,
    NOTHING_USED,
    JobState,
    Usage,
)

PROGRESS_INTERVAL_MS = 1_000
"""Minimum time between two statuses that differ in progress alone."""


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """The version that scores a job, whatever its aliases are later."""

    model_id: str
    version: int
    digest: str
    values_per_row: int | None = None
    """Size of all outputs together, if known."""
    alias_revision: int | None = None
    """The revision of the alias that chose the version; None without one."""
    variant: str | None = None
    """Which variant of the alias the version is."""


Pin = Callable[[ModelReference, tuple[Output, ...], str], PinnedModel]
"""(model, outputs, job id) -> the version; raises `InferenceError` if there is none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The context of a transition."""

    limits: Limits
    partition: int
    """Partition of the job in `jobs`, `job-results` and the table."""
    partitions: int
    """Number of partitions of `job-chunks`."""
    pin: Pin
    epoch: int
    """Changes whenever states are read again: after a crash, or with another owner."""
    in_use: Usage = NOTHING_USED
    """Quota use of the tenant's jobs that are known to this worker."""


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one input.

    It never contains a terminal status. The `tick` after `due` publishes that from a stored state, so that no replay in
    another order publishes a different one.
    """

    state: JobState | None
    """The next state; None if there is no job (any longer)."""
    changed: bool = False
    """Whether the state has changed; with state None, the job and its status are removed."""
    chunks: tuple[Chunk, ...] = ()
    barrier: Barrier | None = None
    """Sent to every partition of `job-chunks`, after all earlier records there."""
    status: JobStatus | None = None
    rejection: ModelServingError | None = None
    """Why the message was rejected; it changed nothing."""
    due: bool = False
    """`tick` has work as soon as `state` is stored."""


def is_due(state: JobState) -> bool:
    """Whether `tick` has work that does not depend on time."""
    return state.ended and (not state.announced or state.retry_wanted)


def step_to(
    before: JobState | None,
    after: JobState,
    now_ms: int,
    chunks: Sequence[Chunk] = (),
    barrier: Barrier | None = None,
) -> Step:
    """The step from one state to another, with a status if there is news, or progress and no recent status."""
    shown = before is not None and before.opened_with is not None
    news = after.phase != (before.phase if before else None) or not shown
    progress = now_ms - after.published_at >= PROGRESS_INTERVAL_MS
    if not (before and before.ended and after.ended):
        after = replace(after, updated_at=now_ms)
    if after.ended or after.opened_with is None or not (news or progress):
        after = replace(after, unpublished=not after.ended)
        return Step(after, True, tuple(chunks), barrier, None, None, is_due(after))
    after = replace(after, unpublished=False, published_at=now_ms)
    return Step(after, True, tuple(chunks), barrier, status_of(after))


def finish(state: JobState, phase: Phase, now_ms: int, error: ModelServingError | None = None) -> JobState:
    """The ended job; it keeps only what decides whether it can be retried."""
    return replace(
        state,
        phase=phase,
        finished_at=now_ms,
        error=JobError.of(error) if error else None,
        missing=missing_of(state) if phase == "incomplete" else None,
        announced=False,
        retry_wanted=state.retry_wanted and phase == "completed_with_errors",
    )


def expire(state: JobState, now_ms: int) -> JobState:
    """The job after its results have expired: only its counts are kept."""
    return replace(
        state,
        phase="expired",
        finished_at=state.finished_at or now_ms,
        updated_at=now_ms,
        announced=False,
        retry_wanted=False,
        messages=NO_MESSAGES,
        chunks=NO_CHUNKS,
        next_seq=0,
    )


def settle(state: JobState, now_ms: int) -> JobState:
    """The state; ended if nothing is left to wait for."""
    if state.ended:
        return state
    if state.barrier is not None:
        return state if state.barriers_left else finish(state, "cancelled", now_ms)
    if state.opened_with is None:
        return state
    rows, announced = state.input_count, state.row_count
    if announced is not None and (rows > announced or (state.group_complete and rows != announced)):
        error = InvalidValueError(f"row_count: {announced} rows were announced, and {rows} came")
        return finish(state, "failed", now_ms, error)
    if not state.group_complete or state.chunks_done < len(state.chunks):
        return state
    return finish(state, "completed_with_errors" if state.failed else "completed", now_ms)

"""What follows from an input of a job: its next state, and what is to be published."""

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
"""Between two statuses that show progress alone."""


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """The version that a job is scored with, whatever its aliases say later."""

    model_id: str
    version: int
    digest: str
    values_per_row: int | None = None
    """Of all outputs of the job together, if that is known."""


Pin = Callable[[ModelReference, tuple[Output, ...], str], PinnedModel]
"""(model, outputs, job id) -> the version; raises `InferenceError` where there is none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a job's arithmetic needs to know of its context."""

    limits: Limits
    partition: int
    """Of the job in `jobs`, `job-results` and the table."""
    partitions: int
    """How many `job-chunks` has."""
    pin: Pin
    epoch: int
    """A number that changes whenever states are read anew: after a crash, or with another owner."""
    in_use: Usage = NOTHING_USED
    """What jobs of the tenant take, as far as it is known here."""


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from one input.

    A terminal status is not among it: it is published by the `tick` that follows on `due`, once this state is kept for
    good, so that no replay in another order can publish another one.
    """

    state: JobState | None
    """The next state; None where there is no job (any longer)."""
    changed: bool = False
    """Whether the state is another one than before; with None: the job and its status are to be removed."""
    chunks: tuple[Chunk, ...] = ()
    barrier: Barrier | None = None
    """To be sent to every partition of `job-chunks`, behind everything that was sent there before."""
    status: JobStatus | None = None
    refusal: ModelServingError | None = None
    """Why the message was refused; it changed nothing."""
    due: bool = False
    """`tick` has something to do as soon as `state` is kept for good."""


def is_due(state: JobState) -> bool:
    """Whether `tick` has something to do that no passing of time brings about."""
    return state.ended and (not state.announced or state.retry_wanted)


def step_to(
    before: JobState | None,
    after: JobState,
    now_ms: int,
    chunks: Sequence[Chunk] = (),
    barrier: Barrier | None = None,
) -> Step:
    """The step from one state to another, with a status if there is news, or progress and none for a while."""
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
    """The job ended; whether it may be retried is all that is left of it to decide."""
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
    """The job's results can no longer be read: nothing but its figures is kept."""
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
    """The state, ended if nothing is left to wait for."""
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

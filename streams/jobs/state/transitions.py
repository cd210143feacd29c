"""The transitions of batch jobs: pure functions from a state and an input to the next state and the records to publish.

    advance   a message of `jobs`
    count     a record of `job-results`
    tick      time, or a state that was stored (`Step.due`)

The caller stores the state of a step once everything that the step publishes is acknowledged, and after a failure
resumes from the state stored last. A replayed input publishes the same records again, or none. Terminal statuses are
published from stored states alone, so that no replay in another order leads to a different one.
"""

from __future__ import annotations

from dataclasses import replace

from inferd.schemas.errors import ModelServingError
from inferd.schemas.jobs import (
    Barrier,
    BarrierResult,
    CancelJob,
    Chunk,
    ChunkOutcome,
    CloseJob,
    JobMessage,
    JobRows,
    OpenJob,
    SubmitJob,
)
from inferd.schemas.limits import Limits
from inferd.streams.jobs.state import messages
from inferd.streams.jobs.state.chunks import chunk_records
from inferd.streams.jobs.state.messages import Unchanged
from inferd.streams.jobs.state.report import status_of
from inferd.streams.jobs.state.state import JobState, read_only
from inferd.streams.jobs.state.step import (
    PROGRESS_INTERVAL_MS,
    Step,
    Terms,
    expire,
    finish,
    is_due,
    settle,
    step_to,
)

_KEPT_FOR_RETENTIONS = 2
"""A job is forgotten after this many retention periods."""


def advance(state: JobState | None, job_id: str, message: JobMessage, at: int, now_ms: int, terms: Terms) -> Step:
    """The step for `message`, at offset `at` of `jobs`, of a job (None: unknown).

    Nothing changes for an offset that the state includes already, for a repeat, and with a `rejection`.
    """
    if state is not None and at <= state.applied_jobs:
        return Step(state, due=is_due(state))
    try:
        after = _taken(state, job_id, message, at, now_ms, terms)
    except Unchanged:
        return Step(state, due=state is not None and is_due(state))
    except ModelServingError as rejection:
        return Step(state, rejection=rejection, due=state is not None and is_due(state))
    cut = replace(settle(messages.dispatched(after, now_ms), now_ms), applied_jobs=at)
    if cut.ended:
        return step_to(state, cut, now_ms)
    barrier = Barrier(job_id=job_id, barrier=_barrier(at, terms), partition=terms.partition)
    chunks = _new_chunks(after, cut, message, terms)
    return step_to(state, cut, now_ms, chunks, barrier if isinstance(message, CancelJob) else None)


def _taken(state: JobState | None, job_id: str, message: JobMessage, at: int, now_ms: int, terms: Terms) -> JobState:
    """The state with `message` applied, before anything is dispatched."""
    match message:
        case OpenJob():
            return messages.opened(state, job_id, message, messages.opening_hash(message), now_ms, terms)
        case SubmitJob():
            return _submitted(state, job_id, message, at, now_ms, terms)
        case JobRows():
            known = _begun(state, job_id, now_ms, terms)
            return messages.with_rows(known, message.seq, message.batch, at, now_ms, terms)
        case CloseJob():
            return messages.closed(_begun(state, job_id, now_ms, terms), message.message_count)
    if state is None:
        raise messages.not_found(job_id)
    if isinstance(message, CancelJob):
        return messages.cancelled(state, _barrier(at, terms), now_ms, terms)
    return messages.retried(state, terms.limits)


def _begun(state: JobState | None, job_id: str, now_ms: int, terms: Terms) -> JobState:
    """The job; a new one that is not yet opened if its first message is not the opening one."""
    if state is not None:
        return state
    messages.check_may_start(terms)
    return JobState(job_id, now_ms, now_ms)


def _submitted(state: JobState | None, job_id: str, message: SubmitJob, at: int, now_ms: int, terms: Terms) -> JobState:
    opened_with = messages.opening_hash(message.open, message.batch)
    if state is not None and state.opened_with is None:
        raise messages.submitted_late(state)
    opened = messages.opened(state, job_id, message.open, opened_with, now_ms, terms)
    if opened.ended:
        return opened
    filled = messages.with_rows(opened, 0, message.batch, at, now_ms, terms)
    return replace(filled, message_count=1)


def _barrier(at: int, terms: Terms) -> str:
    return f"{at}-{terms.epoch:x}"


def _new_chunks(before: JobState, after: JobState, message: JobMessage, terms: Terms) -> list[Chunk]:
    """Records of the new chunks."""
    inline = None
    if isinstance(message, JobRows | SubmitJob):
        inline = (message.seq if isinstance(message, JobRows) else 0, message.batch)
    places = range(len(before.chunks), len(after.chunks))
    return list(chunk_records(after, places, terms.partition, terms.limits, inline))


def count(state: JobState | None, outcome: ChunkOutcome | BarrierResult, at: int, now_ms: int) -> Step:
    """The step for a record at offset `at` of `job-results`.

    Nothing changes for an offset that the state includes already, for a job that has ended, and for a result that is a
    repeat, or is of an older attempt, another version or other rows.
    """
    if state is None or state.ended or at <= state.applied_results:
        return Step(state, due=state is not None and is_due(state))
    after = _answered(state, outcome) if isinstance(outcome, BarrierResult) else _counted(state, outcome, at)
    if after is state:
        return Step(state)
    return step_to(state, replace(settle(after, now_ms), applied_results=at), now_ms)


def _answered(state: JobState, answer: BarrierResult) -> JobState:
    left = state.barriers_left & ~(1 << answer.partition)
    if state.barrier != answer.barrier or left == state.barriers_left:
        return state
    return replace(state, barriers_left=left)


def _counted(state: JobState, outcome: ChunkOutcome, at: int) -> JobState:
    if not 0 <= outcome.chunk < len(state.chunks) or outcome.digest != state.digest:
        return state
    chunk = state.chunks[outcome.chunk]
    first_row, rows, result, failed_before, attempt, done = (
        chunk[name].item() for name in ("first_row", "rows", "result", "failed", "attempt", "done")
    )
    if done or (outcome.attempt, outcome.first_row, outcome.row_count) != (attempt, first_row, rows):
        return state
    chunks = state.chunks.copy()
    chunks["result"][outcome.chunk] = at
    chunks["failed"][outcome.chunk] = outcome.failed
    chunks["done"][outcome.chunk] = True
    undecided = rows if result < 0 else failed_before
    return replace(
        state,
        chunks=read_only(chunks),
        chunks_done=state.chunks_done + 1,
        succeeded=state.succeeded + undecided - outcome.failed,
        failed=state.failed + outcome.failed,
    )


def tick(state: JobState, now_ms: int, terms: Terms) -> Step:
    """The step that is due by time, or after a state was stored: one change at a time, with `due` if another follows.

    Call it for a stored state only, since it publishes terminal statuses.
    """
    if state.ended:
        return _tick_ended(state, now_ms, terms)
    if now_ms >= expires_at(state, terms.limits):
        return step_to(state, expire(state, now_ms), now_ms)
    if _is_overdue(state, now_ms, terms.limits):
        return step_to(state, finish(state, "incomplete", now_ms), now_ms)
    shown = state.opened_with is not None and state.unpublished
    if shown and now_ms - state.published_at >= PROGRESS_INTERVAL_MS:
        after = replace(state, unpublished=False, published_at=now_ms)
        return Step(after, True, status=status_of(after))
    return Step(state)


def _tick_ended(state: JobState, now_ms: int, terms: Terms) -> Step:
    if not state.announced:
        after = replace(state, announced=True, unpublished=False, published_at=now_ms)
        return Step(after, True, status=status_of(after), due=is_due(after))
    if now_ms >= removed_at(state, terms.limits):
        return Step(None, True)
    if state.phase != "expired" and now_ms >= expires_at(state, terms.limits):
        return Step(expire(state, now_ms), True, due=True)
    if state.retry_wanted:
        after, places = messages.retry_started(state)
        return step_to(state, after, now_ms, list(chunk_records(after, places, terms.partition, terms.limits)))
    return Step(state)


def expires_at(state: JobState, limits: Limits) -> int:
    """When the results of a job expire, in Unix milliseconds."""
    return state.created_at + round(limits.job_retention_s * 1_000)


def removed_at(state: JobState, limits: Limits) -> int:
    """When a job is forgotten, in Unix milliseconds."""
    return state.created_at + _KEPT_FOR_RETENTIONS * round(limits.job_retention_s * 1_000)


def wakes_at(state: JobState, limits: Limits) -> int:
    """When `tick` next has work if nothing else happens, in Unix milliseconds."""
    if is_due(state):
        return 0
    if state.ended:
        return removed_at(state, limits) if state.phase == "expired" else expires_at(state, limits)
    times = [expires_at(state, limits)]
    if state.opened_with is not None and state.unpublished:
        times.append(state.published_at + PROGRESS_INTERVAL_MS)
    if state.attempt == 0 and state.barrier is None:
        deadline, late = _deadlines(state, limits)
        waiting = not state.group_complete and state.chunks_done == len(state.chunks)
        times.append((deadline if waiting else late) + 1)
    return min(times)


def _deadlines(state: JobState, limits: Limits) -> tuple[int, int]:
    """When all messages must have arrived, and when all chunks must be done."""
    open_until = state.created_at + round(limits.job_open_max_s * 1_000)
    if state.deadline_ms is None and state.group_complete:
        return expires_at(state, limits), expires_at(state, limits)
    deadline = open_until if state.deadline_ms is None else state.deadline_ms
    return deadline, deadline + round(limits.job_deadline_grace_s * 1_000)


def _is_overdue(state: JobState, now_ms: int, limits: Limits) -> bool:
    """Whether the job has expired: messages are missing at the deadline and no chunk is in flight, or chunks are still
    in flight after the grace period. The deadline of a retry is the retention; a job that is being cancelled waits for
    its barriers."""
    if state.attempt or state.barrier is not None:
        return False
    deadline, late = _deadlines(state, limits)
    waiting = not state.group_complete and state.chunks_done == len(state.chunks)
    return now_ms > (deadline if waiting else late)

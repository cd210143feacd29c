"""How each message of a job changes its state."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import msgspec
import numpy as np

from inferd.schemas.codecs import codec_named
from inferd.schemas.errors import (
    ChunkConflictError,
    InferenceError,
    InvalidValueError,
    JobClosedError,
    JobConflictError,
    JobExpiredError,
    JobNotFoundError,
    ModelServingError,
    QuotaExceededError,
    TooLargeError,
)
from inferd.schemas.jobs import OpenJob, RowBatch
from inferd.schemas.limits import Limits
from inferd.streams.jobs.state.chunks import arrived_until, chunk_count, chunks_of
from inferd.streams.jobs.state.state import (
    MESSAGE,
    JobState,
    Records,
    read_only,
)
from inferd.streams.jobs.state.step import PinnedModel, Terms, finish

_ROW_BYTES = 16
"""Memory per row besides its values."""


class Unchanged(Exception):  # noqa: N818  # a verdict on a message, not a fault
    """The message is a repeat and changes nothing."""


def opening_hash(message: OpenJob, batch: RowBatch | None = None) -> int:
    """64-bit hash of the opening message, independent of its encoding."""
    plain = [str(message.model), message.outputs, message.row_count, message.chunk_rows, message.deadline_ms]
    content = [*plain, sorted(message.labels.items()), None if batch is None else batch.digest]
    return int.from_bytes(hashlib.blake2b(msgspec.msgpack.encode(content), digest_size=8).digest(), "big")


def check_may_start(terms: Terms) -> None:
    """`QuotaExceededError` if the tenant has its maximum of open jobs."""
    if terms.in_use.jobs >= terms.limits.jobs_open_max:
        raise QuotaExceededError(
            f"{terms.in_use.jobs} jobs have not ended, and {terms.limits.jobs_open_max} are allowed: wait for one"
        )


def opened(
    state: JobState | None, job_id: str, message: OpenJob, opened_with: int, now_ms: int, terms: Terms
) -> JobState:
    """The opened job; it has failed if no model can be pinned or a quota is exceeded.

    `Unchanged` if it was opened with the same content before; else `JobConflictError`, `JobClosedError`,
    `JobExpiredError`.
    """
    if state is not None and state.opened_with is not None:
        if state.opened_with == opened_with:
            raise Unchanged
        raise JobConflictError(f"job {job_id!r} was already opened with other content, which stays in effect")
    if state is not None:
        check_takes_messages(state)
    new = JobState(job_id, now_ms, now_ms) if state is None else state
    new = replace(
        new,
        opened_with=opened_with,
        encoding=message.encoding,
        model_id=message.model.name,
        outputs=message.outputs,
        row_count=message.row_count,
        deadline_ms=message.deadline_ms,
        labels=message.labels,
    )
    try:
        if state is None:
            check_may_start(terms)
        _check_rows(0, message.row_count or 0, terms)
        pinned = terms.pin(message.model, message.outputs, job_id)
        chunk_rows = _chunk_rows(message, pinned, terms.limits)
        chunks_total = int(np.sum(-(-new.messages["rows"].astype(np.int64) // chunk_rows)))
        _check_chunks(chunks_total, terms.limits)
    except InferenceError as error:
        return finish(new, "failed", now_ms, error)
    return replace(
        new,
        model_id=pinned.model_id,
        version=pinned.version,
        digest=pinned.digest,
        alias_revision=pinned.alias_revision,
        variant=pinned.variant,
        chunk_rows=chunk_rows,
        chunks_total=chunks_total,
    )


def with_rows(state: JobState, seq: int, batch: RowBatch, at: int, now_ms: int, terms: Terms) -> JobState:
    """The job with another message of rows; it has failed if it has too many.

    `Unchanged` for a repeat; `ChunkConflictError`, `JobClosedError`, `JobExpiredError`, or `InvalidValueError` for a
    number that the close excludes. Rows after the deadline are accepted until the job has ended, so that the outcome
    does not depend on when a message is read.
    """
    known = state.message_digest(seq)
    if known == batch.digest:
        raise Unchanged
    if known is not None:
        raise ChunkConflictError(f"rows {seq} was already received with other bytes: these are rejected")
    check_takes_messages(state)
    if state.message_count is not None and seq >= state.message_count:
        raise InvalidValueError(f"seq: {seq}, and the job was closed with {state.message_count} messages")
    chunks = chunk_count(batch.count, state.chunk_rows) if state.chunk_rows else 0
    try:
        _check_rows(state.input_count, batch.count, terms)
        _check_bytes(batch.n_bytes, terms)
        _check_chunks(state.chunks_total + chunks, terms.limits)
    except InferenceError as error:
        return finish(state, "failed", now_ms, error)
    return replace(
        state,
        messages=_placed(state.messages, seq, (at, batch.count, batch.digest)),
        input_count=state.input_count + batch.count,
        input_bytes=state.input_bytes + batch.n_bytes,
        chunks_total=state.chunks_total + chunks,
    )


def closed(state: JobState, message_count: int) -> JobState:
    """The job with its number of messages.

    `Unchanged` for a repeat; `InvalidValueError` if it contradicts an earlier close or existing messages;
    `JobClosedError`, `JobExpiredError`.
    """
    if state.message_count == message_count:
        raise Unchanged
    check_takes_messages(state)
    if state.message_count is not None:
        raise InvalidValueError(f"message_count: {message_count}, and the job was closed with {state.message_count}")
    if len(state.messages) > message_count:
        raise InvalidValueError(f"message_count: {message_count}, and rows {len(state.messages) - 1} are there")
    return replace(state, message_count=message_count)


def cancelled(state: JobState, barrier: str, now_ms: int, terms: Terms) -> JobState:
    """The job being cancelled, or `cancelled` if nothing was dispatched.

    `Unchanged` if it is cancelled already; `JobClosedError`, `JobExpiredError` if it ended otherwise.
    """
    if state.phase == "cancelled" or (state.barrier is not None and not state.ended):
        raise Unchanged
    check_takes_messages(state)
    if not len(state.chunks):
        return finish(replace(state, barrier=barrier), "cancelled", now_ms)
    return replace(state, barrier=barrier, barriers_left=(1 << terms.partitions) - 1)


def retried(state: JobState, limits: Limits) -> JobState:
    """The job, to be retried; it must have ended with errors.

    `Unchanged` for a repeat; `JobClosedError` if it ended otherwise, `QuotaExceededError` after too many retries.
    """
    if state.retry_wanted:
        raise Unchanged
    if state.phase != "completed_with_errors":
        check_takes_messages(state)
    if state.attempt >= limits.job_attempts_max:
        raise QuotaExceededError(f"job {state.job_id!r} was retried {state.attempt} times, which is the limit")
    return replace(state, retry_wanted=True)


def check_takes_messages(state: JobState) -> None:
    """Raises `JobExpiredError` or `JobClosedError` if the job has ended or is being cancelled."""
    if state.phase == "expired":
        raise JobExpiredError(f"job {state.job_id!r} is past its retention")
    if state.ended:
        raise JobClosedError(f"job {state.job_id!r} has ended: it is {state.phase}")
    if state.barrier is not None:
        raise JobClosedError(f"job {state.job_id!r} is being cancelled")


def not_found(job_id: str) -> ModelServingError:
    """The error of a cancellation or retry of an unknown job."""
    return JobNotFoundError(f"there is no job {job_id!r}: it was never opened, or is long past its retention")


def submitted_late(state: JobState) -> ModelServingError:
    """The error of a complete submission under an id that has messages already."""
    return JobConflictError(
        f"job {state.job_id!r} receives separate messages: it was opened with `open`, not with `submit`"
    )


def dispatched(state: JobState, now_ms: int) -> JobState:
    """The job with chunks of every message that follows without a gap on those already cut."""
    if state.ended or state.opened_with is None or state.barrier is not None:
        return state
    until = arrived_until(state)
    if until == state.next_seq:
        return state
    arrived = state.messages[state.next_seq : until]
    cut = chunks_of(arrived, state.chunk_rows, state.next_seq, state.rows_dispatched)
    state = replace(state, next_seq=until)
    if not len(cut):
        return state
    return replace(
        state,
        chunks=read_only(np.concatenate((state.chunks, cut))),
        phase="running",
        started_at=state.started_at or now_ms,
    )


def retry_started(state: JobState) -> tuple[JobState, list[int]]:
    """The job running again, and the chunks that are sent again: those with failed rows."""
    places = np.flatnonzero(state.chunks["failed"] > 0)
    chunks = state.chunks.copy()
    attempt = state.attempt + 1
    chunks["attempt"][places] = attempt
    chunks["done"][places] = False
    return replace(
        state,
        phase="running",
        chunks=read_only(chunks),
        chunks_done=state.chunks_done - len(places),
        failed=0,
        attempt=attempt,
        retry_wanted=False,
        finished_at=None,
    ), places.tolist()


def _placed(messages: Records, seq: int, record: tuple[int, int, int]) -> Records:
    placed: Records = np.zeros(max(len(messages), seq + 1), MESSAGE)
    placed["offset"][len(messages) :] = -1
    placed[: len(messages)] = messages
    placed[seq] = record
    read_only(placed)
    return placed


def _chunk_rows(message: OpenJob, pinned: PinnedModel, limits: Limits) -> int:
    """Rows per chunk: the requested number, within the limits and such that results fit into a record."""
    asked = min(message.chunk_rows or limits.job_chunk_rows, limits.job_chunk_rows_max)
    if pinned.values_per_row is None:
        return asked
    row_bytes = codec_named(message.encoding).number_bytes_max * pinned.values_per_row + _ROW_BYTES
    return max(1, min(asked, limits.result_bytes_max * 9 // 10 // row_bytes))


def _check_rows(have: int, more: int, terms: Terms) -> None:
    if have + more > terms.limits.job_rows_max:
        raise TooLargeError(f"{have + more} rows, and {terms.limits.job_rows_max} are allowed in one job")
    if terms.in_use.rows + more > terms.limits.jobs_rows_max:
        raise QuotaExceededError(
            f"{terms.in_use.rows + more} rows in jobs that have not ended, and {terms.limits.jobs_rows_max} are allowed"
        )


def _check_bytes(more: int, terms: Terms) -> None:
    if terms.in_use.n_bytes + more > terms.limits.jobs_bytes_max:
        raise QuotaExceededError(
            f"{terms.in_use.n_bytes + more} bytes in jobs that have not ended, and {terms.limits.jobs_bytes_max} are "
            "allowed"
        )


def _check_chunks(count: int, limits: Limits) -> None:
    if count > limits.job_chunks_max:
        raise TooLargeError(f"{count} chunks, and {limits.job_chunks_max} are allowed: send more rows in each message")

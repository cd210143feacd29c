"""The transitions of jobs, step by step: the response to each message, and the published records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import (
    ChunkConflictError,
    InvalidValueError,
    JobClosedError,
    JobConflictError,
    JobExpiredError,
    JobNotFoundError,
    ModelNotFoundError,
    QuotaExceededError,
)
from inferd.schemas.jobs.codec import decode_job_message, encode_rows
from inferd.schemas.jobs.job import (
    BarrierResult,
    CancelJob,
    ChunkOutcome,
    CloseJob,
    JobRows,
    OpenJob,
    RetryJob,
    SubmitJob,
)
from inferd.schemas.limits import Limits
from inferd.schemas.requests.request import ModelReference
from inferd.streams.jobs.state.codec import decode_state, encode_state
from inferd.streams.jobs.state.report import status_of
from inferd.streams.jobs.state.state import JobState, Usage, usage_of
from inferd.streams.jobs.state.step import PinnedModel, Step, Terms
from inferd.streams.jobs.state.transitions import (
    advance,
    count,
    tick,
    wakes_at,
)

DIGEST = "d" * 64
LIMITS = Limits(job_chunk_rows=2, job_retention_s=100.0, job_open_max_s=10.0, job_deadline_grace_s=1.0)
OPEN = OpenJob(ModelReference("m"), labels={"team": "ops"})


def pin(reference: ModelReference, outputs: Any, job_id: str) -> PinnedModel:
    if reference.name != "m":
        raise ModelNotFoundError(f"there is no model {reference.name!r}")
    return PinnedModel("m", 3, DIGEST, 1)


TERMS = Terms(LIMITS, partition=1, partitions=2, pin=pin, epoch=255)


def rows(seq: int, *values: float) -> JobRows:
    message = decode_job_message(encode_rows(seq, [[value] for value in values]), MSGPACK, LIMITS)
    assert isinstance(message, JobRows)
    return message


class Job:
    """A job whose states are all encoded and decoded, at increasing offsets."""

    def __init__(self, terms: Terms = TERMS, now_ms: int = 1_000) -> None:
        self.state: JobState | None = None
        self.terms, self.now_ms, self.at = terms, now_ms, 0

    def _saved(self, step: Step) -> Step:
        self.state = None if step.state is None else decode_state(encode_state(step.state))
        return step

    def take(self, message: Any) -> Step:
        self.at += 1
        return self._saved(advance(self.state, "j", message, self.at, self.now_ms, self.terms))

    def score(self, chunk: Any, *failed: bool) -> Step:
        self.at += 1
        outcome = ChunkOutcome(
            "j", chunk.chunk, chunk.first_row, chunk.attempt, chunk.digest, chunk.row_count, sum(failed)
        )
        return self._saved(count(self.state, outcome, self.at, self.now_ms))

    def answer(self, barrier: str, partition: int) -> Step:
        self.at += 1
        return self._saved(count(self.state, BarrierResult("j", barrier, partition), self.at, self.now_ms))

    def tick(self, later_ms: int = 0) -> Step:
        self.now_ms += later_ms
        assert self.state is not None
        return self._saved(tick(self.state, self.now_ms, self.terms))


def completed(*failed: bool) -> Job:
    """A job of one chunk of two rows, announced."""
    job = Job()
    (chunk,) = job.take(SubmitJob(OPEN, rows(0, 1.0, 2.0).batch)).chunks
    assert job.score(chunk, *failed).due
    job.tick()
    return job


def test_a_job_from_open_to_completed() -> None:
    job = Job()
    opened = job.take(OPEN)
    assert opened.status is not None
    assert (opened.status.status, opened.status.model_id, opened.status.version) == ("queued", "m", 3)
    first = job.take(rows(0, 1.0, 2.0, 3.0))
    assert first.status is not None
    assert first.status.status == "running"
    assert [(c.chunk, c.first_row, c.row_count, c.partition) for c in first.chunks] == [(0, 0, 2, 1), (1, 2, 1, 1)]
    assert msgspec.msgpack.decode(first.chunks[0].rows or b"") == [[1.0], [2.0]]
    assert job.take(CloseJob(1)).status is None, "no progress, and a status was published recently"
    job.score(first.chunks[1])
    last = job.score(first.chunks[0])
    assert (last.status, last.due) == (None, True)
    announced = job.tick()
    assert announced.status is not None
    assert announced.status.ended
    assert (announced.status.input_count, announced.status.succeeded, announced.status.chunks_done) == (3, 3, 2)
    assert announced.status.labels == {"team": "ops"}
    assert not job.tick().changed


def test_messages_in_any_order_are_dispatched_once_all_earlier_ones_arrived() -> None:
    job = Job()
    assert not job.take(rows(1, 3.0)).chunks
    assert not job.take(CloseJob(2)).chunks
    assert job.take(OPEN).chunks == ()
    dispatched = job.take(rows(0, 1.0, 2.0)).chunks
    assert [(chunk.first_row, chunk.row_count) for chunk in dispatched] == [(0, 2), (2, 1)]
    assert dispatched[0].rows is not None
    assert dispatched[0].source is None
    assert dispatched[1].rows is None
    assert dispatched[1].source is not None
    assert (dispatched[1].source.offset, dispatched[1].source.start, dispatched[1].source.stop) == (1, 0, 1)


def test_rows_that_are_too_large_to_copy_are_referenced() -> None:
    job = Job(replace(TERMS, limits=replace(LIMITS, job_chunk_bytes_max=10)))
    (chunk,) = job.take(SubmitJob(OPEN, rows(0, 1.0, 2.0).batch)).chunks
    assert chunk.rows is None
    assert chunk.source is not None


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([CancelJob()], JobNotFoundError),
        ([RetryJob()], JobNotFoundError),
        ([OPEN, OpenJob(ModelReference("m", 3))], JobConflictError),
        ([OPEN, SubmitJob(OPEN, rows(0, 1.0).batch)], JobConflictError),
        ([rows(0, 1.0), SubmitJob(OPEN, rows(0, 1.0).batch)], JobConflictError),
        ([SubmitJob(OPEN, rows(0, 1.0).batch), SubmitJob(OPEN, rows(0, 2.0).batch)], JobConflictError),
        ([OPEN, rows(0, 1.0), rows(0, 2.0)], ChunkConflictError),
        ([OPEN, CloseJob(1), rows(1, 1.0)], InvalidValueError),
        ([OPEN, CloseJob(1), CloseJob(2)], InvalidValueError),
        ([OPEN, rows(4, 1.0), CloseJob(2)], InvalidValueError),
        ([OPEN, rows(0, 1.0), CancelJob(), rows(1, 1.0)], JobClosedError),
        ([OPEN, CancelJob(), CloseJob(3)], JobClosedError),
        ([OPEN, CancelJob(), RetryJob()], JobClosedError),
        ([OpenJob(ModelReference("other")), rows(0, 1.0)], JobClosedError),
        ([SubmitJob(OPEN, rows(0).batch), CancelJob()], JobClosedError),
    ],
)
def test_rejected_messages_change_nothing(messages: list[Any], error: type[Exception]) -> None:
    job = Job()
    for message in messages[:-1]:
        assert job.take(message).rejection is None
    step = job.take(messages[-1])
    assert isinstance(step.rejection, error)
    assert (step.changed, step.chunks, step.barrier, step.status) == (False, (), None, None)


@pytest.mark.parametrize(
    "messages", [[OPEN, OPEN], [OPEN, rows(0, 1.0), rows(0, 1.0)], [OPEN, CloseJob(2), CloseJob(2)],
                 [OPEN, CancelJob(), CancelJob()], [OPEN, rows(0, 1.0), CancelJob(), CancelJob()],
                 [SubmitJob(OPEN, rows(0, 1.0).batch)] * 2],
)  # fmt: skip
def test_a_repeat_has_no_effect(messages: list[Any]) -> None:
    job = Job()
    for message in messages[:-1]:
        job.take(message)
    state = job.state
    step = job.take(messages[-1])
    assert (step.changed, step.rejection, step.chunks, step.barrier, step.status) == (False, None, (), None, None)
    assert state is not None
    assert job.state is not None
    assert encode_state(job.state) == encode_state(state)


def test_a_repeat_has_no_effect_after_the_end() -> None:
    job = completed(False)
    assert job.take(SubmitJob(OPEN, rows(0, 1.0, 2.0).batch)).rejection is None
    assert isinstance(job.take(rows(1, 1.0)).rejection, JobClosedError)


def test_a_model_that_cannot_be_pinned_fails_the_job() -> None:
    job = Job()
    step = job.take(OpenJob(ModelReference("other")))
    assert (step.status, step.rejection, step.due) == (None, None, True)
    status = job.tick().status
    assert status is not None
    assert status.status == "failed"
    assert status.error == msgspec.convert({"code": "model_not_found", "message": "there is no model 'other'"},
                                           type(status.error))  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "in_use", "code"),
    [
        ({"jobs_open_max": 5}, Usage(5, 0, 0), "quota_exceeded"),
        ({"jobs_rows_max": 10}, Usage(1, 9, 0), "quota_exceeded"),
        ({"jobs_bytes_max": 10}, Usage(1, 0, 9), "quota_exceeded"),
        ({"job_rows_max": 1}, Usage(), "too_large"),
        ({"job_chunks_max": 1, "job_chunk_rows": 1}, Usage(), "too_large"),
    ],
)
def test_a_job_over_a_quota_fails(limits: dict[str, Any], in_use: Usage, code: str) -> None:
    job = Job(replace(TERMS, limits=replace(LIMITS, **limits), in_use=in_use))
    job.take(SubmitJob(OPEN, rows(0, 1.0, 2.0).batch))
    status = job.tick().status
    assert status is not None
    assert (status.status, getattr(status.error, "code", None)) == ("failed", code)
    assert usage_of(job.state) == Usage()


def test_rows_of_a_job_beyond_the_quota_are_rejected() -> None:
    step = Job(replace(TERMS, in_use=Usage(LIMITS.jobs_open_max))).take(rows(0, 1.0))
    assert isinstance(step.rejection, QuotaExceededError)
    assert step.state is None


def test_a_wrong_announced_number_of_rows_fails_the_job() -> None:
    job = Job()
    job.take(msgspec.structs.replace(OPEN, row_count=3))
    assert job.take(rows(0, 1.0, 2.0)).chunks
    assert job.take(CloseJob(1)).due
    assert job.state is not None
    assert status_of(job.state).status == "failed"


def test_a_cancel_waits_for_every_partition() -> None:
    job = Job()
    job.take(OPEN)
    (chunk,) = job.take(rows(0, 1.0, 2.0)).chunks
    barrier = job.take(CancelJob()).barrier
    assert barrier is not None
    assert barrier.partition == 1
    assert not job.answer("another", 0).changed
    job.answer(barrier.barrier, 0)
    assert not job.answer(barrier.barrier, 0).changed
    assert job.score(chunk, True).changed, "results from before the barrier count"
    assert job.answer(barrier.barrier, 1).due
    status = job.tick().status
    assert status is not None
    assert (status.status, status.succeeded, status.failed) == ("cancelled", 1, 1)
    assert not job.score(chunk).changed


def test_a_cancel_of_a_job_with_nothing_dispatched_is_immediate() -> None:
    job = Job()
    job.take(OPEN)
    step = job.take(CancelJob())
    assert (step.barrier, step.due) == (None, True)


def test_another_epoch_names_another_barrier() -> None:
    job = Job()
    job.take(SubmitJob(OPEN, rows(0, 1.0).batch))
    names = set()
    for epoch in (1, 2):
        barrier = advance(job.state, "j", CancelJob(), 9, 0, replace(TERMS, epoch=epoch)).barrier
        assert barrier is not None
        names.add(barrier.barrier)
    assert len(names) == 2


def test_a_retry_dispatches_failed_rows_again() -> None:
    job = Job()
    chunks = job.take(SubmitJob(OPEN, rows(0, 1.0, 2.0, 3.0, 4.0).batch)).chunks
    job.score(chunks[0], True)
    job.score(chunks[1])
    assert job.take(RetryJob()).due, "a retry may be requested before the terminal status is published"
    first = job.tick()
    assert first.status is not None
    assert first.status.status == "completed_with_errors"
    assert first.due
    started = job.tick()
    (again,) = started.chunks
    assert (again.chunk, again.attempt, again.previous, again.rows) == (0, 1, 2, None)
    assert again.source is not None
    assert started.status is not None
    assert (started.status.status, started.status.attempt) == ("running", 1)
    assert (started.status.processed, started.status.failed) == (3, 0)
    assert not job.score(chunks[0]).changed, "an older attempt"
    job.score(again)
    last = job.tick().status
    assert last is not None
    assert (last.status, last.succeeded, last.attempt) == ("completed", 4, 1)
    assert isinstance(job.take(RetryJob()).rejection, JobClosedError)


def test_a_waiting_retry_does_not_change_the_published_end() -> None:
    job = Job()
    (chunk,) = job.take(SubmitJob(OPEN, rows(0, 1.0).batch)).chunks
    job.score(chunk, True)
    assert job.state is not None
    published = tick(job.state, job.now_ms, TERMS).status
    job.now_ms += 500
    job.take(RetryJob())
    assert job.tick().status == published


def test_retries_have_a_limit() -> None:
    job = Job(replace(TERMS, limits=replace(LIMITS, job_attempts_max=0)))
    (chunk,) = job.take(SubmitJob(OPEN, rows(0, 1.0).batch)).chunks
    job.score(chunk, True)
    assert isinstance(job.take(RetryJob()).rejection, QuotaExceededError)


def test_progress_is_published_once_a_second() -> None:
    job = Job()
    chunks = job.take(SubmitJob(OPEN, rows(0, *map(float, range(10))).batch)).chunks
    assert job.score(chunks[0]).status is None
    assert job.state is not None
    assert wakes_at(job.state, LIMITS) == 2_000
    assert job.tick(500).status is None
    shown = job.tick(500).status
    assert shown is not None
    assert shown.processed == 2
    job.now_ms += 1_000
    assert job.score(chunks[1]).status is not None


def test_missing_rows_at_the_deadline_are_named() -> None:
    job = Job()
    job.take(msgspec.structs.replace(OPEN, deadline_ms=5_000))
    (chunk,) = job.take(rows(0, 1.0)).chunks
    job.take(rows(3, 1.0))
    job.take(CloseJob(6))
    assert not job.tick(4_001).due, "a chunk is in flight"
    job.score(chunk)
    assert job.tick().due
    status = job.tick().status
    assert status is not None
    assert status.status == "incomplete"
    assert msgspec.to_builtins(status.missing) == {"messages": [(1, 2), (4, 5)]}


def test_chunks_in_flight_have_a_grace_after_the_deadline() -> None:
    job = Job()
    job.take(SubmitJob(msgspec.structs.replace(OPEN, deadline_ms=5_000), rows(0, 1.0, 2.0, 3.0).batch))
    assert not job.tick(5_000).due
    assert job.tick(1).due
    status = job.tick().status
    assert status is not None
    assert msgspec.to_builtins(status.missing) == {"chunks": [(0, 1)]}


@pytest.mark.parametrize("messages", [[], [rows(0, 1.0)]])
def test_a_job_that_is_never_closed_or_opened_ends(messages: list[Any]) -> None:
    job = Job()
    for message in messages or [OPEN]:
        job.take(message)
    job.tick(10_001)
    status = job.tick().status
    assert status is not None
    assert status.status == "incomplete"
    missing = msgspec.to_builtins(status.missing)
    assert missing["close"]
    assert missing.get("open", False) == bool(messages)


def test_a_job_expires_and_is_removed() -> None:
    job = completed(True, False)
    assert job.tick(99_999).status is None
    assert job.tick(1).due
    status = job.tick().status
    assert status is not None
    assert (status.status, status.input_count, status.failed, status.chunks_done) == ("expired", 2, 1, 1)
    assert isinstance(job.take(RetryJob()).rejection, JobExpiredError)
    assert isinstance(job.take(rows(0, 1.0, 2.0)).rejection, JobExpiredError)
    forgotten = job.tick(100_000)
    assert (forgotten.state, forgotten.changed) == (None, True)


def test_results_of_another_version_or_other_rows_do_not_count() -> None:
    job = Job()
    (chunk,) = job.take(SubmitJob(OPEN, rows(0, 1.0, 2.0).batch)).chunks
    for other in ({"digest": "e" * 64}, {"first_row": 1}, {"row_count": 1}, {"chunk": 7}, {"attempt": 1}):
        assert not job.score(msgspec.structs.replace(chunk, **other)).changed
    assert job.score(chunk).changed


def test_chunks_are_as_small_as_their_results_must_be() -> None:
    wide = replace(TERMS, pin=lambda *_: PinnedModel("m", 3, DIGEST, 50_000), limits=Limits())
    job = Job(wide)
    job.take(OPEN)
    assert job.state is not None
    assert job.state.chunk_rows * 50_000 * 9 <= wide.limits.result_bytes_max

"""One batch job in this process: the state machine of jobs on Kafka, applied to a list of rows instead of topics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import JobExpiredError, ModelServingError
from inferd.schemas.jobs import (
    BarrierResult,
    CancelJob,
    Chunk,
    ChunkOutcome,
    OpenJob,
    RetryJob,
    RowBatch,
    SubmitJob,
)
from inferd.schemas.limits import Limits
from inferd.schemas.requests import ModelReference, Output
from inferd.streams.inference import PinnedModelId
from inferd.streams.jobs.state import (
    JobState,
    PinnedModel,
    Step,
    Terms,
    Usage,
    advance,
    count,
    expire,
    status_of,
    tick,
)
from inferd.streams.serving.row_outcomes import row_outcomes

Now = Callable[[], int]
"""Unix milliseconds."""
ProcessBatch = Callable[[str, Sequence[Any]], Any]


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The rows of a job and the version that scores them."""

    model_id: PinnedModelId
    rows: Sequence[Any]
    opening: OpenJob | None = None
    """The `open` message, if the job was submitted by messages."""
    digest: int = 0
    """Digest of the rows, if they were submitted in a message."""


class LocalJob:
    """A job and its rows. Thread-safe; one thread runs it."""

    def __init__(self, job_id: str, spec: JobSpec, limits: Limits, in_use: Usage, now: Now) -> None:
        """Raises `TooLargeError` or `QuotaExceededError` if the job exceeds a limit."""
        model_id, rows = spec.model_id, spec.rows
        self.job_id, self.ended = job_id, threading.Event()
        self._model_id, self._rows, self._now = model_id, rows, now
        self._outcomes: list[Any] = [None] * len(rows)
        self._lock = threading.Lock()
        self._state: JobState
        self._offset = 0
        self._started = False
        self._terms = Terms(limits, 0, 1, self._pin, 0, in_use)
        opening = spec.opening or OpenJob(ModelReference.parse(str(model_id)))
        message = SubmitJob(opening, _counted(len(rows), spec.digest))
        self._apply(step := advance(None, job_id, message, self._offset, now(), self._terms))
        self._chunks = step.chunks
        if self._state.error is not None:
            raise self._state.error.error()

    @property
    def row_count(self) -> int:
        """Rows in memory."""
        return len(self._rows)

    @property
    def opened_with(self) -> int | None:
        """Hash of the `open` message."""
        return self._state.opened_with

    def status(self) -> dict[str, Any]:
        """The job's status, with the fields of the wire; times are Unix milliseconds."""
        with self._lock:
            status: dict[str, Any] = msgspec.to_builtins(status_of(self._state))
            if not self._started and not self._state.ended:
                status |= {"status": "queued", "started_at": None}
        return status

    def run(self, process_batch: ProcessBatch) -> None:
        """Score chunk after chunk until all are done or the job is cancelled."""
        self._started = True
        for chunk in self._chunks:
            if self.ended.is_set():
                return
            rows = self._rows_of(chunk)
            outcomes = row_outcomes(lambda part: process_batch(self._model_id, part), [self._rows[row] for row in rows])
            self._count(chunk, rows, outcomes)

    def cancel(self) -> None:
        """Cancel the job; the chunk in progress is discarded. `JobClosedError` or `JobExpiredError` if it has ended."""
        with self._lock:
            step = advance(self._state, self.job_id, CancelJob(), self._next_offset(), self._now(), self._terms)
            self._apply(step)
            if step.barrier is not None:
                reply = BarrierResult(self.job_id, step.barrier.barrier, 0)
                self._apply(count(self._state, reply, self._next_offset(), self._now()))

    def retry(self) -> None:
        """Queue the failed rows for scoring again. `JobClosedError` or `JobExpiredError` if the job has none."""
        with self._lock:
            self._mark_announced()
            step = advance(self._state, self.job_id, RetryJob(), self._next_offset(), self._now(), self._terms)
            self._apply(step)
            again = tick(self._state, self._now(), self._terms)
            self._chunks, self._started = again.chunks, False
            self._apply(again)

    def expire(self) -> None:
        """Drop rows and results; the status stays."""
        with self._lock:
            self._state = expire(self._state, self._now())
            self._rows, self._outcomes = [], []

    def lines(self) -> Iterator[dict[str, Any]]:
        """`{"row", "prediction"}` or `{"row", "error": {"code", "message"}}` for each scored row, in order.

        `JobExpiredError` if the results were evicted.
        """
        with self._lock:
            if self._state.phase == "expired":
                raise JobExpiredError(f"job {self.job_id!r}: its results were evicted for those of later jobs")
            outcomes, scored = list(self._outcomes), self._scored()
        for row in scored:
            outcome = outcomes[row]
            if isinstance(outcome, ModelServingError):
                yield {"row": row, "error": {"code": outcome.code, "message": outcome.message}}
            else:
                yield {"row": row, "prediction": outcome}

    def _scored(self) -> list[int]:
        chunks = self._state.chunks[self._state.chunks["result"] >= 0]
        spans = zip(chunks["first_row"].tolist(), chunks["rows"].tolist(), strict=True)
        return [row for first, count in spans for row in range(first, first + count)]

    def _rows_of(self, chunk: Chunk) -> list[int]:
        """The rows of a chunk that are to be scored: for a retry only the failed ones."""
        rows = range(chunk.first_row, chunk.first_row + chunk.row_count)
        if chunk.previous is None:
            return list(rows)
        return [row for row in rows if isinstance(self._outcomes[row], ModelServingError)]

    def _count(self, chunk: Chunk, rows: Sequence[int], outcomes: Sequence[Any]) -> None:
        with self._lock:
            if self._state.ended:
                return
            for row, outcome in zip(rows, outcomes, strict=True):
                self._outcomes[row] = outcome
            failed = sum(isinstance(outcome, ModelServingError) for outcome in outcomes)
            counted = ChunkOutcome(
                self.job_id, chunk.chunk, chunk.first_row, chunk.attempt, chunk.digest, chunk.row_count, failed
            )
            self._apply(count(self._state, counted, self._next_offset(), self._now()))

    def _mark_announced(self) -> None:
        """Mark the terminal status as published: a retry requires that, and here nothing is published."""
        if self._state.ended and not self._state.announced:
            self._state = replace(self._state, announced=True)

    def _apply(self, step: Step) -> None:
        if step.rejection is not None:
            raise step.rejection
        assert step.state is not None
        self._state = step.state
        if self._state.ended and not self._state.retry_wanted:
            self.ended.set()
        else:
            self.ended.clear()

    def _next_offset(self) -> int:
        self._offset += 1
        return self._offset

    def _pin(self, _reference: ModelReference, _outputs: tuple[Output, ...], _job_id: str) -> PinnedModel:
        manifest = self._model_id.model.manifest
        return PinnedModel(manifest.model_id, manifest.version, manifest.sha256)


def _counted(rows: int, digest: int) -> RowBatch:
    """A batch with a row count and digest but without the rows themselves."""
    return RowBatch(MSGPACK, rows, digest, 0, b"", stride=1)

"""One batch job in this process: the arithmetic of jobs on Kafka, with a list of rows in place of its topics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

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
class JobOrder:
    """What is to be scored, and by which version."""

    model_id: PinnedModelId
    rows: Sequence[Any]
    opening: OpenJob | None = None
    """What the job was opened with, where that came as a message."""
    digest: int = 0
    """Of the rows, where they came as a message."""


class LocalJob:
    """A job and its rows; any thread may ask, and one runs it."""

    def __init__(self, job_id: str, order: JobOrder, limits: Limits, in_use: Usage, now: Now) -> None:
        """Raises `TooLargeError`, `QuotaExceededError` where it may not be opened."""
        model_id, rows = order.model_id, order.rows
        self.job_id, self.ended = job_id, threading.Event()
        self._model_id, self._rows, self._now = model_id, rows, now
        self._outcomes: list[Any] = [None] * len(rows)
        self._lock = threading.Lock()
        self._state: JobState
        self._at = 0
        self._begun = False
        self._terms = Terms(limits, 0, 1, self._pin, 0, in_use)
        opening = order.opening or OpenJob(ModelReference.parse(str(model_id)))
        message = SubmitJob(opening, _counted(len(rows), order.digest))
        self._take(step := advance(None, job_id, message, self._at, now(), self._terms))
        self._chunks = step.chunks
        if self._state.error is not None:
            raise self._state.error.error()

    @property
    def row_count(self) -> int:
        """How many rows are held."""
        return len(self._rows)

    @property
    def opened_with(self) -> int | None:
        """Hash of the message that opened it."""
        return self._state.opened_with

    def status(self) -> dict[str, Any]:
        """The job's status, with the fields of the wire; times are Unix milliseconds."""
        with self._lock:
            status: dict[str, Any] = msgspec.to_builtins(status_of(self._state))
            if not self._begun and not self._state.ended:
                status |= {"status": "queued", "started_at": None}
        return status

    def run(self, process_batch: ProcessBatch) -> None:
        """Scores chunk after chunk, until all are done or the job is cancelled."""
        self._begun = True
        for chunk in self._chunks:
            if self.ended.is_set():
                return
            rows = self._rows_of(chunk)
            outcomes = row_outcomes(
                lambda part: process_batch(self._model_id, part), [self._rows[place] for place in rows]
            )
            self._count(chunk, rows, outcomes)

    def cancel(self) -> None:
        """Ends the job: what is being scored counts no more. `JobClosedError`, `JobExpiredError` where it has ended."""
        with self._lock:
            step = advance(self._state, self.job_id, CancelJob(), self._next_at(), self._now(), self._terms)
            self._take(step)
            if step.barrier is not None:
                answer = BarrierResult(self.job_id, step.barrier.barrier, 0)
                self._take(count(self._state, answer, self._next_at(), self._now()))

    def retry(self) -> None:
        """Makes the rows that failed wait to be scored again. `JobClosedError`, `JobExpiredError` where none can be."""
        with self._lock:
            self._announce()
            step = advance(self._state, self.job_id, RetryJob(), self._next_at(), self._now(), self._terms)
            self._take(step)
            again = tick(self._state, self._now(), self._terms)
            self._chunks, self._begun = again.chunks, False
            self._take(again)

    def expire(self) -> None:
        """Drops rows and results: only the figures are left."""
        with self._lock:
            self._state = expire(self._state, self._now())
            self._rows, self._outcomes = [], []

    def lines(self) -> Iterator[dict[str, Any]]:
        """For each row that was scored `{"row", "prediction"}`, or `{"row", "error": {"code", "message"}}`, in order.

        `JobExpiredError` where the results are gone.
        """
        with self._lock:
            if self._state.phase == "expired":
                raise JobExpiredError(f"job {self.job_id!r}: its results made room for those of later jobs")
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
        """The rows that a chunk asks for: of a retry those alone that failed."""
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
            self._take(count(self._state, counted, self._next_at(), self._now()))

    def _announce(self) -> None:
        """Lets a job that has ended know that everybody has been told, which is what a retry waits for."""
        if self._state.ended and not self._state.announced:
            self._state = replace(self._state, announced=True)

    def _take(self, step: Step) -> None:
        if step.refusal is not None:
            raise step.refusal
        assert step.state is not None
        self._state = step.state
        if self._state.ended and not self._state.retry_wanted:
            self.ended.set()
        else:
            self.ended.clear()

    def _next_at(self) -> int:
        self._at += 1
        return self._at

    def _pin(self, _reference: ModelReference, _outputs: tuple[Output, ...], _job_id: str) -> PinnedModel:
        manifest = self._model_id.model.manifest
        return PinnedModel(manifest.model_id, manifest.version, manifest.sha256)


def _counted(rows: int, digest: int) -> RowBatch:
    """A message of so many rows, which are kept elsewhere."""
    return RowBatch("msgpack", rows, digest, 0, b"", stride=1)

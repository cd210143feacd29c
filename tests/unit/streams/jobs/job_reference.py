"""A reference model of jobs, as simple as possible: a dict of rows, and rules that are applied in order.

`expected` runs over the inputs that were committed (not undone by a crash), in order. It has no chunks, offsets or
columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inferd.schemas.errors import InferenceError
from inferd.schemas.jobs.job import (
    CancelJob,
    CloseJob,
    JobRows,
    OpenJob,
    RetryJob,
    SubmitJob,
)

TERMINAL = ("completed", "completed_with_errors", "failed", "cancelled", "incomplete", "expired")


@dataclass(frozen=True)
class Scored:
    """A result for these rows, all of one chunk: by (seq, place), True for failed rows."""

    chunk: int
    first: tuple[int, int]
    """The chunk's first row, scored now or before."""
    size: int
    """Rows of the chunk."""
    attempt: int
    digest: str
    rows: dict[tuple[int, int], bool]


@dataclass(frozen=True)
class Answered:
    """The barrier returned from a partition."""

    partition: int
    barrier: str


@dataclass(frozen=True)
class Passed:
    """A timer event."""

    now_ms: int


@dataclass(frozen=True)
class Rules:
    """The limits and the context of a history."""

    rows_max: int
    open_max_ms: int
    grace_ms: int
    retention_ms: int
    partitions: int
    attempts_max: int


@dataclass
class Job:
    """A job under construction; `rows[seq, i]` is None while undecided, then whether the row failed."""

    created_at: int
    status: str = "queued"
    announced: bool = True
    opening: Any = None
    digest: str = ""
    cut: int = 1
    """Rows of a chunk."""
    row_count: int | None = None
    deadline: int | None = None
    messages: dict[int, int] = field(default_factory=dict)
    """seq -> hash of its content."""
    rows: dict[tuple[int, int], bool | None] = field(default_factory=dict)
    pending: set[tuple[int, int]] = field(default_factory=set)
    message_count: int | None = None
    attempt: int = 0
    retry: bool = False
    barrier: str | None = None
    answered: set[int] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        if self.opening is None or self.message_count is None:
            return False
        return all(seq in self.messages for seq in range(self.message_count))

    @property
    def sent(self) -> set[int]:
        """Messages that scorers have got: those without a gap before them."""
        seq = 0
        while seq in self.messages:
            seq += 1
        return set(range(seq)) if self.opening is not None else set()

    def end(self, status: str) -> None:
        self.status, self.announced = status, False
        self.retry = self.retry and status == "completed_with_errors"

    def figures(self) -> dict[str, int]:
        decided = [failed for place, failed in self.rows.items() if place not in self.pending]
        return {
            "input_count": len(self.rows),
            "succeeded": decided.count(False),
            "failed": decided.count(True),
        }


def expected(inputs: list[tuple[Any, ...]], rules: Rules) -> Job | None:
    """The job after all of `inputs`: (input, time, and for an opening message the digest or error of pinning its
    model)."""
    job: Job | None = None
    for what, now_ms, *pinned in inputs:
        match what:
            case Passed():
                job = _pass(job, now_ms, rules)
            case Scored():
                _score(job, what)
            case Answered():
                _answer(job, what, rules)
            case _:
                job = _take(job, what, now_ms, pinned, rules)
        if job is not None:
            _settle(job, rules)
    return job


def _take(job: Job | None, message: Any, now_ms: int, pinned: list[Any], rules: Rules) -> Job | None:  # noqa: C901
    if isinstance(message, CancelJob | RetryJob) and job is None:
        return None
    job = job or Job(now_ms)
    open_ = job.status not in TERMINAL and job.barrier is None
    match message:
        case OpenJob() if job.opening is None and open_:
            _open(job, message, message, pinned, rules)
        case SubmitJob() if job.opening is None and open_ and not job.messages and job.message_count is None:
            _open(job, message.open, message, pinned, rules)
            if job.status not in TERMINAL:
                _rows(job, 0, message.batch, rules)
                job.message_count = 1
        case JobRows() if open_ and message.seq not in job.messages:
            if job.message_count is None or message.seq < job.message_count:
                _rows(job, message.seq, message.batch, rules)
        case CloseJob() if open_ and job.message_count is None:
            if all(seq < message.message_count for seq in job.messages):
                job.message_count = message.message_count
        case CancelJob() if open_:
            job.barrier = pinned[0]
            if not any(place[0] in job.sent for place in job.rows):
                job.end("cancelled")
        case RetryJob() if (open_ or job.status == "completed_with_errors") and job.attempt < rules.attempts_max:
            job.retry = True
        case _:
            pass
    return job


def _open(job: Job, message: OpenJob, opening: Any, pinned: list[Any], rules: Rules) -> None:
    job.opening, job.row_count, job.deadline = opening, message.row_count, message.deadline_ms
    (pin,) = pinned
    if isinstance(pin, InferenceError) or (message.row_count or 0) > rules.rows_max:
        job.end("failed")
    else:
        job.digest, job.cut = pin


def _rows(job: Job, seq: int, batch: Any, rules: Rules) -> None:
    if len(job.rows) + batch.count > rules.rows_max:
        job.end("failed")
        return
    job.messages[seq] = batch.digest
    for row in range(batch.count):
        job.rows[seq, row] = None
        job.pending.add((seq, row))


def _score(job: Job | None, scored: Scored) -> None:
    if job is None or job.status in TERMINAL or (scored.attempt, scored.digest) != (job.attempt, job.digest):
        return
    if not _is_chunk(job, scored):
        return
    if all(place in job.pending for place in scored.rows):
        job.rows.update(scored.rows)
        job.pending -= scored.rows.keys()


def _is_chunk(job: Job, scored: Scored) -> bool:
    """Whether the rows are the chunk with that number: an earlier read may have split rows differently."""
    chunks = []
    for seq in sorted(job.sent):
        size = sum(1 for place in job.rows if place[0] == seq)
        chunks += [((seq, start), min(job.cut, size - start)) for start in range(0, size, job.cut)]
    return scored.chunk < len(chunks) and chunks[scored.chunk] == (scored.first, scored.size)


def _answer(job: Job | None, answered: Answered, rules: Rules) -> None:
    if job is not None and job.status not in TERMINAL and answered.barrier == job.barrier:
        job.answered.add(answered.partition)
        if len(job.answered) == rules.partitions:
            job.end("cancelled")


def _settle(job: Job, rules: Rules) -> None:
    if job.status in TERMINAL or job.opening is None:
        return
    if job.status == "queued" and any(place[0] in job.sent for place in job.rows):
        job.status = "running"
    if job.barrier is not None:
        return
    if job.row_count is not None and (
        len(job.rows) > job.row_count or (job.complete and len(job.rows) < job.row_count)
    ):
        job.end("failed")
    elif job.complete and not job.pending:
        job.end("completed_with_errors" if True in job.rows.values() else "completed")


def _pass(job: Job | None, now_ms: int, rules: Rules) -> Job | None:  # noqa: C901
    """One action at a time, because the clock is read again before each."""
    if job is None:
        return None
    if job.status in TERMINAL:
        if not job.announced:
            job.announced = True
        elif now_ms >= job.created_at + 2 * rules.retention_ms:
            return None
        elif job.status != "expired" and now_ms >= job.created_at + rules.retention_ms:
            job.end("expired")
        elif job.retry:
            job.retry, job.status, job.attempt = False, "running", job.attempt + 1
            job.pending = _again(job)
        return job
    if now_ms >= job.created_at + rules.retention_ms:
        job.end("expired")
    elif not job.attempt and job.barrier is None:
        deadline = job.deadline
        if deadline is None and not job.complete:
            deadline = job.created_at + rules.open_max_ms
        on_its_way = any(place[0] in job.sent for place in job.pending)
        if deadline is not None:
            late = now_ms > deadline + rules.grace_ms
            if late or (now_ms > deadline and not on_its_way and not job.complete):
                job.end("incomplete")
    return job


def _again(job: Job) -> set[tuple[int, int]]:
    """Rows that are scored again: failed ones. (The other rows of a chunk keep their outcome, and count as decided.)"""
    return {place for place, failed in job.rows.items() if failed}

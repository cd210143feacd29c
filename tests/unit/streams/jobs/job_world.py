"""One job with its owner, scorers and a log, all of which may crash: everything is drawn from one `Random`.

The owner saves its state as bytes, and restarts from the last saved bytes; what it published before a crash remains
published. The same applies to scorers. `inputs` are those that no crash undid.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import msgspec

from inferd.schemas.codecs import JSON, MSGPACK
from inferd.schemas.errors import ModelNotFoundError
from inferd.schemas.jobs.chunk_codec import (
    decode_chunk,
    decode_chunk_result,
    decode_outcome,
    encode_barrier_result,
    encode_chunk,
    encode_chunk_result,
)
from inferd.schemas.jobs.codec import decode_job_message, encode_rows
from inferd.schemas.jobs.job import (
    TERMINAL,
    Barrier,
    BarrierResult,
    CancelJob,
    Chunk,
    ChunkOutcome,
    ChunkResult,
    JobRows,
    JobStatus,
    OpenJob,
    SubmitJob,
)
from inferd.schemas.jobs.rows import RowBatch
from inferd.schemas.jobs.status_codec import encode_status
from inferd.schemas.limits import Limits
from inferd.schemas.requests import RowError
from inferd.schemas.requests.request import ModelReference, Output
from inferd.streams.jobs.state.codec import decode_state, encode_state, state_bytes_max
from inferd.streams.jobs.state.state import JobState, usage_of
from inferd.streams.jobs.state.step import PinnedModel, Step, Terms
from inferd.streams.jobs.state.transitions import (
    advance,
    count,
    tick,
    wakes_at,
)
from tests.unit.streams.jobs.job_reference import Answered, Passed, Rules, Scored

PARTITIONS = 2
DIGESTS = ("a" * 64, "b" * 64)
ATTEMPTS_MAX = 2
LIMITS = [
    Limits(
        job_rows_max=rows_max, job_open_max_s=5.0, job_deadline_grace_s=1.0, job_retention_s=60.0,
        job_attempts_max=ATTEMPTS_MAX, job_messages_max=12, job_chunks_max=40, job_chunk_rows=2,
        job_chunk_bytes_max=chunk_bytes_max,
    )
    for rows_max in (100, 100, 100, 9) for chunk_bytes_max in (1_000, 20)
]  # fmt: skip


def batch_of(seq: int, rows: int, variant: int) -> RowBatch:
    """Rows that contain their position: [seq, place, variant]."""
    key = (seq, rows, variant)
    if key not in _BATCHES:
        value = encode_rows(seq, [[seq, place, variant] for place in range(rows)])
        message = decode_job_message(value, MSGPACK, Limits())
        assert isinstance(message, JobRows)
        _BATCHES[key] = message.batch
    return _BATCHES[key]


_BATCHES: dict[tuple[int, int, int], RowBatch] = {}


@dataclass
class Saved:
    """Where a process starts again."""

    state: bytes | None = None
    jobs: int = 0
    results: int = 0
    inputs: int = 0


@dataclass
class Scorer:
    """Reads one partition of `job-chunks`."""

    position: int = 0
    saved: int = 0


@dataclass
class World:
    """The logs, and who reads them."""

    random: Random
    codecs: bool = False
    """Whether all published records are encoded and decoded."""
    now_ms: int = 1_000
    jobs: list[Any] = field(default_factory=list)
    """Messages on `jobs`; None for offsets of other jobs."""
    results: list[Any] = field(default_factory=list)
    chunks: list[list[Chunk | Barrier]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    statuses: list[JobStatus | None] = field(default_factory=list)
    inputs: list[tuple[Any, ...]] = field(default_factory=list)
    state: JobState | None = None
    saved: Saved = field(default_factory=Saved)
    scorers: list[Scorer] = field(default_factory=lambda: [Scorer() for _ in range(PARTITIONS)])
    jobs_read: int = 0
    results_read: int = 0
    epoch: int = 0
    late_results: int = 0
    """Results published after a `cancelled` was."""
    pin_fails: bool = False
    pinned: Any = None
    spread: int = 0

    def __post_init__(self) -> None:
        self.limits = self.random.choice(LIMITS)
        self.succeeds_from: dict[tuple[int, int], int] = {}
        self.failing: float = self.random.choice([0.0, 0.0, 0.1, 0.5])

    @property
    def rules(self) -> Rules:
        return Rules(self.limits.job_rows_max, 5_000, 1_000, 60_000, PARTITIONS, ATTEMPTS_MAX)

    @property
    def terms(self) -> Terms:
        return Terms(self.limits, 0, PARTITIONS, self._pin, self.epoch, usage_of(self.state))

    def _pin(self, reference: ModelReference, outputs: tuple[Output, ...], job_id: str) -> PinnedModel:
        """Occasionally another version, as if an alias had moved between two readings of the same message."""
        if self.pin_fails:
            self.pinned = ModelNotFoundError("there is no such model")
            raise self.pinned
        self.pinned = self.random.choice(DIGESTS) if self.random.random() < 0.3 else DIGESTS[0]
        return PinnedModel(reference.name, 1 + DIGESTS.index(self.pinned), self.pinned, 1)

    # ---- the owner

    def read_jobs(self) -> bool:
        """The owner reads the next record of `jobs`."""
        if self.jobs_read >= len(self.jobs):
            return False
        at, message = self.jobs_read, self.jobs[self.jobs_read]
        self.jobs_read += 1
        if message is None:
            return True
        before, self.pinned = self.state, None
        if before is not None and at > 0 and before.applied_jobs >= at:
            raise AssertionError("positions and state are saved together")
        step = advance(before, "j", message, at, self.now_ms, self.terms)
        extra: list[Any] = [self.pinned]
        if isinstance(message, CancelJob):
            extra = [f"{at}-{self.epoch:x}"]
        elif isinstance(message, OpenJob | SubmitJob) and isinstance(self.pinned, str):
            opening = message.open if isinstance(message, SubmitJob) else message
            extra = [(self.pinned, opening.chunk_rows or self.limits.job_chunk_rows)]
        self.inputs.append((message, self.now_ms, *extra))
        assert step.rejection is None or not step.changed
        self._follow(step)
        return True

    def read_results(self) -> bool:
        """The owner reads the next record of `job-results`."""
        if self.results_read >= len(self.results):
            return False
        at, result = self.results_read, self.results[self.results_read]
        self.results_read += 1
        outcome, seen = result[0], result[1]
        self.inputs.append((seen, self.now_ms))
        self._follow(count(self.state, outcome, at, self.now_ms))
        return True

    def tick_clock(self) -> bool:
        """The owner saves its state and processes what is due; False if nothing was."""
        self.save()
        if self.state is None:
            return False
        step = tick(self.state, self.now_ms, self.terms)
        due = wakes_at(self.state, self.limits) <= self.now_ms
        assert due or not step.changed, "a tick that the owner would not have run"
        if not step.changed:
            return False
        self.inputs.append((Passed(self.now_ms), self.now_ms))
        self._follow(step)
        return True

    def save(self) -> None:
        """Records read before are not read again."""
        value = None
        if self.state is not None:
            value = encode_state(self.state)
            assert len(value) <= state_bytes_max(self.limits)
            self.state = decode_state(value)
            assert encode_state(self.state) == value
        self.saved = Saved(value, self.jobs_read, self.results_read, len(self.inputs))

    def crash(self) -> None:
        """The owner restarts from the saved state."""
        self.state = None if self.saved.state is None else decode_state(self.saved.state)
        self.jobs_read, self.results_read = self.saved.jobs, self.saved.results
        del self.inputs[self.saved.inputs :]
        self.epoch += 1
        # The next owner may have different settings.
        self.limits = replace(self.limits, job_chunk_rows=self.random.choice([2, 2, 2, 4]))
        self._replay_saved()

    def _replay_saved(self) -> None:
        """Inputs that the state already contains change nothing."""
        state = self.state
        if state is None:
            return
        for at in range(min(state.applied_jobs + 1, 2)):
            if self.jobs[at] is not None:
                step = advance(state, "j", self.jobs[at], at, self.now_ms, self.terms)
                assert step == Step(state, due=step.due)
        for at in range(min(state.applied_results + 1, 2)):
            step = count(state, self.results[at][0], at, self.now_ms)
            assert step == Step(state, due=step.due)

    def _follow(self, step: Step) -> None:
        if not step.changed:
            assert (step.chunks, step.barrier, step.status) == ((), None, None)
            return
        self.state = step.state
        for chunk in step.chunks:
            self.chunks[self.spread % PARTITIONS].append(self._sent(chunk))
            self.spread += 1
        if step.barrier is not None:
            for partition in self.chunks:
                partition.append(self._sent(step.barrier))
        if step.status is not None:
            if self.codecs:
                encode_status(step.status, JSON)
            assert step.status.processed == step.status.succeeded + step.status.failed <= step.status.input_count
            assert 0 <= step.status.chunks_done <= step.status.chunks_total
            self.statuses.append(step.status)
        if step.state is None:
            self.statuses.append(None)

    def _sent(self, work: Chunk | Barrier) -> Chunk | Barrier:
        return decode_chunk(encode_chunk(work)) if self.codecs else work

    # ---- the scorers

    def score(self, partition: int) -> bool:
        """A scorer reads the next record of its partition."""
        scorer = self.scorers[partition]
        if scorer.position >= len(self.chunks[partition]):
            return False
        work = self.chunks[partition][scorer.position]
        if isinstance(work, Barrier):
            scorer.saved = scorer.position
            answer = BarrierResult(work.job_id, work.barrier, partition)
            if self.codecs:
                answer = decode_outcome(encode_barrier_result(answer), MSGPACK)  # type: ignore[assignment]
            self.results.append((answer, Answered(partition, work.barrier)))
        else:
            self._publish(work)
        scorer.position += 1
        return True

    def save_scored(self, partition: int) -> None:
        self.scorers[partition].saved = self.scorers[partition].position

    def crash_scorer(self, partition: int) -> None:
        self.scorers[partition].position = self.scorers[partition].saved

    def _publish(self, chunk: Chunk) -> None:
        values, errors, seen = self._scored(chunk)
        outcome = ChunkOutcome(
            "j", chunk.chunk, chunk.first_row, chunk.attempt, chunk.digest, chunk.row_count, len(errors)
        )
        if self.codecs:
            rows = [RowError(chunk.first_row + place, "invalid_value", "no") for place in sorted(errors)]
            result = ChunkResult("j", chunk.chunk, chunk.first_row, chunk.attempt, 1, chunk.digest,
                                 {"prediction": values}, rows)  # fmt: skip
            encoded = encode_chunk_result(result, JSON)
            assert decode_chunk_result(encoded, JSON) == result
            assert decode_outcome(encoded, JSON) == outcome
        self.results.append((outcome, seen, values, errors))
        published = [status.status for status in self.statuses if status is not None]
        self.late_results += "cancelled" in published

    def _scored(self, chunk: Chunk) -> tuple[list[Any], set[int], Scored]:
        """A prediction that contains its row's position, or an error; failed rows succeed at a later attempt."""
        rows = self._rows(chunk)
        values: list[Any] = [None] * len(rows)
        errors: set[int] = set()
        again = range(len(rows))
        if chunk.previous is not None:
            _, _, values, errors_before = self.results[chunk.previous]
            values, again = list(values), sorted(errors_before)  # type: ignore[assignment]
        scored = {}
        for place in again:
            seq, number, variant = rows[place]
            failed = self._fails((seq, number), chunk.attempt)
            scored[seq, number] = failed
            values[place] = None if failed else [seq, number, variant, chunk.version]
            if failed:
                errors.add(place)
        first = (rows[0][0], rows[0][1])
        return values, errors, Scored(chunk.chunk, first, len(rows), chunk.attempt, chunk.digest, scored)

    def _rows(self, chunk: Chunk) -> list[list[int]]:
        if chunk.rows is not None:
            assert len(chunk.rows) <= self.limits.job_chunk_bytes_max
            rows: list[list[int]] = msgspec.msgpack.decode(chunk.rows)
        else:
            assert chunk.source is not None
            message = self.jobs[chunk.source.offset]
            rows = msgspec.msgpack.decode(message.batch.cut(chunk.source.start, chunk.source.stop))
        assert len(rows) == chunk.row_count
        return rows

    def _fails(self, row: tuple[int, int], attempt: int) -> bool:
        if row not in self.succeeds_from:
            self.succeeds_from[row] = self.random.randint(1, 4) if self.random.random() < self.failing else 0
        return attempt < self.succeeds_from[row]

    # ---- what must hold

    def settle(self) -> None:
        """Without further faults, runs all events that can happen without time passing."""
        busy = True
        while busy:
            busy = self.read_jobs() | self.read_results() | self._score_once()
            busy |= self.tick_clock()

    def _score_once(self) -> bool:
        """Every scorer reads a record."""
        scored = [self.score(partition) for partition in range(PARTITIONS)]
        return True in scored

    def terminal_statuses(self) -> dict[tuple[int, bool], set[bytes]]:
        """By attempt, and whether it expired: the different terminal statuses that were published."""
        found: dict[tuple[int, bool], set[bytes]] = {}
        for status in self.statuses:
            if status is not None and status.status in TERMINAL:
                attempt = status.attempt if isinstance(status.attempt, int) else 0
                found.setdefault((attempt, status.status == "expired"), set()).add(encode_status(status, MSGPACK))
        return found

"""The processor of `job-chunks`: any worker scores the chunks of any job, in the order of their partition."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import structlog
from aiokafka import TopicPartition

from inferd.schemas.codecs import MSGPACK, Codec, codec_named
from inferd.schemas.errors import ModelServingError
from inferd.schemas.headers import (
    ALIAS_REVISION,
    VARIANT,
    parse_headers,
    salvage_headers,
)
from inferd.schemas.jobs import Barrier, BarrierResult, Chunk, decode_chunk, encode_barrier_result
from inferd.schemas.topics import Stream, TenantTopics
from inferd.streams.inference import Record, internal_error
from inferd.streams.jobs.reader import RecordReader
from inferd.streams.jobs.scoring import (
    ChunkBatch,
    ChunkDraft,
    ChunkScorer,
    ChunkWork,
    chunk_work,
)
from inferd.streams.kafka import UNCHECKED, Destinations, Outgoing
from inferd.streams.lane import (
    PUBLISH_ERRORS,
    DeadLetters,
    Kind,
    OutputBatch,
    Work,
    describe,
    rejection_of,
    timestamps_of,
)
from inferd.streams.models.on_demand import OnDemandLoader
from inferd.streams.models.pauses import Pauses
from inferd.streams.prediction_runner import PredictionRunner
from inferd.streams.settings import StreamSettings
from inferd.streams.state import LaneTable
from inferd.streams.telemetry import CHUNK_SPAN, ChunkCounters, LaneMeasures, Tally, TenantCounters

log = structlog.get_logger(__name__)

RECORDS_MAX = 8
"""Maximum chunks of one micro-batch, over all partitions: it bounds how long requests wait."""
INLINE_MS_MAX = 2.0
"""Predictions that are expected to take longer run in a thread, concurrently with requests. A hand-over to the thread
and back takes as long while the event loop is busy."""
MODEL_WAIT_S = {"unknown": 5.0, "loading": 60.0}
"""How long chunks wait, together, for a version that this worker does not know or has not loaded yet."""

Read = Chunk | Barrier | ModelServingError
"""A decoded record of `job-chunks`, or the error that explains why it cannot be decoded."""


@dataclass(slots=True)
class _Run:
    """Consecutive records of a partition that are published in one step."""

    records: list[Record] = field(default_factory=list)
    outgoing: list[tuple[int, Outgoing]] = field(default_factory=list)
    """(partition of `job-results`, record)."""
    rejected: list[tuple[Record, ModelServingError]] = field(default_factory=list)
    barrier: bool = False


class ChunkProcessor:
    """Scores chunks and publishes their results; a `Processor`."""

    kind: Kind = "chunks"
    waits = False
    tables: Sequence[LaneTable] = ()

    def __init__(
        self,
        topics: TenantTopics,
        scorer: ChunkScorer,
        reader: RecordReader,
        settings: StreamSettings,
        measures: LaneMeasures,
        destinations: Destinations = UNCHECKED,
        clock: Callable[[], float] = time.time,
        used: Callable[[], int] | None = None,
    ) -> None:
        """`used`: how many partitions of `job-results` are used; None: those of the settings."""
        self.tenant = topics.tenant
        self.topic = topics.name("job-chunks")
        self.counters = TenantCounters(topics.tenant)
        self.scored = ChunkCounters()
        self._topics = topics
        self._scorer = scorer
        self._reader = reader
        self._used = used if used is not None else lambda: settings.topics.partitions
        self._limits = settings.limits
        self._measures = measures
        self._destinations = destinations
        self._dead_letters = DeadLetters(topics.name("dead-letters"), settings.worker_id, destinations)
        self._clock = clock
        self._runner = PredictionRunner("inferd-chunks", measures, min(INLINE_MS_MAX, settings.lane.inline_ms_max))
        self.on_demand: OnDemandLoader | None = None
        """Loads models that are not loaded; None if all are."""
        self.pauses = Pauses()
        """Models whose chunks wait."""
        self._waiting_since: dict[tuple[str, int, str], float] = {}
        """Name, number and digest of a version -> when the first chunk started to wait for it."""

    def unit(self, number: int) -> Hashable:
        return (self.topic, number)

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        """A chunk's result goes to the partition that owns its job."""
        yield TopicPartition(self._dead_letters.topic, number)
        for owner in range(self._used()):
            yield TopicPartition(self._topics.name("job-results"), owner)

    def start(self, number: int) -> int | None:
        return None

    def records_max(self) -> int:
        return RECORDS_MAX

    async def process(self, work: Work) -> Sequence[Sequence[OutputBatch]]:
        timestamps = [record.timestamp for _, records in work for record in records]
        self._measures.observe_step_since("queue", timestamps, self._clock() * 1000)
        works: list[ChunkWork] = []
        with ExitStack() as pins:
            parts = [(tp, await self._readable(records, works, pins)) for tp, records in work]
            started = time.perf_counter()
            results = iter(await self._score(works))
        steps = [self._steps(tp, part, results) for tp, part in parts]
        self._trace([(tp, [record for record, _ in part]) for tp, part in parts], steps, started)
        return steps

    def _trace(self, work: Work, steps: Sequence[Sequence[OutputBatch]], started: float) -> None:
        """Attaches finished spans to the last output batch of each partition."""
        tracing = self._measures.tracing
        if tracing is None:
            return
        parts = [(tp.partition, records) for tp, records in work]
        ended = time.perf_counter()
        spans = tracing.step_spans(CHUNK_SPAN, self.topic, parts, "process", started, ended, last="store")
        for (tp, _), outputs in zip(work, steps, strict=True):
            if outputs:
                outputs[-1].spans = spans.get(tp.partition)

    def _read(self, record: Record) -> Read:
        rejection: ModelServingError | None = getattr(record, "rejection", None)
        if rejection is not None:
            return rejection
        try:
            return decode_chunk(record.value, self._limits)
        except ModelServingError as error:
            return error

    # ------------------------------------------------------------------ scoring

    async def _readable(
        self, records: Sequence[Record], works: list[ChunkWork], pins: ExitStack
    ) -> list[tuple[Record, Read]]:  # fmt: skip
        """The leading `records` that can be processed now; adds their chunks to `works`.

        Their versions stay loaded until `pins` is closed. A chunk that waits for its version delays later records of
        its partition, but no other partition.
        """
        readable: list[tuple[Record, Read]] = []
        for record in records:
            read = self._read(record)
            if isinstance(read, Chunk):
                if self._waits(read):
                    break
                self._pin(read, pins)
                try:
                    works.append(await self._work(read))
                except PUBLISH_ERRORS as error:
                    # Its source cannot be read now; publishing would fail as well.
                    log.warning("chunk_source_unreadable", job=read.job_id, chunk=read.chunk, reason=describe(error))
                    break
            readable.append((record, read))
        return readable

    def _waits(self, chunk: Chunk) -> bool:
        """Whether a chunk still waits for its model to be resumed, or for its version."""
        if chunk.model_id in self.pauses.models:
            return True
        version = (chunk.model_id, chunk.version, chunk.digest)
        why = self._scorer.waiting_for(chunk)
        if why is None:
            self._waiting_since.pop(version, None)
            return False
        wait_s = MODEL_WAIT_S[why]
        if self.on_demand is not None and (found := self._scorer.version_of(chunk)) is not None:
            self.on_demand.waits_for(self.tenant, found)
            wait_s = max(wait_s, self.on_demand.timeout_s)
        now = time.monotonic()
        return now - self._waiting_since.setdefault(version, now) < wait_s

    def _pin(self, chunk: Chunk, pins: ExitStack) -> None:
        """Keeps the version of a chunk loaded until `pins` is closed."""
        if self.on_demand is not None and (version := self._scorer.version_of(chunk)) is not None:
            pins.enter_context(self.on_demand.pinned(self.tenant, [version]))

    async def _score(self, works: Sequence[ChunkWork]) -> list[bytes]:
        """The result of each chunk."""
        if not works:
            return []
        started = time.perf_counter()
        results = await self._results(works)
        elapsed = time.perf_counter() - started
        self._measures.observe_step("process", elapsed)
        self.scored.chunks += len(works)
        self.scored.rows += sum(work.chunk.row_count for work in works)
        self.scored.seconds += elapsed
        return results

    async def _results(self, works: Sequence[ChunkWork]) -> list[bytes]:
        """The result of each chunk. If that raises, the chunk that causes it is found, and its rows get `internal`."""
        try:
            return await self._finished(works)
        except Exception as fault:
            if len(works) > 1:
                return [result for work in works for result in await self._results([work])]
            chunk = works[0].chunk
            log.exception("chunk_failed", tenant=self.tenant, job=chunk.job_id, chunk=chunk.chunk)
            draft = ChunkDraft(chunk, None)
            draft.fail(internal_error(fault))
            return [draft.encode(self._limits)]

    async def _work(self, chunk: Chunk) -> ChunkWork:
        """A chunk with its rows and previous result."""
        source: tuple[bytes | None, Codec] | None = None
        previous: bytes | None = None
        if chunk.source is not None:
            record = await self._reader.read(self._tp("jobs", chunk, chunk.source.partition), chunk.source.offset)
            if record is not None:
                source = record.value, parse_headers(record.headers, self._limits).codec
        if chunk.previous is not None:
            record = await self._reader.read(
                self._tp("job-results", chunk, chunk.previous_partition), chunk.previous
            )  # fmt: skip
            previous = record.value if record is not None else None
        return chunk_work(chunk, source, previous, self._limits)

    async def _finished(self, works: Sequence[ChunkWork]) -> list[bytes]:
        batch = await self._predicted(works)
        results = batch.finish()
        for fault in batch.faults:
            log.error("chunk_fault", exc_info=fault, tenant=self.tenant)
        return results

    async def _predicted(self, works: Sequence[ChunkWork]) -> ChunkBatch:
        batch = self._scorer.prepare(works)
        await self._runner.run(self.tenant, batch.groups)
        for group in batch.groups:
            manifest = group.model.manifest
            counted = {(manifest.model_id, manifest.version): (len(group.drafts), group.rows)}
            self._measures.count_models(self.tenant, counted)
        return batch

    # ------------------------------------------------------------------ output

    def _steps(
        self, tp: TopicPartition, part: Sequence[tuple[Record, Read]], results: Iterator[bytes]
    ) -> list[OutputBatch]:
        """Output batches of the records before each barrier, and of the barrier itself, which confirms that those are
        committed."""
        runs = [_Run()]
        for record, read in part:
            if isinstance(read, Barrier) or runs[-1].barrier:
                runs.append(_Run(barrier=isinstance(read, Barrier)))
            self._add(runs[-1], tp, record, read, results)
        return [self._output(tp, run) for run in runs if run.records]

    def _add(self, run: _Run, tp: TopicPartition, record: Record, read: Read, results: Iterator[bytes]) -> None:
        run.records.append(record)
        if isinstance(read, Chunk):
            value = next(results)
            passed_on = salvage_headers(record.headers, self._limits).propagated
            of_alias = [header for header in record.headers if header[0] in (ALIAS_REVISION, VARIANT)]
            headers = [codec_named(read.encoding).header, *passed_on, *of_alias]
            run.outgoing.append((read.partition, self._accepted(read, (read.job_id.encode(), value, headers))))
        elif isinstance(read, Barrier):
            answer = encode_barrier_result(BarrierResult(read.job_id, read.barrier, tp.partition))
            run.outgoing.append((read.partition, (read.job_id.encode(), answer, [MSGPACK.header])))
        else:
            run.rejected.append((record, rejection_of(record, read, self._limits)))

    def _accepted(self, chunk: Chunk, outgoing: Outgoing) -> Outgoing:
        """The result of a chunk; if its topic would reject it, every row gets an error instead."""
        if (rejection := self._destinations.rejection(self._topics.name("job-results"), outgoing)) is None:
            return outgoing
        draft = ChunkDraft(chunk, None)
        draft.fail(rejection)
        return outgoing[0], draft.encode(self._limits), outgoing[2]

    def _output(self, tp: TopicPartition, run: _Run) -> OutputBatch:
        now_ms = int(self._clock() * 1000)
        timestamps = timestamps_of(run.records, now_ms)
        tally = Tally(results=len(run.records) - len(run.rejected))
        output = OutputBatch(run.records[-1].offset + 1, len(run.records), timestamps, tally, after_commit=run.barrier)
        topic = self._topics.name("job-results")
        for number, outgoing in run.outgoing:
            tally.bytes_out += len(outgoing[1] or b"")
            output.add(topic, number, outgoing)
        for record, error in run.rejected:
            tally.errors[error.code] += 1
            self._dead_letters.add(output, record, tp, error)
        return output

    def _tp(self, stream: Stream, chunk: Chunk, number: int | None) -> TopicPartition:
        return TopicPartition(self._topics.name(stream), chunk.partition if number is None else number)

    # ------------------------------------------------------------------ the interface of a processor

    async def opened(self, number: int) -> None: ...

    def closed(self, number: int) -> None: ...

    def rewound(self, number: int, dropped: Sequence[OutputBatch]) -> None:
        for output in dropped:
            if output.spans is not None:
                output.spans.dropped()

    def acked(self, number: int, output: OutputBatch) -> None:
        if output.spans is not None:
            output.spans.acked()

    def idle_output(self, tp: TopicPartition, next_offset: int, now_ms: int) -> OutputBatch | None:
        return None

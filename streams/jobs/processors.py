"""The processors of `jobs` and `job-results`: they apply records to job states and publish the output.

Both write the same table partition, so they never run concurrently (`unit`). Both always run under `exactly_once`:
otherwise a worker that still believes it owns a job could overwrite the state written by its successor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

import structlog
from aiokafka import TopicPartition

from inferd.schemas.codecs import Codec, codec_named
from inferd.schemas.errors import ModelNotFoundError, ModelServingError, VersionNotFoundError
from inferd.schemas.headers import (
    PROPAGATED_BYTES_MAX,
    parse_headers,
)
from inferd.schemas.jobs import (
    Barrier,
    Chunk,
    JobStatus,
    OpenJob,
    SubmitJob,
    chunk_key,
    decode_job_message,
    decode_outcome,
    encode_chunk,
    encode_status,
    parse_job_key,
)
from inferd.schemas.limits import Limits
from inferd.schemas.topics import Stream, TenantTopics
from inferd.streams.group import Records
from inferd.streams.inference import AliasHeaders, Record, alias_headers
from inferd.streams.jobs.job_store import JobsPartition, JobStore, change_of
from inferd.streams.jobs.state import JobState, Pin, Step, Terms, advance, count, tick
from inferd.streams.kafka import UNCHECKED, Destinations, Outgoing, partition_of_key
from inferd.streams.lane import Kind, OutputBatch, OwnerProcessor, Work
from inferd.streams.telemetry import MESSAGE_SPAN, JobCounters, LaneMeasures

log = structlog.get_logger(__name__)

RECORDS_MAX = 64
"""Maximum records per micro-batch of `jobs`; each may carry a megabyte of rows."""
OUTCOMES_MAX = 512
CHUNK_OVERHEAD_BYTES = PROPAGATED_BYTES_MAX + 8_192
"""Size of a record of `job-chunks` without its rows."""
DUE_MAX = 256
"""Maximum jobs per tick."""
NO_ROWS = JobState("", 0, 0)
MODEL_KNOWN_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class JobContext:
    """Shared by the processors of a tenant's jobs."""

    topics: TenantTopics
    owned: JobStore
    pin: Pin
    used: Callable[[], int]
    """How many partitions of the topics of jobs are used."""
    worker_id: str
    measures: LaneMeasures = field(default_factory=LaneMeasures)
    destinations: Destinations = UNCHECKED
    clock: Callable[[], float] = time.time
    """Unix seconds."""

    @property
    def partitions(self) -> int:
        return self.used()

    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    def terms(self, number: int, partition: JobsPartition) -> Terms:
        return Terms(self._limits(), number, self.partitions, self.pin, partition.epoch, partition.in_use)

    def _limits(self) -> Limits:
        """The limits, with chunks that fit `job-chunks`; larger ones refer to their rows instead of carrying them."""
        limits = self.owned.limits
        room = self.destinations.bytes_max(self.topics.name("job-chunks")) - CHUNK_OVERHEAD_BYTES
        return limits if room >= limits.job_chunk_bytes_max else replace(limits, job_chunk_bytes_max=max(0, room))


def _of_alias(state: JobState | None) -> AliasHeaders:
    """Headers of chunks, which their results have, too: which alias chose the version of a job."""
    if state is None or state.alias_revision is None:
        return ()
    return alias_headers(state.alias_revision, "canary" if state.variant == "canary" else "champion")


@dataclass(slots=True)
class _Draft:
    """An output batch being collected, and the new states of jobs."""

    context: JobContext
    number: int
    partition: JobsPartition
    output: OutputBatch
    changed: dict[str, JobState | None] = field(default_factory=dict)
    counted: JobCounters = field(default_factory=JobCounters)
    passed_on: list[tuple[str, bytes | None]] = field(default_factory=list)
    """Headers that chunks take over from their message."""

    def take(self, job_id: str, before: JobState | None, step: Step) -> None:
        """Adds the output of one step."""
        headers = [*self.passed_on, *_of_alias(step.state)] if step.chunks else []
        for chunk in step.chunks:
            outgoing = (chunk_key(job_id, chunk.chunk), encode_chunk(chunk), headers)
            self._add("job-chunks", self._partition_of(chunk), outgoing)
        if step.barrier is not None:
            self._add_barrier(step.barrier)
        if step.status is not None and step.state is not None:
            self.tell(job_id, step.status, codec_named(step.state.encoding))
        if step.changed:
            if step.state is None:
                self._add("job-status", self.number, (job_id.encode(), None, []))
            self.changed[job_id] = step.state
            self._count(before, step.state)
            self.partition.put(before, step.state, job_id)

    def _count(self, before: JobState | None, after: JobState | None) -> None:
        """Counters of a step; retried rows are counted again."""
        if after is not None:
            had = before if before is not None else NO_ROWS
            self.counted.rows_in += max(0, after.input_count - had.input_count)
            self.counted.rows_succeeded += max(0, after.succeeded - had.succeeded)
            self.counted.rows_failed += max(0, after.failed - had.failed)
            if after.announced and not (before is not None and before.announced):
                self.counted.ended[after.phase] += 1

    def tell(self, job_id: str, status: JobStatus, codec: Codec) -> None:
        value = encode_status(status, codec)
        self._add("job-status", self.number, (job_id.encode(), value, [codec.header]))

    def finish(self) -> OutputBatch:
        if self.changed:
            changes = [change_of(job_id, state) for job_id, state in self.changed.items()]
            self.output.changes[self.partition.table] = changes
            self.output.jobs = self.counted
        return self.output

    def _partition_of(self, chunk: Chunk) -> int:
        """Round robin, so that every worker gets a share; different jobs start at different partitions."""
        return (crc32(chunk.job_id.encode()) + chunk.chunk) % self.context.partitions

    def _add_barrier(self, barrier: Barrier) -> None:
        for number in range(self.context.partitions):
            self._add("job-chunks", number, (barrier.job_id.encode(), encode_chunk(barrier), []))

    def _add(self, stream: Stream, number: int, outgoing: Outgoing) -> None:
        self.output.tally.bytes_out += len(outgoing[1] or b"")
        self.output.add(self.context.topics.name(stream), number, outgoing)


class _JobProcessor(OwnerProcessor):
    """Shared by the two processors."""

    kind: Kind = "jobs"
    fault_event = "job_record_fault"

    def __init__(self, context: JobContext, stream: Stream) -> None:
        super().__init__(
            context.topics, stream, (context.owned.table,), context.worker_id, context.owned.limits,
            context.destinations,
        )  # fmt: skip
        self._context = context
        self._owned = context.owned

    def unit(self, number: int) -> Hashable:
        return (self.tenant, "jobs", number)

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        """Chunks of a job go to every partition."""
        topics = self._context.topics
        yield TopicPartition(topics.name("job-status"), number)
        yield TopicPartition(self._dead_letters.topic, number)
        for each in range(self._context.partitions):
            yield TopicPartition(topics.name("job-chunks"), each)
            yield TopicPartition(self.topic, each)

    async def process(self, work: Work) -> Sequence[Sequence[OutputBatch]]:
        return [[self._output(tp, records)] if records else [] for tp, records in work]

    def _output(self, tp: TopicPartition, records: Records) -> OutputBatch:
        now_ms = self._context.now_ms()
        output = self.output_of(records, now_ms)
        draft = _Draft(self._context, tp.partition, self._owned.partitions[tp.partition], output)
        self.take_each(
            output,
            tp,
            records,
            lambda record: None if self._sent_on(draft, record) else self._take(draft, record, now_ms),
        )
        return draft.finish()

    def _sent_on(self, draft: _Draft, record: Record) -> bool:
        """Whether a record is sent on to the partition of its job: partitions were added since it was sent, or its
        producer has another partitioner."""
        job_id = parse_job_key(record.key)
        number = partition_of_key(job_id.encode(), self._context.partitions)
        if number == draft.number or draft.partition.state(job_id) is not None:
            return False
        draft.output.tally.bytes_out += len(record.value or b"")
        draft.output.add(self.topic, number, (record.key, record.value, [*record.headers]))
        return True

    def _take(self, draft: _Draft, record: Record, now_ms: int) -> ModelServingError | None:
        """Adds the output of a record; returns the reason if it was rejected."""
        raise NotImplementedError

    async def opened(self, number: int) -> None:
        await self._owned.open(number)

    def closed(self, number: int) -> None:
        self._owned.close(number)

    def rewound(self, number: int, dropped: Sequence[OutputBatch]) -> None:
        """Only acknowledged states are visible."""
        if number in self._owned.partitions and number in self._owned.table.owned:
            self._owned.reopen(number)

    def acked(self, number: int, output: OutputBatch) -> None:
        if (partition := self._owned.partitions.get(number)) is not None:
            partition.acked(key.decode() for changes in output.changes.values() for key, _ in changes)
        if output.jobs is not None:
            self._owned.counters.add(output.jobs)


class JobMessageProcessor(_JobProcessor):
    """The processor of `jobs`: messages, and changes that are due by time."""

    def __init__(self, context: JobContext) -> None:
        super().__init__(context, "jobs")

    def records_max(self) -> int:
        return RECORDS_MAX

    async def process(self, work: Work) -> Sequence[Sequence[OutputBatch]]:
        measures, started = self._context.measures, time.perf_counter()
        timestamps = [record.timestamp for _, records in work for record in records]
        measures.observe_step_since("queue", timestamps, self._context.now_ms())
        work = [(tp, self._opened_by_now(tp, records)) for tp, records in work]
        outputs = await super().process(work)
        ended = time.perf_counter()
        measures.observe_step("chunk", ended - started)
        if (tracing := measures.tracing) is not None:
            parts = [(tp.partition, records) for tp, records in work]
            tracing.step_spans(MESSAGE_SPAN, self.topic, parts, "chunk", started, ended)
        return outputs

    def _opened_by_now(self, tp: TopicPartition, records: Records) -> Records:
        """The leading `records`, up to a job whose model may be deployed but is not known to this worker yet."""
        young_ms = self._context.now_ms() - MODEL_KNOWN_WITHIN_S * 1_000
        for place, record in enumerate(records):
            opening = self._opening(tp.partition, record) if record.timestamp > young_ms else None
            if opening is not None and not self._is_known(*opening):
                return records[:place]
        return records

    def _opening(self, number: int, record: Record) -> tuple[str, OpenJob] | None:
        """The opening message in a record, if its job is unknown."""
        try:
            job_id = parse_job_key(record.key)
            if getattr(record, "rejection", None) or self._owned.partitions[number].state(job_id) is not None:
                return None
            limits = self._owned.limits
            message = decode_job_message(record.value, parse_headers(record.headers, limits).codec, limits)
        except ModelServingError:
            return None
        opening = message.open if isinstance(message, SubmitJob) else message
        return (job_id, opening) if isinstance(opening, OpenJob) else None

    def _is_known(self, job_id: str, opening: OpenJob) -> bool:
        try:
            self._context.pin(opening.model, opening.outputs, job_id)
        except (ModelNotFoundError, VersionNotFoundError):
            return False
        except ModelServingError:
            return True
        return True

    def _take(self, draft: _Draft, record: Record, now_ms: int) -> ModelServingError | None:
        limits = self._owned.limits
        job_id = parse_job_key(record.key)
        headers = parse_headers(record.headers, limits)
        message = decode_job_message(record.value, headers.codec, limits)
        draft.passed_on = [*headers.propagated]
        before = draft.partition.state(job_id)
        terms = self._context.terms(draft.number, draft.partition)
        step = advance(before, job_id, message, record.offset, now_ms, terms)
        draft.take(job_id, before, step)
        return step.rejection

    def reject(self, output: OutputBatch, tp: TopicPartition, record: Record, error: ModelServingError) -> None:
        super().reject(output, tp, record, error)
        self._owned.partitions[tp.partition].handled.reject(record.offset, error)

    def acked(self, number: int, output: OutputBatch) -> None:
        super().acked(number, output)
        if (partition := self._owned.partitions.get(number)) is not None:
            partition.handled.up_to(output.next_offset)

    def idle_output(self, tp: TopicPartition, next_offset: int, now_ms: int) -> OutputBatch | None:
        partition = self._owned.partitions.get(tp.partition)
        if partition is None or not (due := partition.due(now_ms, DUE_MAX)):
            return None
        draft = _Draft(self._context, tp.partition, partition, OutputBatch(next_offset, 0, []))
        for job_id in due:
            before = partition.state(job_id)
            if before is not None:
                step = tick(before, now_ms, self._context.terms(tp.partition, partition))
                draft.take(job_id, before, step)
                if not step.changed:
                    partition.put(before, before, job_id)
        output = draft.finish()
        return output if output.by_topic or output.changes else None


class JobResultProcessor(_JobProcessor):
    """The processor of `job-results`: results of chunks."""

    def __init__(self, context: JobContext) -> None:
        super().__init__(context, "job-results")

    def records_max(self) -> int:
        return OUTCOMES_MAX

    def _take(self, draft: _Draft, record: Record, now_ms: int) -> ModelServingError | None:
        limits = self._owned.limits
        job_id = parse_job_key(record.key)
        outcome = decode_outcome(record.value, parse_headers(record.headers, limits).codec, limits)
        if outcome.job_id != job_id:
            return None  # inferd never writes such a record; it must not affect a job.
        before = draft.partition.state(job_id)
        draft.take(job_id, before, count(before, outcome, record.offset, now_ms))
        return None

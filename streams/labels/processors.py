"""The processors of `to-label` and `labels`: they join predictions and labels by request id.

Both write the same table partition, so they never run concurrently (`unit`). Both always run under `exactly_once`:
otherwise a label could count twice, or a worker that still believes it owns a partition could overwrite its state.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from inferd.schemas.errors import ModelServingError
from inferd.schemas.headers import parse_headers
from inferd.schemas.labels import decode_label, decode_to_label
from inferd.schemas.limits import Limits
from inferd.schemas.monitoring import WindowKey, WindowStats, encode_window, merge
from inferd.schemas.topics import Stream, TenantTopics
from inferd.streams.group import Records
from inferd.streams.inference import Record
from inferd.streams.kafka import Destinations, Outgoing, partition_of_key
from inferd.streams.labels.join import Entry, Step, add_label, add_prediction, expired
from inferd.streams.labels.store import LabelsPartition, LabelStore, encode_entry
from inferd.streams.lane import Kind, OutputBatch, OwnerProcessor, Work
from inferd.streams.state import Change

RECORDS_MAX = 4_096
EXPIRED_MAX = 2 * RECORDS_MAX
"""Maximum entries that are removed with one output batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelContext:
    """Shared by both processors of a tenant."""

    topics: TenantTopics
    store: LabelStore
    used: Callable[[], int]
    """How many partitions are used."""
    window_ms: int
    """How long a prediction waits for its label."""
    worker_id: str
    limits: Limits
    destinations: Destinations
    clock: Callable[[], float] = time.time
    """Unix seconds."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """What became of labels, by `Outcome`, since the start of the worker."""


@dataclass(slots=True)
class _Draft:
    """The output of records of one partition, while it is made."""

    context: LabelContext
    partition: LabelsPartition
    output: OutputBatch
    now_ms: int
    changed: dict[bytes, Entry] = field(default_factory=dict)
    windows: dict[WindowKey, WindowStats] = field(default_factory=dict)

    def entry(self, key: bytes) -> Entry | None:
        return self.changed.get(key) or self.partition.get(key)

    def take(self, key: bytes, step: Step) -> None:
        if step.entry is not None:
            self.changed[key] = step.entry
        self.output.labels.update(step.outcomes)
        if (window := step.window) is not None:
            of = WindowKey.of(window)
            self.windows[of] = merge(self.windows[of], window) if of in self.windows else window

    def finish(self) -> OutputBatch:
        """Adds the changes of the table, and what labels add to the windows."""
        for key, entry in self.changed.items():
            self.partition.add(key, entry)
        changes: list[Change] = [(key, encode_entry(entry)) for key, entry in self.changed.items()]
        for key in self.partition.expired(self.now_ms, EXPIRED_MAX):
            gone = self.changed.get(key) or self.partition.get(key)
            if gone is not None:
                self.output.labels.update(expired(gone))
            changes.append((key, None))
        if changes:
            self.output.changes[self.partition.table] = changes
            self.partition.unacked.update(key for key, _ in changes)
        stats = self.context.topics.name("model-stats")
        for window in self.windows.values():
            self.output.add(stats, 0, (window.model_id.encode(), encode_window(window), []))
        return self.output


class LabelProcessor(OwnerProcessor):
    """Shared by both."""

    kind: Kind = "lifecycle"
    fault_event = "label_fault"

    def __init__(self, context: LabelContext, stream: Stream) -> None:
        super().__init__(
            context.topics, stream, (context.store.table,), context.worker_id, context.limits, context.destinations
        )
        self._context = context

    def unit(self, number: int) -> Hashable:
        return (self.tenant, "labels", number)

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        yield TopicPartition(self._dead_letters.topic, number)
        yield TopicPartition(self._context.topics.name("model-stats"), 0)
        yield from (TopicPartition(self.topic, each) for each in range(self._context.used()))

    def records_max(self) -> int:
        return RECORDS_MAX

    async def process(self, work: Work) -> Sequence[Sequence[OutputBatch]]:
        return [[self._output(tp, records)] if records else [] for tp, records in work]

    def _output(self, tp: TopicPartition, records: Records) -> OutputBatch:
        now_ms = int(self._context.clock() * 1000)
        output = self.output_of(records, now_ms)
        draft = _Draft(self._context, self._context.store.partitions[tp.partition], output, now_ms)
        self.take_each(output, tp, records, lambda record: self._take(draft, tp, record))
        return draft.finish()

    def _take(self, draft: _Draft, tp: TopicPartition, record: Record) -> ModelServingError | None:
        """Adds a record; returns the reason if it was rejected."""
        raise NotImplementedError

    def _sent_on(self, draft: _Draft, tp: TopicPartition, key: bytes, outgoing: Outgoing) -> bool:
        """Whether a record is sent on to the partition of its id: partitions were added since it was sent, or its
        producer has another partitioner."""
        number = partition_of_key(key, self._context.used())
        if number == tp.partition or draft.entry(key) is not None:
            return False
        draft.output.add(self.topic, number, outgoing)
        return True

    async def opened(self, number: int) -> None:
        await self._context.store.open(number)

    def closed(self, number: int) -> None:
        self._context.store.close(number)

    def rewound(self, number: int, dropped: Sequence[OutputBatch]) -> None:
        """Only acknowledged entries remain."""
        self._context.store.rewound(number)

    def acked(self, number: int, output: OutputBatch) -> None:
        self._context.outcomes.update(output.labels)
        partition = self._context.store.partitions.get(number)
        if partition is not None:
            partition.acked(key for changes in output.changes.values() for key, _ in changes)


class PredictionProcessor(LabelProcessor):
    """The processor of `to-label`."""

    def __init__(self, context: LabelContext) -> None:
        super().__init__(context, "to-label")

    def _take(self, draft: _Draft, tp: TopicPartition, record: Record) -> ModelServingError | None:
        prediction = decode_to_label(record.value)
        key = prediction.id.encode()
        if self._sent_on(draft, tp, key, (key, record.value, [])):
            return None
        draft.take(key, add_prediction(draft.entry(key), prediction, draft.now_ms, self._context.window_ms))
        return None

    def idle_output(self, tp: TopicPartition, next_offset: int, now_ms: int) -> OutputBatch | None:
        """Removes entries that have expired."""
        partition = self._context.store.partitions.get(tp.partition)
        if partition is None:
            return None
        output = _Draft(self._context, partition, OutputBatch(next_offset, 0, []), now_ms).finish()
        return output if output.changes else None


class LabelMessageProcessor(LabelProcessor):
    """The processor of `labels`."""

    def __init__(self, context: LabelContext) -> None:
        super().__init__(context, "labels")

    def _take(self, draft: _Draft, tp: TopicPartition, record: Record) -> ModelServingError | None:
        limits = self._context.limits
        headers = parse_headers(record.headers, limits)
        label = decode_label(record.value, headers.codec, limits)
        key = label.id.encode()
        if self._sent_on(draft, tp, key, (key, record.value, [headers.codec.header])):
            return None
        step = add_label(draft.entry(key), label, draft.now_ms)
        draft.take(key, step)
        return step.error

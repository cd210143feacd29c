"""The processor of `model-stats`: adds what workers counted to the windows of the table.

It always runs under `exactly_once`: otherwise a worker that still believes it owns the windows could overwrite those of
its successor, and a count could be added twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import structlog
from aiokafka import TopicPartition

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.limits import Limits
from inferd.schemas.models import BaselineKey, parse_model_key
from inferd.schemas.monitoring import (
    WINDOW_BYTES_MAX,
    WINDOW_S,
    WindowKey,
    WindowStats,
    decode_baseline,
    decode_window,
    encode_window,
    merge,
)
from inferd.schemas.topics import Stream, TenantTopics
from inferd.streams.group import Records
from inferd.streams.inference import Record
from inferd.streams.kafka import UNCHECKED, Destinations
from inferd.streams.lane import Kind, OutputBatch, OwnerProcessor, Work
from inferd.streams.lifecycle.drift_watch import BaselineOf, DriftWatch
from inferd.streams.lifecycle.windows import WindowsPartition, WindowStore
from inferd.streams.state import Change, LaneTable

log = structlog.get_logger(__name__)

LEARNED = b"#learned"
"""End of the keys of baselines; windows have the model id as the key."""
RECORDS_MAX = 4_096
"""Maximum records per micro-batch."""
PAUSE_S = 0.5
"""Between two micro-batches: a transaction for each record would cost more than the scoring that it counts."""
AHEAD_MINUTES_MAX = 60
"""How far the clock of a worker may be ahead."""


@dataclass(frozen=True, slots=True)
class LifecycleContext:
    """Shared by the processors of a tenant's lifecycle of models."""

    topics: TenantTopics
    windows: WindowStore
    tables: Sequence[LaneTable]
    """Those of all processors."""
    worker_id: str
    limits: Limits
    destinations: Destinations = UNCHECKED
    baseline_of: BaselineOf = lambda _model, _version: None
    clock: Callable[[], float] = time.time
    """Unix seconds."""

    def now_ms(self) -> int:
        return int(self.clock() * 1000)


class LifecycleProcessor(OwnerProcessor):
    """Shared by the processors of `LIFECYCLE_STREAMS`."""

    kind: Kind = "lifecycle"

    def __init__(self, context: LifecycleContext, stream: Stream) -> None:
        super().__init__(
            context.topics, stream, context.tables, context.worker_id, context.limits, context.destinations
        )
        self._context = context

    def unit(self, number: int) -> Hashable:
        return (self.tenant, "lifecycle", number)

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        yield TopicPartition(self._dead_letters.topic, number)


class StatsProcessor(LifecycleProcessor):
    """The processor of `model-stats`."""

    fault_event = "window_fault"

    def __init__(self, context: LifecycleContext, drift: DriftWatch | None = None) -> None:
        super().__init__(context, "model-stats")
        self._drift = drift
        self._windows = context.windows
        self._models = context.topics.name("models")
        self._processed_at = float("-inf")

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        yield from super().outputs(number)
        yield TopicPartition(self._models, 0)

    def records_max(self) -> int:
        return RECORDS_MAX

    async def process(self, work: Work) -> Sequence[Sequence[OutputBatch]]:
        """The output of each part, or none yet: records are collected for `PAUSE_S`."""
        now = self._context.clock()
        if 0 <= now - self._processed_at < PAUSE_S:
            return [[] for _ in work]
        self._processed_at = now
        return [[self._output(tp, records)] if records else [] for tp, records in work]

    def _output(self, tp: TopicPartition, records: Records) -> OutputBatch:
        now_ms = self._context.now_ms()
        output = self.output_of(records, now_ms)
        partition = self._windows.partitions[tp.partition]
        changed: dict[WindowKey, WindowStats] = {}

        def take(record: Record) -> None:
            if (record.key or b"").endswith(LEARNED):
                self._publish_baseline(output, record)
            else:
                self._add(partition, changed, record, now_ms // 1000 // WINDOW_S)

        self.take_each(output, tp, records, take)
        for key in changed:
            partition.add(key)
        expired = partition.expired(self._oldest(now_ms))
        changes: list[Change] = [(key.encode(), encode_window(window)) for key, window in changed.items()]
        changes += [(key.encode(), None) for key in expired]
        if changes:
            output.changes[partition.table] = changes
        return output

    def _publish_baseline(self, output: OutputBatch, record: Record) -> None:
        """Publishes a baseline that a worker has learned, unless the version has one."""
        key = parse_model_key(record.key)
        decode_baseline(record.value)
        if isinstance(key, BaselineKey) and self._context.baseline_of(key.model_id, key.version) is None:
            output.add(self._models, 0, (record.key, record.value, []))

    def _oldest(self, now_ms: int) -> int:
        """The first minute whose windows are kept."""
        return now_ms // 1000 // WINDOW_S - self._windows.kept_minutes

    def _add(
        self, partition: WindowsPartition, changed: dict[WindowKey, WindowStats], record: Record, minute: int
    ) -> None:
        """Adds a record to its window."""
        added = decode_window(record.value)
        if added.minute > minute + AHEAD_MINUTES_MAX:
            raise InvalidValueError(f"window: minute {added.minute} is in the future; now it is {minute}")
        if added.minute < minute - self._windows.kept_minutes:
            return  # read again after a long time
        key = WindowKey.of(added)
        before = changed.get(key) or partition.get(key)
        window = merge(before, added) if before is not None else added
        if before is not None and len(encode_window(window)) > WINDOW_BYTES_MAX:
            raise InvalidValueError(f"window: the sum of {key.model_id}:{key.version} has too many values")
        changed[key] = window

    def _measure(self, drift: DriftWatch, now_s: float) -> None:
        try:
            drift.step(now_s)
        except Exception:  # Drift must not stop the windows.
            log.exception("drift_fault", tenant=self.tenant)

    async def opened(self, number: int) -> None:
        await self._windows.open(number)

    def closed(self, number: int) -> None:
        self._windows.close(number)
        if self._drift is not None:
            self._drift.clear()

    def rewound(self, number: int, dropped: Sequence[OutputBatch]) -> None:
        """Only acknowledged windows remain."""
        self._windows.reopen(number)
        self._processed_at = float("-inf")

    def acked(self, number: int, output: OutputBatch) -> None:
        """Nothing to do: windows are read from the table."""

    def idle_output(self, tp: TopicPartition, next_offset: int, now_ms: int) -> OutputBatch | None:
        """Removes windows that are too old, and measures drift."""
        if self._drift is not None:
            self._measure(self._drift, now_ms / 1000)
        partition = self._windows.partitions.get(tp.partition)
        if partition is None or not (expired := partition.expired(self._oldest(now_ms))):
            return None
        changes: list[Change] = [(key.encode(), None) for key in expired]
        return OutputBatch(next_offset, 0, [], changes={partition.table: changes})

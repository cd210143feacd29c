"""Output batches: what processing a range of records produces, and the offset that is committed with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from inferd.streams.inference import RecordBlock
from inferd.streams.kafka import Outgoing, OutgoingBlock, OutgoingRecords
from inferd.streams.telemetry import WAIT_MS_MAX, JobCounters, Tally

if TYPE_CHECKING:
    from inferd.streams.inference import Record
    from inferd.streams.state import Change, TablePartition
    from inferd.streams.telemetry import OpenSpans

OUTGOING_OVERHEAD_BYTES = 64


def timestamps_of(records: Sequence[Record], now_ms: int) -> list[int]:
    """Timestamps of records in Unix milliseconds; `now_ms` if a record has none.

    Timestamps older than `WAIT_MS_MAX` are raised to that: producers may set any timestamp.
    """
    earliest = now_ms - WAIT_MS_MAX
    if isinstance(records, RecordBlock):
        stamps = records.columns["timestamp"]
        known: list[int] = np.where(stamps > 0, np.maximum(stamps, earliest), now_ms).tolist()
        return known
    return [max(record.timestamp, earliest) if record.timestamp > 0 else now_ms for record in records]


@dataclass(slots=True)
class OutputBatch:
    """Records to publish and table changes for a range of records of one partition; committed with `next_offset`."""

    next_offset: int
    records: int
    timestamps: Sequence[int]
    """Unix milliseconds of the records."""
    tally: Tally = field(default_factory=Tally)
    by_topic: dict[tuple[str, int], OutgoingRecords] = field(default_factory=dict)
    """(topic, partition) -> records to produce there, in order: results, replies, dead letters, chunks."""
    published_at: float = 0.0
    """When it was passed to the producer (`time.perf_counter`)."""
    replies: set[str] = field(default_factory=set)
    """Reply-to topics in `by_topic`."""
    on_acked: Callable[[], None] | None = None
    """Called once it is acknowledged."""
    after_commit: bool = False
    """Publish only after everything before it is committed."""
    spans: OpenSpans | None = None
    """Spans of traced requests."""
    jobs: JobCounters | None = None
    """Added to the counters of jobs."""
    labels: Counter[str] = field(default_factory=Counter)
    """What became of labels."""
    changes: dict[TablePartition, list[Change]] = field(default_factory=dict)
    """Changes of tables, in order."""

    def add(self, topic: str, partition: int, outgoing: Outgoing) -> None:
        records = self.by_topic.get((topic, partition), [])
        if isinstance(records, OutgoingBlock):
            records = list(records)
        records.append(outgoing)
        self.by_topic[topic, partition] = records

    @property
    def n_bytes(self) -> int:
        """Approximate memory held until it is acknowledged."""
        outgoing = sum(map(len, self.by_topic.values())) + sum(map(len, self.changes.values()))
        return self.tally.bytes_out + OUTGOING_OVERHEAD_BYTES * outgoing

"""One partition of a lane topic: its state, and what was fetched, taken, published, acknowledged and committed.

    created -> restoring -> running -> draining -> closed

Any state may become `closed`, and `draining` and `closed` may be entered again. A partition that is to be taken over
once more is a new `Partition`. Pure bookkeeping over offsets, without I/O. Other modules read its fields, and change
them only through its methods, each of which maintains `next_fetch >= next_take >= next_publish >= acked >= committed`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from aiokafka import TopicPartition
from numpy.typing import NDArray

from inferd.streams.group import Records
from inferd.streams.inference import RecordBlock, joined_records
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.state import TablePartition

State = Literal["created", "restoring", "running", "draining", "closed"]
NEXT_STATES: Mapping[State, tuple[State, ...]] = {
    "created": ("restoring", "closed"),
    "restoring": ("running", "closed"),
    "running": ("draining", "closed"),
    "draining": ("draining", "closed"),
    "closed": ("closed",),
}
NO_IDS: Mapping[str, str] = MappingProxyType({})
RECORD_OVERHEAD_BYTES = 200
"""Memory that a fetched record takes in addition to its key, value and headers."""
HEADER_OVERHEAD_BYTES = 100
"""Memory that a header takes in addition to its name and value."""


class PartitionError(RuntimeError):
    """A bug: a method is not allowed in the partition's state, or its offsets are out of order."""


@dataclass(slots=True, eq=False)
class Usage:
    """Total bytes of all partitions that share this object; each partition updates it."""

    queued_bytes: int = 0
    in_flight_bytes: int = 0


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """An output batch that is in flight: published, and not yet acknowledged completely."""

    output: OutputBatch
    n_bytes: int
    """Approximate memory that it holds."""
    written: dict[TablePartition, int] = field(default_factory=dict)
    """Last offset in the changelog of each table partition that it changes."""
    _unacknowledged: int = 0
    """Record batches that were passed to the producer and are not acknowledged yet."""
    _published: bool = False
    """Whether all its record batches have been passed to the producer."""

    def sent(self) -> None:
        """One more record batch was passed to the producer."""
        self._unacknowledged += 1

    def acknowledged(self) -> None:
        """The broker acknowledged one of its record batches."""
        self._unacknowledged -= 1

    def published(self) -> None:
        """All its record batches have been passed to the producer."""
        self._published = True

    def wrote(self, table: TablePartition, offset: int) -> None:
        """A record batch of changes to `table` was acknowledged; `offset` is its last one in the changelog."""
        self.written[table] = max(offset, self.written.get(table, -1))

    @property
    def done(self) -> bool:
        """Whether all its record batches are acknowledged."""
        return self._published and self._unacknowledged == 0


class Partition:
    """The offsets, queue and in-flight batches of one partition."""

    def __init__(self, tp: TopicPartition, usage: Usage | None = None) -> None:
        """`usage`: shared by all partitions of the tenant."""
        self.tp = tp
        self._usage = usage or Usage()
        self.topic_ids = NO_IDS
        """Ids of its topic and of those that it writes to, as of the takeover."""
        self.state: State = "created"
        self.next_fetch = self.next_take = self.next_publish = self.acked = self.committed = 0
        self.rewinds = 0
        """Incremented by every rewind: records taken before one must not be published after it."""
        self.queued = self.queued_bytes = 0
        self.taken = 0
        """Records taken whose output is not being published yet."""
        self.in_flight = self.in_flight_bytes = 0
        self.suspect = True
        """The next fetch may lack records: it is the first one, or an earlier one was cut short."""
        self._gap_at: int | None = None
        self._fetched_again = False
        """Whether a suspect fetch without records has been repeated."""
        self._queue: deque[tuple[Records, int]] = deque()
        self._in_flight_batches: deque[InFlightBatch] = deque()

    # ------------------------------------------------------------------ life

    def restore(self) -> None:
        """Enters `restoring`, after the previous owners are fenced."""
        self._enter("restoring")

    def run(self, start: int, topic_ids: Mapping[str, str] = NO_IDS) -> None:
        """Enters `running`: accepts records from offset `start`."""
        self._enter("running")
        self.topic_ids = topic_ids
        self.next_fetch = self.next_take = self.next_publish = self.acked = self.committed = start

    def drain(self) -> int:
        """Stops accepting records and drops the queued ones. Records in flight may still be acknowledged.

        Returns the number of records dropped.
        """
        self._enter("draining")
        return self._drop_queue()

    def close(self) -> int:
        """Discards all unacknowledged records permanently; returns their number."""
        self._enter("closed")
        return self._forget()

    @property
    def running(self) -> bool:
        return self.state == "running"

    def _enter(self, state: State) -> None:
        if state not in NEXT_STATES[self.state]:
            raise PartitionError(f"{self._name}: cannot be {state} after {self.state}")
        self.state = state

    def _require(self, *states: State) -> None:
        if self.state not in states:
            raise PartitionError(f"{self._name}: is {self.state}, and has to be {' or '.join(states)}")

    def _check_offsets(self) -> None:
        if not self.next_fetch >= self.next_take >= self.next_publish >= self.acked >= self.committed:
            raise PartitionError(
                f"{self._name}: offsets are out of order: next_fetch={self.next_fetch} next_take={self.next_take}"
                f" next_publish={self.next_publish} acked={self.acked} committed={self.committed}"
            )

    @property
    def _name(self) -> str:
        return f"partition {self.tp.partition} of {self.tp.topic}"

    # ------------------------------------------------------------------ fetched and taken

    def offer(self, records: Records) -> int | None:
        """Queues the new records of a fetched batch.

        Records below the expected offset are repeats and are dropped. After an interrupted fetch a gap is not accepted:
        the offset to seek back to is returned. Any other gap, and the same gap after such a seek, is real (transaction
        markers, compaction, retention).
        """
        self._require("running")
        records = self._unseen(records)
        if not records:
            return None
        first = records[0].offset
        if self.suspect and first > self.next_fetch and first != self._gap_at:
            self._gap_at = first
            return self.next_fetch
        self._clear_suspect()
        self.next_fetch = records[-1].offset + 1
        size = bytes_of(records)
        self._queue.append((records, size))
        self.queued += len(records)
        self._count_queued(size)
        self._check_offsets()
        return None

    def mark_suspect(self) -> None:
        """Marks the next fetch as suspect: a fetch was interrupted, so records may be missing from it."""
        self.suspect, self._gap_at, self._fetched_again = True, None, False

    def _clear_suspect(self) -> None:
        self.suspect, self._gap_at, self._fetched_again = False, None, False

    def skip_to(self, position: int) -> int | None:
        """Advances to `position`, the fetcher's position, past offsets without records.

        Those are transaction markers, and aborted or compacted records. No record may be pending. After an interrupted
        fetch, records may be missing: then the offset to seek back to is returned, once.
        """
        self._require("running")
        if self.pending:
            raise PartitionError(f"{self._name}: cannot move to offset {position}: {self.pending} records are pending")
        if position <= self.next_fetch:
            return None
        if self.suspect and not self._fetched_again:
            self._fetched_again = True
            return self.next_fetch
        self._clear_suspect()
        self.next_fetch = self.next_take = position
        self._check_offsets()
        return None

    def take(self, rows_max: int, bytes_max: int) -> Records:
        """Takes the oldest queued records, within these numbers of records and bytes, but at least one if any is
        queued."""
        self._require("running")
        taken: list[Records] = []
        while self._queue and rows_max > 0 and bytes_max > 0:
            records, size = self._queue.popleft()
            if len(records) > rows_max or size > bytes_max:
                records, size = self._split(records, rows_max, bytes_max, at_least=not taken)
                if not records:
                    break
            taken.append(records)
            rows_max -= len(records)
            bytes_max -= size
            self.queued -= len(records)
            self.taken += len(records)
            self._count_queued(-size)
            self.next_take = records[-1].offset + 1
        self._check_offsets()
        return joined_records(taken)

    def _split(self, records: Records, rows_max: int, bytes_max: int, *, at_least: bool) -> tuple[Records, int]:
        """The first of `records` that fit, and their bytes; the others return to the front of the queue."""
        n, size = _fitting(records[:rows_max], bytes_max, at_least=at_least)
        if rest := records[n:]:
            self._queue.appendleft((rest, bytes_of(rest)))
        return records[:n], size

    def put_back(self, records: Records) -> None:
        """Returns the records that were taken last to the front of the queue."""
        self._require("running")
        size = bytes_of(records)
        self._queue.appendleft((records, size))
        self.queued += len(records)
        self._count_queued(size)
        self.taken -= len(records)
        self.next_take = records[0].offset
        self._check_offsets()

    def drop_taken(self, records: Records) -> None:
        """Drops records that were taken before the partition was drained: another owner fetches them."""
        self._require("draining")
        self.taken -= len(records)

    # ------------------------------------------------------------------ published, acknowledged, committed

    def start_publishing(self, output: OutputBatch) -> InFlightBatch:
        """Adds the output of a taken range to the batches in flight.

        Must be called in the order of offsets, before the output is published.
        """
        self._require("running", "draining")
        batch = InFlightBatch(output, output.n_bytes)
        self._in_flight_batches.append(batch)
        self.next_publish = output.next_offset
        self.taken -= output.records
        self.in_flight += output.records
        self._count_in_flight(batch.n_bytes)
        self._check_offsets()
        return batch

    def complete_batches(self, on_acked: Callable[[InFlightBatch], None]) -> None:
        """Called after an acknowledgement; calls `on_acked` for each batch that is complete, in order.

        `acked` only advances over consecutive complete batches; a later batch that completes first has to wait. If
        `on_acked` raises, `acked` stays before that batch, so its offset is never committed.
        """
        while self._in_flight_batches and self._in_flight_batches[0].done:
            first = self._in_flight_batches[0]
            on_acked(first)
            self._in_flight_batches.popleft()
            self.acked = first.output.next_offset
            self.in_flight -= first.output.records
            self._count_in_flight(-first.n_bytes)
            self._check_offsets()

    def commit(self, offset: int) -> None:
        """Records that the group has committed `offset`."""
        self.committed = max(self.committed, offset)
        self._check_offsets()

    def in_flight_outputs(self) -> list[OutputBatch]:
        """Output batches that are in flight."""
        return [batch.output for batch in self._in_flight_batches]

    def late_replies(self, seconds: float) -> set[str]:
        """Reply-to topics of output published at least `seconds` ago and still unacknowledged."""
        before = time.perf_counter() - seconds
        return {topic for each in self.in_flight_outputs() if each.published_at <= before for topic in each.replies}

    def rewind(self) -> int:
        """Drops unacknowledged records, which are fetched again from `acked`; returns their number."""
        self._require("running", "draining")
        return self._forget()

    def _forget(self) -> int:
        forgotten = self.pending
        self._drop_queue()
        self._in_flight_batches.clear()
        self._count_in_flight(-self.in_flight_bytes)
        self.taken = self.in_flight = 0
        self.next_fetch = self.next_take = self.next_publish = self.acked
        self._check_offsets()
        self.mark_suspect()
        self.rewinds += 1
        return forgotten

    @property
    def topic_id(self) -> str:
        """Id of the topic that its offsets belong to; empty if the broker has none."""
        return self.topic_ids.get(self.tp.topic, "")

    @property
    def pending(self) -> int:
        """Number of records that are fetched, and neither acknowledged nor dropped."""
        return self.queued + self.taken + self.in_flight

    @property
    def has_in_flight(self) -> bool:
        """Whether anything is in flight, including output batches without records."""
        return bool(self._in_flight_batches)

    def owns(self, batch: InFlightBatch) -> bool:
        """Whether a batch is still in flight; it is not after a rewind."""
        return batch in self._in_flight_batches

    def _drop_queue(self) -> int:
        dropped = self.queued
        self._queue.clear()
        self._count_queued(-self.queued_bytes)
        self.queued = 0
        return dropped

    def _count_queued(self, n_bytes: int) -> None:
        self.queued_bytes += n_bytes
        self._usage.queued_bytes += n_bytes

    def _count_in_flight(self, n_bytes: int) -> None:
        self.in_flight_bytes += n_bytes
        self._usage.in_flight_bytes += n_bytes

    def _unseen(self, records: Records) -> Records:
        n = 0
        while n < len(records) and records[n].offset < self.next_fetch:
            n += 1
        return records[n:] if n else records


def by_topic(tps: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """Partition numbers by topic, for logs."""
    named: dict[str, list[int]] = {}
    for tp in sorted(tps):
        named.setdefault(tp.topic, []).append(tp.partition)
    return named


def _fitting(records: Records, bytes_max: int, *, at_least: bool) -> tuple[int, int]:
    """How many of the first records fit, and their bytes; `at_least`: one, even if it does not fit."""
    if isinstance(records, RecordBlock):
        ends = np.cumsum(_sizes_of(records))
        n = int(np.searchsorted(ends, bytes_max, side="right")) or int(at_least)
        return n, int(ends[n - 1]) if n else 0
    n = size = 0
    for record in records:
        record_bytes = bytes_of((record,))
        if size + record_bytes > bytes_max and not (at_least and n == 0):
            break
        n += 1
        size += record_bytes
    return n, size


def bytes_of(records: Records) -> int:
    """Approximate memory that fetched records take."""
    if isinstance(records, RecordBlock):
        return int(_sizes_of(records).sum())
    payload = sum([len(record.value or b"") + len(record.key or b"") for record in records])
    headers = sum([_header_bytes(given) for record in records if (given := record.headers)])
    return payload + headers + RECORD_OVERHEAD_BYTES * len(records)


def _sizes_of(block: RecordBlock) -> NDArray[np.int64]:
    """Approximate memory that each record takes, once its object is made."""
    sizes: NDArray[np.int64] = block.sizes + HEADER_OVERHEAD_BYTES * block.columns["headers"] + RECORD_OVERHEAD_BYTES
    return sizes


def _header_bytes(headers: Sequence[tuple[str, bytes | None]]) -> int:
    size = HEADER_OVERHEAD_BYTES * len(headers)
    for name, value in headers:
        size += len(name) + len(value or b"")
    return size

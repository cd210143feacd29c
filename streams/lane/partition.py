"""One partition of a lane topic: its state, and what was fetched, taken, published, acknowledged and committed.

    created -> restoring -> running -> draining -> closed

Any state may become `closed`, and `draining` and `closed` may be entered again. A partition that is to be taken over
once more is a new `Partition`. Pure bookkeeping over offsets, without I/O. Others read its fields, and change them
through its methods alone: each one leaves `next_fetch >= next_take >= departed >= acked >= committed`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from aiokafka import TopicPartition

from inferd.streams.group import Records
from inferd.streams.inference import Record
from inferd.streams.lane.output_batch import Effects
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
"""What a fetched record costs in memory beside its key, value and headers."""
HEADER_OVERHEAD_BYTES = 100
"""What each header costs beside its name and value."""


class PartitionError(RuntimeError):
    """A bug: a method is not allowed in the partition's state, or its offsets are out of order."""


@dataclass(slots=True, eq=False)
class Usage:
    """Total bytes of all partitions that share this object; each partition updates it."""

    queued_bytes: int = 0
    in_flight_bytes: int = 0


@dataclass(slots=True, eq=False)
class Flight:
    """A taken range of records whose effects are in flight."""

    effects: Effects
    n_bytes: int
    """Approximate memory that it holds."""
    written: dict[TablePartition, int] = field(default_factory=dict)
    """Last offset in the changelog of each table partition that it changes."""
    _unacknowledged: int = 0
    """Produced batches that the broker has not acknowledged yet."""
    _published: bool = False
    """Whether all its batches have been handed to the producer."""

    def sent(self) -> None:
        """One more batch was passed to the producer."""
        self._unacknowledged += 1

    def acknowledged(self) -> None:
        """One of the batches was acknowledged."""
        self._unacknowledged -= 1

    def published(self) -> None:
        """No more batches follow."""
        self._published = True

    def wrote(self, table: TablePartition, offset: int) -> None:
        """A batch of changes to `table` was acknowledged; `offset` is its last one in the changelog."""
        self.written[table] = max(offset, self.written.get(table, -1))

    @property
    def done(self) -> bool:
        """Whether all batches of the range are acknowledged."""
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
        self.next_fetch = self.next_take = self.departed = self.acked = self.committed = 0
        self.rewinds = 0
        """Grows with every rewind: what was taken before one must not be published after it."""
        self.queued = self.queued_bytes = 0
        self.taken = 0
        """Records taken that have neither departed nor been put aside."""
        self.in_flight = self.in_flight_bytes = 0
        self.suspect = True
        """The next fetch may lack records: it is the first one, or an earlier one was cut short."""
        self._gap_at: int | None = None
        self._fetched_again = False
        """Whether a suspect fetch that brought nothing was made again."""
        self._queue: deque[tuple[Records, int]] = deque()
        self._flights: deque[Flight] = deque()

    # ------------------------------------------------------------------ life

    def restore(self) -> None:
        """Enters `restoring`, after the previous owners are fenced."""
        self._enter("restoring")

    def run(self, start: int, topic_ids: Mapping[str, str] = NO_IDS) -> None:
        """Enters `running`: accepts records from offset `start`."""
        self._enter("running")
        self.topic_ids = topic_ids
        self.next_fetch = self.next_take = self.departed = self.acked = self.committed = start

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
        if not self.next_fetch >= self.next_take >= self.departed >= self.acked >= self.committed:
            raise PartitionError(
                f"{self._name}: offsets are out of order: next_fetch={self.next_fetch} next_take={self.next_take}"
                f" departed={self.departed} acked={self.acked} committed={self.committed}"
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
        self._trust()
        self.next_fetch = records[-1].offset + 1
        size = bytes_of(records)
        self._queue.append((records, size))
        self.queued += len(records)
        self._count_queued(size)
        self._check_offsets()
        return None

    def doubt(self) -> None:
        """Marks the next fetch as suspect: a fetch was interrupted, so records may be missing from it."""
        self.suspect, self._gap_at, self._fetched_again = True, None, False

    def _trust(self) -> None:
        self.suspect, self._gap_at, self._fetched_again = False, None, False

    def pass_by(self, position: int) -> int | None:
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
        self._trust()
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
        return taken[0] if len(taken) == 1 else [record for records in taken for record in records]

    def _split(self, records: Records, rows_max: int, bytes_max: int, *, at_least: bool) -> tuple[Records, int]:
        """The first of `records` that fit, and their bytes; the others return to the front of the queue."""
        n = size = 0
        for record in records[:rows_max]:
            record_bytes = bytes_of((record,))
            if size + record_bytes > bytes_max and not (at_least and n == 0):
                break
            n += 1
            size += record_bytes
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

    def put_aside(self, records: Records) -> None:
        """Drops records that were taken before the partition was drained: another owner fetches them."""
        self._require("draining")
        self.taken -= len(records)

    # ------------------------------------------------------------------ published, acknowledged, committed

    def depart(self, effects: Effects) -> Flight:
        """Records that the effects of a taken range are about to be published. Ranges must be published in order."""
        self._require("running", "draining")
        flight = Flight(effects, effects.n_bytes)
        self._flights.append(flight)
        self.departed = effects.next_offset
        self.taken -= effects.records
        self.in_flight += effects.records
        self._count_in_flight(flight.n_bytes)
        self._check_offsets()
        return flight

    def land(self, landed: Callable[[Flight], None]) -> None:
        """Called after an acknowledgement; calls `landed` for each range that is complete, in order.

        `acked` only advances over consecutive complete ranges; a later range that completes first has to wait. If
        `landed` raises, `acked` stays before that range, so its offset is never committed.
        """
        while self._flights and self._flights[0].done:
            first = self._flights[0]
            landed(first)
            self._flights.popleft()
            self.acked = first.effects.next_offset
            self.in_flight -= first.effects.records
            self._count_in_flight(-first.n_bytes)
            self._check_offsets()

    def commit(self, offset: int) -> None:
        """Records that the group has committed `offset`."""
        self.committed = max(self.committed, offset)
        self._check_offsets()

    def in_the_air(self) -> list[Effects]:
        """Effects that are in flight."""
        return [flight.effects for flight in self._flights]

    def late_replies(self, seconds: float) -> set[str]:
        """Reply-to topics of effects that are still unacknowledged at this time."""
        before = time.perf_counter() - seconds
        return {topic for each in self.in_the_air() if each.published_at <= before for topic in each.replies}

    def rewind(self) -> int:
        """Drops unacknowledged records, which are fetched again from `acked`; returns their number."""
        self._require("running", "draining")
        return self._forget()

    def _forget(self) -> int:
        forgotten = self.pending
        self._drop_queue()
        self._flights.clear()
        self._count_in_flight(-self.in_flight_bytes)
        self.taken = self.in_flight = 0
        self.next_fetch = self.next_take = self.departed = self.acked
        self._check_offsets()
        self.doubt()
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
    def flying(self) -> bool:
        """Whether anything is in flight, including effects without records."""
        return bool(self._flights)

    def owns(self, flight: Flight) -> bool:
        """Whether a range is still in flight; it is not after a rewind."""
        return flight in self._flights

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


def bytes_of(records: Records) -> int:
    """Approximate memory that fetched records take."""
    payload = sum([len(record.value or b"") + len(record.key or b"") for record in records])
    headers = sum([_header_bytes(record) for record in records if record.headers])
    return payload + headers + RECORD_OVERHEAD_BYTES * len(records)


def _header_bytes(record: Record) -> int:
    size = sum([len(name) + len(value or b"") for name, value in record.headers])
    return size + HEADER_OVERHEAD_BYTES * len(record.headers)

"""A stateful property test of a partition against plain lists: with any order of fetch, take, publish, acknowledge,
rewind and close, each record of the log is processed once, in order, and counted correctly."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.partition import RECORD_OVERHEAD_BYTES, InFlightBatch, Usage
from inferd.streams.telemetry.counters import Tally
from tests.fixtures.lane import running
from tests.fixtures.record_blocks import block_of

TP = TopicPartition("ns.t.requests", 0)
SIZES = st.sampled_from([0, 1, 199, 200, 201, 2_000])
AROUND = st.sampled_from([0, -1, 1])
BACK = st.sampled_from([0, 0, 0, 1, 3])
BATCHES = st.integers(0, 2)
LOST = st.sampled_from([False, False, False, True])

LogRecord = ConsumerRecord[Any, Any]


def size_of(records: list[LogRecord]) -> int:
    return sum(len(record.value or b"") + RECORD_OVERHEAD_BYTES for record in records)


class PartitionMachine(RuleBasedStateMachine):
    """A log with gaps, a fetcher that repeats and loses records, a broker that acknowledges in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[LogRecord] = []
        self.end = 0
        self.fetcher = 0
        """Offset that the fetcher requests next."""
        self.usage = Usage()
        self.partition = running(TP, usage=self.usage)
        self.acked: list[LogRecord] = []
        self.in_flight_batches: list[tuple[InFlightBatch, list[LogRecord], int]] = []
        """(batch, its records, number of missing acknowledgements)"""
        self.taken: list[LogRecord] = []
        self.queue: list[LogRecord] = []
        self.committed = self.sent_commit = 0
        self.late: list[InFlightBatch] = []
        """Batches dropped by a rewind, once per missing acknowledgement."""

    # ------------------------------------------------------------------ log and fetcher

    @rule(
        gap=st.sampled_from([0, 0, 2]), sizes=st.lists(SIZES, max_size=4), n=st.integers(1, 6), back=BACK, lost=LOST,
        as_block=st.booleans(),
    )  # fmt: skip
    def fetch(self, gap: int, sizes: list[int], n: int, back: int, lost: bool, as_block: bool) -> None:
        """Appends to the log and fetches; an interrupted fetch loses the records that it has read."""
        self._append(gap, sizes)
        if not (fetched := self._from(self.fetcher - back)[:n]):
            return
        expected, self.fetcher = self.partition.next_fetch, fetched[-1].offset + 1
        if lost:
            self.partition.mark_suspect()
        elif (seek := self.partition.offer(block_of(fetched) if as_block else fetched)) is not None:
            assert seek == expected
            self.fetcher = seek
        else:
            self.queue += [record for record in fetched if record.offset >= expected]

    def _append(self, gap: int, sizes: list[int]) -> None:
        self.end += gap
        for size in sizes:
            self.log.append(ConsumerRecord(TP.topic, 0, self.end, 0, 0, None, b"x" * size, None, -1, size, ()))
            self.end += 1

    @precondition(lambda self: not self._pending() and not self.in_flight_batches)
    @rule(batches=BATCHES)
    def idle(self, batches: int) -> None:
        """Output batches without a record; if the fetcher is at the end of the log, they commit past markers."""
        if not self._from(self.fetcher):
            self.fetcher, expected = self.end, self.partition.next_fetch
            if (seek := self.partition.skip_to(self.end)) is not None:
                assert seek == expected
                self.fetcher = seek
        self._publish(OutputBatch(self.partition.next_take, 0, ()), [], batches)

    def _from(self, offset: int) -> list[LogRecord]:
        return [record for record in self.log if record.offset >= offset]

    # ------------------------------------------------------------------ taken and published

    @precondition(lambda self: self.queue or self.taken)
    @rule(data=st.data(), more_rows=AROUND, more_bytes=AROUND, batches=BATCHES, n_bytes=st.integers(0, 100))
    def score(self, data: st.DataObject, more_rows: int, more_bytes: int, batches: int, n_bytes: int) -> None:
        """Publishes more of the last micro-batch, or takes one, puts some of it back, and publishes some."""
        if not self.taken:
            self._take(data, more_rows, more_bytes)
        if n := data.draw(st.integers(0, len(self.taken))):
            done, self.taken = self.taken[:n], self.taken[n:]
            self._publish(OutputBatch(done[-1].offset + 1, n, (), Tally(bytes_out=n_bytes)), done, batches)

    def _take(self, data: st.DataObject, more_rows: int, more_bytes: int) -> None:
        """The limits differ by at most one from the size of some part of the queue."""
        places = st.integers(1, len(self.queue))
        rows_max = data.draw(places) + more_rows
        bytes_max = size_of(self.queue[: data.draw(places)]) + more_bytes
        taken = self.partition.take(rows_max, bytes_max)
        self.taken = self._fitting(rows_max, bytes_max)
        assert [(each.offset, each.value) for each in taken] == [(each.offset, each.value) for each in self.taken]
        del self.queue[: len(self.taken)]
        kept = data.draw(st.integers(0, len(self.taken)))
        if back := self.taken[kept:]:
            self.partition.put_back(taken[kept:])
            self.queue, self.taken = back + self.queue, self.taken[: -len(back)]

    def _fitting(self, rows_max: int, bytes_max: int) -> list[LogRecord]:
        if rows_max <= 0 or bytes_max <= 0:
            return []
        ends = accumulate(size_of([record]) for record in self.queue[:rows_max])
        return self.queue[: max(1, len([end for end in ends if end <= bytes_max]))]

    def _publish(self, output: OutputBatch, done: list[LogRecord], batches: int) -> None:
        batch = self.partition.start_publishing(output)
        self.in_flight_batches.append((batch, done, batches))
        for _ in range(batches):
            batch.sent()
        batch.published()
        self._complete_batches()

    # ------------------------------------------------------------------ acknowledged and committed

    @precondition(lambda self: any(lacking for *_, lacking in self.in_flight_batches))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        n = data.draw(st.sampled_from([n for n, (*_, lacking) in enumerate(self.in_flight_batches) if lacking]))
        batch, done, lacking = self.in_flight_batches[n]
        self.in_flight_batches[n] = batch, done, lacking - 1
        batch.acknowledged()
        self._complete_batches()

    def _complete_batches(self) -> None:
        completed: list[InFlightBatch] = []
        self.partition.complete_batches(completed.append)
        for batch in completed:
            expected, done, lacking = self.in_flight_batches.pop(0)
            assert (batch, lacking) == (expected, 0)
            self.acked += done
        assert not (self.in_flight_batches and self.in_flight_batches[0][2] == 0), "the first batch is complete"

    @rule()
    def commit(self) -> None:
        """The commit that was sent last is answered, and the next one is sent."""
        self.partition.commit(self.sent_commit)
        self.committed, self.sent_commit = max(self.committed, self.sent_commit), self.partition.acked

    # ------------------------------------------------------------------ failed, revoked, taken over

    @precondition(lambda self: self._pending())
    @rule(seeks=st.booleans())
    def rewind(self, seeks: bool) -> None:
        assert self.partition.rewind() == self._pending()
        self._forget()
        if seeks:
            self.fetcher = self.partition.acked

    @precondition(lambda self: self._pending())
    @rule(data=st.data(), fails=st.booleans(), waits=st.integers(0, 4), same_worker=st.booleans())
    def revoke_and_take_over(self, data: st.DataObject, fails: bool, waits: int, same_worker: bool) -> None:
        """The same worker does not repeat acknowledged records, committed or not."""
        assert (self.partition.drain(), self.partition.drain()) == (len(self.queue), 0)
        self.queue = []
        self.partition.drop_taken(self.taken)
        self.taken = []
        for _ in range(min(waits, sum(lacking for *_, lacking in self.in_flight_batches))):
            self.acknowledge(data)
        if fails:
            self.rewind(seeks=False)
        self._close()
        self.fetcher = self.partition.acked if same_worker else self.partition.committed
        self.partition = running(TP, self.fetcher, self.usage)
        self.acked = [record for record in self.acked if record.offset < self.fetcher]
        self.committed = self.sent_commit = self.fetcher

    def _close(self) -> None:
        assert (self.partition.close(), self.partition.close()) == (self._pending(), 0)
        self._forget()
        for batch in self.late:
            batch.acknowledged()
            self._complete_batches()

    def _pending(self) -> int:
        return len(self.queue) + len(self.taken) + sum(len(done) for _, done, _ in self.in_flight_batches)

    def _forget(self) -> None:
        self.late += [batch for batch, _, lacking in self.in_flight_batches for _ in range(lacking)]
        self.queue, self.taken, self.in_flight_batches = [], [], []

    # ------------------------------------------------------------------ always

    @invariant()
    def records_are_processed_once_in_order_without_gaps(self) -> None:
        held = self.acked + self._in_flight() + self.taken + self.queue
        assert held == self.log[: len(held)]
        assert len(held) == len([record for record in self.log if record.offset < self.partition.next_fetch])

    @invariant()
    def counters_are_right(self) -> None:
        p = self.partition
        assert (p.queued, p.queued_bytes) == (len(self.queue), size_of(self.queue))
        assert (p.taken, p.in_flight, p.pending) == (len(self.taken), len(self._in_flight()), self._pending())
        assert p.in_flight_bytes == sum(batch.n_bytes for batch, *_ in self.in_flight_batches)
        used = self.usage.queued_bytes, self.usage.in_flight_bytes
        assert used == (p.queued_bytes, p.in_flight_bytes), "partitions that are closed use nothing"
        assert p.has_in_flight == bool(self.in_flight_batches)

    @invariant()
    def offsets_separate_the_records(self) -> None:
        p = self.partition
        assert self.committed == p.committed <= p.acked <= p.next_publish <= p.next_take <= p.next_fetch <= self.end
        held = [self.acked, self._in_flight(), self.taken, self.queue]
        boundaries = [p.acked, p.next_publish, p.next_take, p.next_fetch]
        for offset, before in zip(boundaries, held, strict=True):
            assert all(record.offset < offset for record in before)
        for offset, after in zip(boundaries[:-1], held[1:], strict=True):
            assert all(record.offset >= offset for record in after)

    def _in_flight(self) -> list[LogRecord]:
        return [record for _, done, _ in self.in_flight_batches for record in done]


TestPartitionMachine = PartitionMachine.TestCase
TestPartitionMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

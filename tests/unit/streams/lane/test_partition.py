"""The bookkeeping of one partition, step by step and against a model that keeps plain sets."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd.streams.lane.output_batch import Effects
from inferd.streams.lane.partition import (
    HEADER_OVERHEAD_BYTES,
    RECORD_OVERHEAD_BYTES,
    Flight,
    Partition,
    by_topic,
    bytes_of,
)

REQUESTS = TopicPartition("ns.t.requests", 0)


def record(offset: int, size: int = 10) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord("ns.t.requests", 0, offset, 0, 0, None, b"x" * size, None, -1, size, ())


def records(*offsets: int) -> list[ConsumerRecord[Any, Any]]:
    return [record(offset) for offset in offsets]


def offsets(taken: Any) -> list[int]:
    return [r.offset for r in taken]


def flight(partition: Partition, taken: Any) -> Flight:
    made = Flight(Effects(taken[-1].offset + 1, len(taken), ()), n_bytes=10)
    partition.depart(made)
    return made


def landed(partition: Partition) -> list[Flight]:
    """The flights that are done."""
    done: list[Flight] = []
    partition.land(done.append)
    return done


def test_takes_in_order_across_fetches_and_splits_by_rows() -> None:
    partition = Partition(REQUESTS, 1, 5)
    partition.offer(records(5, 6, 7))
    partition.offer(records(8, 9))
    assert offsets(partition.take(4, 10_000)) == [5, 6, 7, 8]
    assert offsets(partition.take(4, 10_000)) == [9]
    assert offsets(partition.take(4, 10_000)) == []
    assert (partition.queued, partition.queued_bytes, partition.next_take) == (0, 0, 10)


def test_bytes_bound_what_is_taken_but_one_record_always_goes() -> None:
    partition = Partition(REQUESTS, 1, 0)
    partition.offer([record(0, 10), record(1, 5_000), record(2, 10)])
    two = bytes_of(records(0)) + 10
    assert offsets(partition.take(10, two)) == [0]
    assert offsets(partition.take(10, two)) == [1]
    assert offsets(partition.take(10, two)) == [2]


@pytest.mark.parametrize("behind", [0, 1])
def test_a_record_beyond_the_bound_is_taken_alone_and_leaves_nothing_behind(behind: int) -> None:
    """It once left an empty batch in the queue, and the next take raised."""
    partition = Partition(REQUESTS, 1, 0)
    partition.offer([record(0, 5_000), *records(*range(1, 1 + behind))])
    assert offsets(partition.take(10, 1_000)) == [0]
    assert offsets(partition.take(10, 1_000)) == [*range(1, 1 + behind)]
    assert offsets(partition.take(10, 1_000)) == []
    assert (partition.queued, partition.queued_bytes) == (0, 0)


def test_headers_count_as_bytes() -> None:
    plain, with_headers = record(0), replace(record(0), headers=(("name", b"x" * 1_000),))
    assert bytes_of((with_headers,)) == bytes_of((plain,)) + len("name") + 1_000 + HEADER_OVERHEAD_BYTES


def test_a_flight_whose_landing_raises_is_not_acknowledged() -> None:
    partition = Partition(REQUESTS, 1, 0)
    partition.offer(records(0, 1))
    first, second = flight(partition, partition.take(1, 10_000)), flight(partition, partition.take(1, 10_000))
    first.published = second.published = True

    def disk_full(_: Flight) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        partition.land(disk_full)
    assert (partition.acked, partition.in_flight) == (0, 2)


def test_records_seen_before_are_dropped() -> None:
    partition = Partition(REQUESTS, 1, 0)
    partition.offer(records(0, 1, 2))
    assert partition.offer(records(1, 2, 3)) is None
    assert offsets(partition.take(9, 10_000)) == [0, 1, 2, 3]


def test_a_gap_in_the_first_fetch_seeks_back_once_and_is_then_real() -> None:
    partition = Partition(REQUESTS, 1, 10)
    assert partition.offer(records(12, 13)) == 10
    assert partition.queued == 0
    assert partition.offer(records(12, 13)) is None
    assert offsets(partition.take(9, 10_000)) == [12, 13]


def test_a_gap_after_a_whole_fetch_is_real_at_once() -> None:
    partition = Partition(REQUESTS, 1, 0)
    partition.offer(records(0))
    assert partition.offer(records(5)) is None
    assert offsets(partition.take(9, 10_000)) == [0, 5]


def test_only_a_contiguous_range_is_acknowledged() -> None:
    partition = Partition(REQUESTS, 1, 0)
    partition.offer(records(0, 1, 2, 3))
    first, second = flight(partition, partition.take(2, 10_000)), flight(partition, partition.take(2, 10_000))
    second.published = True
    assert landed(partition) == []
    assert partition.acked == 0
    first.published, first.unacknowledged = True, 1
    assert landed(partition) == []
    first.unacknowledged = 0
    assert landed(partition) == [first, second]
    assert partition.acked == 4
    assert (partition.in_flight, partition.in_flight_bytes) == (0, 0)


def test_a_rewind_forgets_what_is_not_acknowledged() -> None:
    partition = Partition(REQUESTS, 1, 0)
    partition.offer(records(0, 1, 2, 3, 4))
    flown = flight(partition, partition.take(2, 10_000))
    partition.take(1, 10_000)
    assert partition.rewind() == 5
    flown.published = True
    assert landed(partition) == []
    assert (partition.acked, partition.next_fetch, partition.pending) == (0, 0, 0)
    assert not partition.owns(flown)
    partition.offer(records(0, 1))
    assert offsets(partition.take(9, 10_000)) == [0, 1]


SIZES = st.sampled_from([0, 1, 399, 400, 401, 599, 600, 601, 2_000])
"""Of values, around the bounds below; a record takes `RECORD_OVERHEAD_BYTES` more."""
BOUNDS = st.sampled_from([1, 200, 599, 600, 601, 800, 1_200, 10_000])


def test_logs_name_partitions_by_topic() -> None:
    tps = [TopicPartition("b", 1), TopicPartition("a", 2), TopicPartition("b", 0)]
    assert by_topic(tps) == {"a": [2], "b": [0, 1]}


def test_markers_are_passed_by_at_once_where_no_record_can_be_missing() -> None:
    partition = Partition(REQUESTS, 1, 5)
    partition.offer(records(5))
    partition.take(1, 10_000)
    flight(partition, records(5)).published = True
    assert len(landed(partition)) == 1
    assert partition.pass_by(6) is None, "the fetcher stands where it should"
    assert partition.next_fetch == 6
    assert partition.pass_by(9) is None
    assert (partition.next_fetch, partition.next_take, partition.acked) == (9, 9, 6)


@pytest.mark.parametrize("doubted", [False, True])
def test_what_a_cut_fetch_has_lost_is_never_taken_for_markers(doubted: bool) -> None:
    partition = Partition(REQUESTS, 1, 5)
    assert partition.suspect, "the first fetch may have come before the partition was open"
    assert partition.pass_by(8) == 5
    if doubted:
        partition.doubt()
        assert partition.pass_by(8) == 5, "what was fetched again may be lost as well"
    assert partition.offer(records(5, 6, 7)) is None
    assert offsets(partition.take(9, 10_000)) == [5, 6, 7]


class PartitionMachine(RuleBasedStateMachine):
    """A log without gaps is fetched, taken, published and acknowledged in any order; nothing is lost or done twice.

    `queue` is the queue as a plain list: what is taken is its longest prefix within the bounds, or its first record.
    """

    def __init__(self) -> None:
        super().__init__()
        self.partition = Partition(REQUESTS, 1, 0)
        self.sizes: dict[int, int] = {}
        self.queue: list[int] = []
        self.fetch_at = 0
        self.taken: list[Any] = []
        self.flights: list[Flight] = []
        self.acked: list[int] = []
        self.passed: set[int] = set()
        """Offsets of transaction markers."""

    @rule(sizes=st.lists(SIZES, min_size=1, max_size=6), back=st.integers(0, 3))
    def fetch(self, sizes: list[int], back: int) -> None:
        start, expected = max(0, self.fetch_at - back), self.partition.next_fetch
        places = [offset for offset in range(start, start + len(sizes)) if offset not in self.passed]
        fetched = [
            record(offset, self.sizes.setdefault(offset, size)) for offset, size in zip(places, sizes, strict=False)
        ]
        seek = self.partition.offer(fetched)
        if seek is None:
            self.queue += [r.offset for r in fetched if r.offset >= expected]
        self.fetch_at = max(start + len(sizes), self.partition.next_fetch) if seek is None else seek

    @precondition(lambda self: not self.taken and self.partition.next_fetch)
    @rule(rows_max=st.integers(1, 6), bytes_max=BOUNDS)
    def take(self, rows_max: int, bytes_max: int) -> None:
        expected = self._fitting(rows_max, bytes_max)
        self.taken = list(self.partition.take(rows_max, bytes_max))
        assert offsets(self.taken) == expected
        del self.queue[: len(expected)]

    def _fitting(self, rows_max: int, bytes_max: int) -> list[int]:
        ends = accumulate(self.sizes[offset] + RECORD_OVERHEAD_BYTES for offset in self.queue[:rows_max])
        fitting = sum(end <= bytes_max for end in ends)
        return self.queue[: max(1, fitting)]

    @precondition(lambda self: self.taken)
    @rule(batches=st.integers(0, 2))
    def publish(self, batches: int) -> None:
        made = flight(self.partition, self.taken)
        made.unacknowledged, made.published = batches, True
        self.flights.append(made)
        self.taken = []
        self._land()

    @precondition(lambda self: self.flights)
    @rule(pick=st.randoms(use_true_random=False))
    def acknowledge(self, pick: Any) -> None:
        waiting = [f for f in self.flights if f.unacknowledged]
        if waiting:
            pick.choice(waiting).unacknowledged -= 1
            self._land()

    @precondition(lambda self: self.taken or self.flights)
    @rule()
    def rewind(self) -> None:
        self.partition.rewind()
        self.fetch_at = self.partition.acked
        self.queue, self.taken, self.flights = [], [], []

    @precondition(lambda self: not (self.queue or self.taken or self.flights))
    @rule(markers=st.integers(1, 3))
    def pass_markers(self, markers: int) -> None:
        """The fetcher stands past markers; where it may have lost records, it has to go back and bring them first."""
        at = self.partition.next_fetch
        seek = self.partition.pass_by(at + markers)
        if seek is not None:
            assert (seek, self.partition.suspect, self.partition.next_fetch) == (at, True, at)
            assert self.partition.pass_by(at + markers) is None, "the second time there is nothing but markers"
        made = Flight(Effects(at + markers, 0, ()), n_bytes=0, published=True)
        self.partition.depart(made)
        self.passed |= {*range(at, at + markers)}
        self.fetch_at = at + markers
        assert landed(self.partition) == [made]

    @precondition(lambda self: self.queue)
    @rule()
    def close_and_be_taken_over(self) -> None:
        assert self.partition.close() == len(self.queue)
        assert self.partition.take(10, 10_000) == []
        self.partition = Partition(REQUESTS, 1, self.partition.acked)
        self.fetch_at = self.partition.acked
        self.queue, self.taken, self.flights = [], [], []

    def _land(self) -> None:
        for done in landed(self.partition):
            end = done.effects.next_offset
            self.acked.extend(range(end - done.effects.records, end))
            self.flights.remove(done)

    @invariant()
    def every_offset_is_acknowledged_once_and_in_order(self) -> None:
        assert self.acked == [offset for offset in range(self.partition.acked) if offset not in self.passed]

    @invariant()
    def offsets_stay_in_order(self) -> None:
        p = self.partition
        assert p.next_fetch >= p.next_take >= p.acked >= p.committed
        assert p.pending == p.next_fetch - p.acked

    @invariant()
    def the_queue_is_counted(self) -> None:
        sizes = [self.sizes[offset] + RECORD_OVERHEAD_BYTES for offset in self.queue]
        assert (self.partition.queued, self.partition.queued_bytes) == (len(sizes), sum(sizes))


TestPartitionMachine = PartitionMachine.TestCase
TestPartitionMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

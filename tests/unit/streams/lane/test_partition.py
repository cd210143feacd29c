"""One partition: its states, and its bookkeeping step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.partition import (
    HEADER_OVERHEAD_BYTES,
    NEXT_STATES,
    InFlightBatch,
    Partition,
    PartitionError,
    State,
    by_topic,
    bytes_of,
)
from tests.fixtures.lane import running

REQUESTS = TopicPartition("ns.t.requests", 0)


def record(offset: int, size: int = 10) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord("ns.t.requests", 0, offset, 0, 0, None, b"x" * size, None, -1, size, ())


def records(*offsets: int) -> list[ConsumerRecord[Any, Any]]:
    return [record(offset) for offset in offsets]


def offsets(taken: Any) -> list[int]:
    return [r.offset for r in taken]


def start_batch(partition: Partition, taken: Any) -> InFlightBatch:
    return partition.start_publishing(OutputBatch(taken[-1].offset + 1, len(taken), ()))


def acked_batches(partition: Partition) -> list[InFlightBatch]:
    """The batches that are complete."""
    done: list[InFlightBatch] = []
    partition.complete_batches(done.append)
    return done


def test_takes_in_order_across_fetches_and_splits_by_rows() -> None:
    partition = running(REQUESTS, 5)
    partition.offer(records(5, 6, 7))
    partition.offer(records(8, 9))
    assert offsets(partition.take(4, 10_000)) == [5, 6, 7, 8]
    assert offsets(partition.take(4, 10_000)) == [9]
    assert offsets(partition.take(4, 10_000)) == []
    assert (partition.queued, partition.queued_bytes, partition.next_take) == (0, 0, 10)


def test_bytes_limit_what_is_taken_but_one_record_is_always_taken() -> None:
    partition = running(REQUESTS)
    partition.offer([record(0, 10), record(1, 5_000), record(2, 10)])
    two = bytes_of(records(0)) + 10
    assert offsets(partition.take(10, two)) == [0]
    assert offsets(partition.take(10, two)) == [1]
    assert offsets(partition.take(10, two)) == [2]


@pytest.mark.parametrize("behind", [0, 1])
def test_a_record_beyond_the_limit_is_taken_alone_and_leaves_no_empty_batch(behind: int) -> None:
    """Regression: an empty batch was left in the queue, and the next `take` raised."""
    partition = running(REQUESTS)
    partition.offer([record(0, 5_000), *records(*range(1, 1 + behind))])
    assert offsets(partition.take(10, 1_000)) == [0]
    assert offsets(partition.take(10, 1_000)) == [*range(1, 1 + behind)]
    assert offsets(partition.take(10, 1_000)) == []
    assert (partition.queued, partition.queued_bytes) == (0, 0)


def test_headers_count_as_bytes() -> None:
    plain, with_headers = record(0), replace(record(0), headers=(("name", b"x" * 1_000),))
    assert bytes_of((with_headers,)) == bytes_of((plain,)) + len("name") + 1_000 + HEADER_OVERHEAD_BYTES


def test_a_batch_whose_callback_raises_is_not_acknowledged() -> None:
    partition = running(REQUESTS)
    partition.offer(records(0, 1))
    first, second = start_batch(partition, partition.take(1, 10_000)), start_batch(partition, partition.take(1, 10_000))
    first.published()
    second.published()

    def disk_full(_: InFlightBatch) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        partition.complete_batches(disk_full)
    assert (partition.acked, partition.in_flight) == (0, 2)


def test_records_seen_before_are_dropped() -> None:
    partition = running(REQUESTS)
    partition.offer(records(0, 1, 2))
    assert partition.offer(records(1, 2, 3)) is None
    assert offsets(partition.take(9, 10_000)) == [0, 1, 2, 3]


def test_a_gap_in_the_first_fetch_seeks_back_once_and_is_then_real() -> None:
    partition = running(REQUESTS, 10)
    assert partition.offer(records(12, 13)) == 10
    assert partition.queued == 0
    assert partition.offer(records(12, 13)) is None
    assert offsets(partition.take(9, 10_000)) == [12, 13]


def test_a_gap_after_a_whole_fetch_is_real_at_once() -> None:
    partition = running(REQUESTS)
    partition.offer(records(0))
    assert partition.offer(records(5)) is None
    assert offsets(partition.take(9, 10_000)) == [0, 5]


def test_only_a_contiguous_range_is_acknowledged() -> None:
    partition = running(REQUESTS)
    partition.offer(records(0, 1, 2, 3))
    first, second = start_batch(partition, partition.take(2, 10_000)), start_batch(partition, partition.take(2, 10_000))
    second.published()
    assert acked_batches(partition) == []
    assert partition.acked == 0
    first.sent()
    first.published()
    assert acked_batches(partition) == []
    first.acknowledged()
    assert acked_batches(partition) == [first, second]
    assert partition.acked == 4
    assert (partition.in_flight, partition.in_flight_bytes) == (0, 0)


def test_a_rewind_drops_unacknowledged_records() -> None:
    partition = running(REQUESTS)
    partition.offer(records(0, 1, 2, 3, 4))
    batch = start_batch(partition, partition.take(2, 10_000))
    partition.take(1, 10_000)
    assert partition.rewind() == 5
    batch.published()
    assert acked_batches(partition) == []
    assert (partition.acked, partition.next_fetch, partition.pending) == (0, 0, 0)
    assert not partition.owns(batch)
    partition.offer(records(0, 1))
    assert offsets(partition.take(9, 10_000)) == [0, 1]


def test_logs_name_partitions_by_topic() -> None:
    tps = [TopicPartition("b", 1), TopicPartition("a", 2), TopicPartition("b", 0)]
    assert by_topic(tps) == {"a": [2], "b": [0, 1]}


def test_markers_are_skipped_at_once_if_no_record_can_be_missing() -> None:
    partition = running(REQUESTS, 5)
    partition.offer(records(5))
    partition.take(1, 10_000)
    start_batch(partition, records(5)).published()
    assert len(acked_batches(partition)) == 1
    assert partition.skip_to(6) is None, "the position is the expected offset"
    assert partition.next_fetch == 6
    assert partition.skip_to(9) is None
    assert (partition.next_fetch, partition.next_take, partition.acked) == (9, 9, 6)


@pytest.mark.parametrize("suspect", [False, True])
def test_records_lost_by_an_interrupted_fetch_are_not_mistaken_for_markers(suspect: bool) -> None:
    partition = running(REQUESTS, 5)
    assert partition.suspect, "the first fetch may have been made before the partition was open"
    assert partition.skip_to(8) == 5
    if suspect:
        partition.mark_suspect()
        assert partition.skip_to(8) == 5, "records of the second fetch may be lost as well"
    assert partition.offer(records(5, 6, 7)) is None
    assert offsets(partition.take(9, 10_000)) == [5, 6, 7]


# States

ENTER: dict[State, Callable[[Partition], object]] = {
    "restoring": Partition.restore,
    "running": lambda partition: partition.run(0),
    "draining": Partition.drain,
    "closed": Partition.close,
}
PATHS: dict[State, list[State]] = {
    "created": [],
    "restoring": ["restoring"],
    "running": ["restoring", "running"],
    "draining": ["restoring", "running", "draining"],
    "closed": ["closed"],
}


def in_state(state: State) -> Partition:
    partition = Partition(REQUESTS)
    for each in PATHS[state]:
        ENTER[each](partition)
    assert partition.state == state
    return partition


@pytest.mark.parametrize("after", ENTER)
@pytest.mark.parametrize("before", get_args(State))
def test_only_allowed_transitions_are_made(before: State, after: State) -> None:
    partition = in_state(before)
    if after in NEXT_STATES[before]:
        ENTER[after](partition)
        assert partition.state == after
    else:
        with pytest.raises(PartitionError, match=f"partition 0 of ns.t.requests: cannot be {after} after {before}"):
            ENTER[after](partition)
        assert partition.state == before


USES: dict[str, tuple[Callable[[Partition], object], set[State]]] = {
    "offer": (lambda partition: partition.offer(records(0)), {"running"}),
    "take": (lambda partition: partition.take(1, 1), {"running"}),
    "put_back": (lambda partition: partition.put_back(records(0)), {"running"}),
    "skip_to": (lambda partition: partition.skip_to(9), {"running"}),
    "drop_taken": (lambda partition: partition.drop_taken([]), {"draining"}),
    "start_publishing": (lambda partition: partition.start_publishing(OutputBatch(0, 0, ())), {"running", "draining"}),
    "rewind": (Partition.rewind, {"running", "draining"}),
}


@pytest.mark.parametrize("state", get_args(State))
@pytest.mark.parametrize("use", USES)
def test_methods_raise_in_states_that_do_not_allow_them(use: str, state: State) -> None:
    call, allowed = USES[use]
    partition = in_state(state)
    if state in allowed:
        call(partition)
    else:
        with pytest.raises(PartitionError, match=f"is {state}, and has to be"):
            call(partition)
        assert (partition.pending, partition.next_fetch, partition.has_in_flight) == (0, 0, False)


def test_a_close_drops_everything_once_and_ignores_late_acknowledgements() -> None:
    partition = running(REQUESTS)
    partition.offer(records(0, 1, 2, 3, 4))
    first, second = start_batch(partition, partition.take(1, 10_000)), start_batch(partition, partition.take(2, 10_000))
    first.published()
    second.published()
    second.sent()
    partition.take(1, 10_000)
    assert acked_batches(partition) == [first]
    assert partition.close() == 4
    assert partition.close() == 0
    second.acknowledged()
    assert acked_batches(partition) == []
    partition.commit(1)
    assert (partition.acked, partition.committed, partition.pending, partition.queued_bytes) == (1, 1, 0, 0)
    assert (partition.in_flight_bytes, partition.has_in_flight) == (0, False)


@pytest.mark.parametrize("offset", [1, 5])
def test_an_offset_that_is_not_acknowledged_is_never_committed(offset: int) -> None:
    partition = running(REQUESTS)
    partition.offer(records(0, 1))
    with pytest.raises(PartitionError, match=f"offsets are out of order: next_fetch=2 .* committed={offset}"):
        partition.commit(offset)


def test_output_of_records_that_were_not_taken_is_rejected() -> None:
    partition = running(REQUESTS)
    partition.offer(records(0, 1))
    with pytest.raises(PartitionError, match=r"offsets are out of order: .* next_take=0 next_publish=2"):
        start_batch(partition, records(0, 1))


def test_markers_are_not_skipped_while_records_are_pending() -> None:
    partition = running(REQUESTS)
    partition.offer(records(0))
    with pytest.raises(PartitionError, match="cannot move to offset 5: 1 records are pending"):
        partition.skip_to(5)


def test_a_committed_offset_never_decreases() -> None:
    partition = running(REQUESTS)
    partition.offer(records(0, 1))
    start_batch(partition, partition.take(2, 10_000)).published()
    acked_batches(partition)
    partition.commit(2)
    partition.commit(1)
    assert partition.committed == 2

"""How partitions share a micro-batch, and the memory for queued records."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from inferd.streams.lane.owned_partitions import OwnedPartitions
from inferd.streams.lane.partition import Partition, bytes_of
from inferd.streams.lane.scheduling import (
    PARTITION_BYTES_MIN,
    first_per_unit,
    share_out,
    with_room,
    without_room,
)
from tests.fixtures.lane import running

PLENTY = 1 << 40


def partition(number: int, queued: int) -> Partition:
    made = running(TopicPartition("requests", number))
    made.offer([record(offset, 10) for offset in range(queued)])
    return made


def record(offset: int, size: int) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord("requests", 0, offset, 0, 0, None, b"x" * size, None, -1, size, ())


def owning(queued: dict[TopicPartition, int]) -> OwnedPartitions:
    """Partitions with this many records; each topic has a tenant of the same name."""
    processors: Any = {tp.topic: SimpleNamespace(tenant=tp.topic) for tp in queued}
    owned = OwnedPartitions(processors)
    owned.replace({tp: owned.make(tp) for tp in queued}, {tp.topic for tp in queued})
    for tp, count in queued.items():
        owned[tp].restore()
        owned[tp].run(0)
        owned[tp].offer([record(offset, PARTITION_BYTES_MIN // 20) for offset in range(count)])
    return owned


def shares(queued: list[int], rows: int, size: int = PLENTY) -> dict[int, int]:
    ready = [partition(number, count) for number, count in enumerate(queued)]
    return {taken.tp.partition: len(records) for taken, records in share_out(ready, rows, size)}


@pytest.mark.parametrize(
    ("queued", "expected"),
    [
        ([5], {0: 5}),
        ([50], {0: 12}),
        ([3, 4, 5], {0: 3, 1: 4, 2: 5}),
        ([50, 50, 50], {0: 12}),
        ([50, 1, 50], {1: 1, 0: 11}),
        ([6, 50, 4], {2: 4, 0: 6, 1: 2}),
    ],
)
def test_long_ranges_of_few_and_all_that_small_ones_have(queued: list[int], expected: dict[int, int]) -> None:
    assert shares(queued, 12) == expected


def test_bytes_limit_it_like_rows() -> None:
    size = bytes_of([record(0, 10)])
    assert shares([10, 10], 1_000, 4 * size) == {0: 4}
    assert shares([10, 2], 1_000, 4 * size) == {1: 2, 0: 2}
    assert shares([10, 10], 1_000, 1) == {0: 1}, "one that exceeds the limit is taken alone"


@given(queued=st.lists(st.integers(1, 30), min_size=1, max_size=8), rows=st.integers(1, 60))
def test_the_limits_are_used_fully_and_the_first_partition_gets_records(queued: list[int], rows: int) -> None:
    ready = [partition(number, count) for number, count in enumerate(queued)]
    taken = share_out(ready, rows, PLENTY)
    assert sum(len(records) for _, records in taken) == min(rows, sum(queued))
    assert ready[0] in [each for each, _ in taken]
    even = [each for each, count in zip(ready, queued, strict=True) if count <= rows // len(ready)]
    assert not any(each.queued for each in even), "small ones are never delayed"


def test_one_partition_per_unit_and_no_busy_unit() -> None:
    a, b, c = (partition(number, 1) for number in range(3))
    assert first_per_unit([(a, "x"), (b, "y"), (c, "x")], ()) == [a, b]
    assert first_per_unit([(a, "x"), (b, "y"), (c, "x")], {"x"}) == [b]


def test_a_partition_has_no_room_once_its_share_is_used() -> None:
    full, empty, foreign = (TopicPartition("requests", number) for number in (0, 1, 9))
    owned = owning({full: 30, empty: 0})
    assert without_room([*owned, foreign], owned, 2 * PARTITION_BYTES_MIN) == {full, foreign}
    assert without_room(owned, owned, 4 * PARTITION_BYTES_MIN) == set()
    assert without_room(owned, owned, PARTITION_BYTES_MIN) == {full, empty}, "the buffer is full"


@given(
    used=st.dictionaries(st.integers(0, 19).map(str), st.just(0) | st.integers(0, 2_000), min_size=1),
    bytes_max=st.integers(100, 1_000),
)
def test_every_tenant_has_its_share_whatever_the_others_use(used: dict[str, int], bytes_max: int) -> None:
    part, room = bytes_max // 2 // len(used), with_room(used, bytes_max)
    assert {tenant for tenant, each in used.items() if each < part} <= room
    if all(each >= part for each in used.values()) and sum(used.values()) >= bytes_max:
        assert room == set()


def test_one_tenant_alone_has_everything() -> None:
    assert with_room({"a": 999}, 1_000) == {"a"}
    assert with_room({"a": 1_000}, 1_000) == set()


def test_a_tenant_with_a_backlog_leaves_the_others_room() -> None:
    backlog, idle = TopicPartition("noisy", 0), TopicPartition("quiet", 0)
    owned = owning({backlog: 30, idle: 0})
    assert without_room(owned, owned, PARTITION_BYTES_MIN) == {backlog}
    owned[backlog].close()
    assert owned.usage["noisy"].queued_bytes == 0

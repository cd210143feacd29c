"""Quotas: never more than the rate and a burst, and nothing lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import QuotaExceededError
from inferd.streams.requests.quota import BURST_S, Quota, share_of
from tests.fixtures.lane import Bench, request, tp


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    st.floats(0.5, 200),
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 50)), max_size=30),
)
def test_no_more_passes_than_the_rate_and_one_burst(rate: float, steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    quota, passed = Quota(rate, clock=clock), 0
    for pause_s, count in steps:
        clock.now += pause_s
        records = [request(n) for n in range(count)]
        ready: Any = quota.within(records)
        assert list(ready) == records[: len(ready)]
        passed += len(ready)
        assert passed <= rate * clock.now + max(1.0, rate * BURST_S) + 1e-6


def test_bytes_are_counted_and_a_large_request_is_paid_later() -> None:
    clock = Clock()
    quota = Quota(bytes_per_s=100, clock=clock)
    quota.check(1_000)
    with pytest.raises(
        QuotaExceededError, match=r"\(100 bytes a second, of which this worker has 100%\) is used up: retry in 9\.1 s"
    ):
        quota.check(10)
    clock.now = 9.2
    quota.check(10)
    assert quota.refused == 1


def test_without_a_quota_everything_passes() -> None:
    quota = Quota()
    quota.check(10**9)
    assert not quota.limited


async def test_records_beyond_it_stay_in_their_partition_in_order(bench: Bench) -> None:
    clock = Clock()
    bench.broker.acknowledges = True
    bench.tenant.quota = Quota(requests_per_s=2, clock=clock)
    await bench.own(0)
    bench.lane.feed(tp(0), [request(offset) for offset in range(5)])
    await bench.until(lambda: len(bench.results()) == 2)
    await bench.until(lambda: bench.lane.partitions[tp(0)].pending == 3)
    clock.now = 1.0
    await bench.until(lambda: len(bench.results()) == 4)
    clock.now = 2.0
    await bench.until(lambda: len(bench.results()) == 5)
    assert [result["id"] for result in bench.results()] == [f"r0.{n}" for n in range(5)]
    assert bench.tenant.quota.delays >= 2
    await bench.until(lambda: bench.consumer.committed_offsets.get(tp(0)) == 5)


@given(
    st.floats(8, 200),
    st.lists(st.tuples(st.floats(0, 3), st.lists(st.integers(0, 3), min_size=4, max_size=4)), max_size=30),
)
def test_workers_together_pass_no_more_than_the_quota_while_partitions_move(
    rate: float, steps: list[tuple[float, list[int]]]
) -> None:
    """Each step assigns four partitions to four workers, all of which then score as much as they may."""
    clock, passed = Clock(), 0
    quotas = [Quota(rate, clock=clock) for _ in range(4)]
    owned = [0, 1, 2, 3]
    for number, quota in enumerate(quotas):
        quota.share_of_worker = lambda number=number: share_of(owned.count(number), 4)  # type: ignore[misc]
    moves = 0
    for pause_s, owners in steps:
        moves += sum(a != b for a, b in zip(owned, owners, strict=True))
        owned[:] = owners
        clock.now += pause_s
        for number in set(owned):
            passed += len(quotas[number].within([request(n) for n in range(400)]))
        # A worker that gets a partition continues with what it has; a burst may move with each of them.
        assert passed <= rate * clock.now + 4 * max(1.0, rate * BURST_S) * (1 + moves) + 1e-6


def test_a_change_of_the_share_grants_no_burst() -> None:
    clock, shares = Clock(), [1.0]
    quota = Quota(100, clock=clock)
    quota.share_of_worker = lambda: shares[-1]
    records = [request(n) for n in range(200)]
    assert len(quota.within(records)) == 100
    for share in (0.25, 1.0, 0.5, 1.0):
        shares.append(share)
        assert len(quota.within(records)) == 0
    clock.now = 0.5
    assert len(quota.within(records)) == 50


def test_the_share_of_a_worker() -> None:
    assert [share_of(owned, 4) for owned in range(5)] == [0.25, 0.25, 0.5, 0.75, 1.0]
    assert share_of(2, 0) == 1.0, "the topics are not known yet"


def test_what_was_used_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    quota = Quota(100, clock=clock)
    for second in range(30):
        clock.now = second
        quota.within([request(n) for n in range(20)])
    assert quota.used_per_s()[0] == 20
    clock.now = 60
    assert quota.used_per_s() == (0, 0)

"""Topics of routes come to a lane that runs, and leave it."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition

from inferd.streams.lane.at_least_once import AtLeastOnce
from inferd.streams.lane.exactly_once import ExactlyOnce
from inferd.streams.routes import RouteProcessor
from tests.fixtures.lane import Bench, request, tp
from tests.unit.streams.routes.test_processor import processor, record

SOURCE = TopicPartition("in", 0)
both = pytest.mark.parametrize(
    "bench", [AtLeastOnce, ExactlyOnce], indirect=True, ids=["at_least_once", "exactly_once"]
)


def scored(bench: Bench) -> list[Any]:
    return [sent for sent in bench.broker.sent if sent.topic == "out"]


def added(bench: Bench) -> RouteProcessor:
    """The processor of a route, which the lane now has."""
    route = processor()
    bench.routes.append(route)
    bench.lane.add([route])
    return route


async def fed(bench: Bench, tp: TopicPartition = SOURCE, count: int = 3) -> None:
    """Records of a partition are fetched, and processed to the end."""
    first = bench.lane.partitions[tp].next_fetch
    make = record if tp == SOURCE else request
    bench.lane.feed(tp, [make(offset) for offset in range(first, first + count)])
    await bench.until(lambda: bench.lane.partitions[tp].committed == first + count)


@both
async def test_a_topic_comes_and_leaves_and_comes_again(bench: Bench) -> None:
    bench.broker.acknowledges = True
    await bench.own(0)
    for _ in range(3):
        route = added(bench)
        assert "in" in bench.lane.topics
        assert bench.lane.full({SOURCE}) == {SOURCE}, "it is not owned yet"
        await bench.lane.acquire({tp(0), SOURCE})
        await fed(bench)
        await fed(bench, tp(0))
        await bench.lane.release({SOURCE})
        await bench.lane.remove({"in"})
        assert "in" not in bench.lane.topics
        assert not any(worker.tenant == route.tenant for worker in bench.lane._running)
        bench.lane.feed(SOURCE, [record(9)])
    assert sum(len(sent.records) for sent in scored(bench)) == 9
    assert len(bench.lane._running) == 1


@both
async def test_adding_and_removing_may_be_repeated(bench: Bench) -> None:
    bench.broker.acknowledges = True
    bench.lane.add([added(bench)])
    assert len(bench.lane._running) == 2, "one worker for requests, and one for the route"
    await bench.lane.acquire({SOURCE})
    await fed(bench)
    assert sum(len(sent.records) for sent in scored(bench)) == 3
    with pytest.raises(AssertionError, match="in has a processor"):
        added(bench)
    await bench.lane.release({SOURCE})
    for _ in range(2):
        await bench.lane.remove({"in", "never there"})
    assert len(bench.lane._running) == 1


@both
async def test_topics_come_and_leave_while_others_are_being_revoked_and_acquired(bench: Bench) -> None:
    """In the middle of a rebalance: partitions are revoked with records in flight, and not acquired again yet."""
    added(bench)
    await bench.lane.acquire({tp(0), SOURCE})
    bench.lane.feed(SOURCE, [record(0)])
    await bench.until(lambda: scored(bench))
    await bench.lane.release({tp(0), SOURCE})
    assert SOURCE not in bench.lane.partitions, "what was in flight is dropped after its deadline"
    await bench.lane.remove({"in"})
    added(bench)
    bench.broker.acknowledges = True
    await bench.lane.acquire({tp(0), SOURCE})
    await fed(bench)
    await fed(bench, tp(0))

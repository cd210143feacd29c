"""The service of routes: which ones run, and how their topics come to the lane and leave it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, cast

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.routes import Format, Route, Sink, Source
from inferd.schemas.topics import TenantTopics
from inferd.streams.kafka import Right
from inferd.streams.routes import RouteParts, RouteScorer, RouteService, RouteTable
from inferd.streams.routes import service as service_module
from tests.unit.daemon.test_route_checks import SETTINGS

ROUTE = Route("a", Source(["in"], Format("json")), "m", Sink("out"))
DEADLINE_S = 20.0


class FakeProcessor:
    """A processor of one source topic."""

    def __init__(self, topics: TenantTopics, topic: str, scorer: Any) -> None:
        self.tenant, self.topic, self.scorers = topics.tenant, topic, [scorer]

    def use(self, scorer: Any) -> None:
        self.scorers.append(scorer)


class World:
    """The service over fakes of the broker, the lane and the group. Faster than any broker: tests make the steps."""

    def __init__(self) -> None:
        self.table = RouteTable(("default",), DEFAULT_LIMITS)
        self.existing = {"in": 4, "in2": 4, "out": 4}
        self.watched, self.known = set[str](), set[str]()
        self.sinks = frozenset[str]()
        self.denied: set[Right] = set()
        self.is_stable = self.settled = True
        self.looks = 0
        self.lane_topics: dict[str, Any] = {}
        self.assigned = frozenset[TopicPartition]()
        self.calls: list[str] = []
        fake = cast(Any, self)
        parts = RouteParts(cast(Any, FakeProcessor), self.scorer)
        self.service = RouteService(SETTINGS, self.table, fake, fake, parts, self.lacking, lambda _tenant: True)

    # what the service asks of the broker

    def watch(self, names: Collection[str]) -> None:
        self.watched |= {*names}

    async def refresh(self) -> None:
        self.known = {*self.watched}

    def partitions_of(self, topic: str) -> int:
        return self.partitions.get(topic, 0)

    @property
    def partitions(self) -> dict[str, int]:
        return {topic: self.existing.get(topic, 0) for topic in self.known}

    async def lacking(self, rights: Collection[Right]) -> list[Right]:
        return [right for right in rights if right in self.denied]

    def scorer(self, tenant: str, route: Route) -> RouteScorer:
        return cast(RouteScorer, (tenant, route))

    # the lane and the group

    @property
    def stable(self) -> bool:
        self.looks += 1
        return self.is_stable

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self.lane_topics)

    def add(self, processors: Collection[Any]) -> None:
        for processor in processors:
            assert processor.topic not in self.lane_topics
            self.lane_topics[processor.topic] = processor
            self.calls.append(f"add {processor.topic}")

    async def remove(self, topics: Collection[str]) -> None:
        assert not {tp.topic for tp in self.assigned} & {*topics}, "its partitions are assigned"
        for topic in sorted(topics):
            del self.lane_topics[topic]
            self.calls.append(f"remove {topic}")

    async def change_topics(self, add: Collection[str], remove: Collection[str]) -> None:
        self.calls.append(f"subscribe +{sorted(add)} -{sorted(remove)}")

    # what a test does

    def set(self, *routes: Route) -> None:
        self.table.routes["default"].clear()
        self.table.routes["default"].update({route.name: route for route in routes})
        self.table.changed.set()

    async def step(self) -> list[str]:
        """One look at the routes; returns the calls that it led to."""
        self.calls.clear()
        fake = cast(Any, self)
        await self.service._step(fake, fake, lambda: None)
        return [*self.calls]

    def rebalance(self) -> None:
        """The group assigns what the lane reads, but for the topics that leave."""
        left = self.topics - self.service._leaving
        self.assigned = frozenset(TopicPartition(topic, 0) for topic in left)

    def reason(self, name: str = "a") -> str:
        return self.service.reasons.get(("default", name), "")


@pytest.fixture
def world() -> World:
    return World()


def changed(**changes: Any) -> Route:
    return msgspec.structs.replace(ROUTE, **changes)


async def test_a_route_comes_with_one_rebalance_and_leaves_with_one(world: World) -> None:
    world.set(ROUTE)
    assert await world.step() == ["add in", "subscribe +['in'] -[]"]
    world.rebalance()
    assert await world.step() == [], "nothing has changed"
    world.set()
    assert await world.step() == ["subscribe +[] -['in']"]
    assert await world.step() == [], "its partitions are still assigned"
    assert "in" in world.topics
    world.rebalance()
    assert await world.step() == ["remove in"]
    assert await world.step() == []


async def test_the_routes_at_the_start_are_those_that_can_run(world: World) -> None:
    world.set(ROUTE, changed(name="b", source=Source(["in2", "in3"], Format("json"))))
    processors = await world.service.first()
    assert sorted(processor.topic for processor in processors) == ["in", "in2"]
    assert world.reason("b") == "topic in3 does not exist: create it"
    world.add(cast(Any, processors))
    assert await world.step() == []
    world.existing["in3"] = 1
    assert await world.step() == ["add in3", "subscribe +['in3'] -[]"]
    assert world.reason("b") == ""


async def test_a_route_that_comes_back_while_its_topic_leaves_waits_until_it_has_left(world: World) -> None:
    world.set(ROUTE)
    await world.step()
    world.rebalance()
    world.set()
    await world.step()
    world.set(ROUTE)
    assert await world.step() == []
    world.rebalance()
    assert await world.step() == ["remove in", "add in", "subscribe +['in'] -[]"]


async def test_a_topic_that_passes_to_another_route_gets_the_processor_of_that_route(world: World) -> None:
    """A route is removed and another one created in one step: the topic must get the processor of the new one."""
    world.set(ROUTE)
    await world.step()
    world.rebalance()
    world.set(changed(name="b", model="other"))
    assert await world.step() == ["subscribe +[] -['in']"]
    world.rebalance()
    assert await world.step() == ["remove in", "add in", "subscribe +['in'] -[]"]
    assert world.lane_topics["in"].scorers[-1][1].name == "b"
    assert world.lane_topics["in"] is world.service.running["default", "b"].processors["in"]


async def test_the_second_route_over_a_topic_is_refused_until_the_first_is_gone(world: World) -> None:
    second = changed(name="b", created_at="2")
    world.set(changed(created_at="1"), second)
    assert await world.step() == ["add in", "subscribe +['in'] -[]"]
    assert "read by the route a" in world.reason("b")
    assert world.service.refused == {("default", "b")}
    world.rebalance()
    world.set(second)
    await world.step()
    world.rebalance()
    assert "add in" in await world.step()
    assert not world.service.refused


async def test_a_changed_route_is_used_by_the_same_processor_without_a_rebalance(world: World) -> None:
    world.set(ROUTE)
    await world.step()
    world.rebalance()
    other = changed(model="other", sink=Sink("out", field="x"))
    world.set(other)
    assert await world.step() == []
    assert [route for _, route in world.lane_topics["in"].scorers] == [ROUTE, other]
    world.set(changed(source=Source(["in", "in2"], Format("json"))))
    assert await world.step() == ["add in2", "subscribe +['in2'] -[]"]


async def test_a_route_waits_for_its_rights_and_names_them(world: World) -> None:
    world.denied = {Right("WRITE", "topic", "out")}
    world.set(ROUTE)
    assert await world.step() == []
    assert "WRITE on topic out" in world.reason()
    assert "kafka-acls" in world.reason()
    world.denied = set()
    assert await world.step() == ["add in", "subscribe +['in'] -[]"], "missing rights are asked for at every look"
    world.rebalance()
    world.denied = {Right("READ", "topic", "in")}
    assert await world.step() == [], "rights that were there are asked for every some seconds"
    world.service._ask_at = 0.0
    assert await world.step() == ["subscribe +[] -['in']"]


async def test_topics_that_the_settings_do_not_allow(world: World) -> None:
    world.set(changed(sink=Sink("elsewhere")))
    assert await world.step() == []
    assert "INFERD_ROUTES_SINKS" in world.reason()


async def test_the_last_state_holds_while_the_broker_does_not_answer_or_the_group_rebalances(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "INTERVAL_S", 0.001)
    fake = cast(Any, world)
    task = asyncio.create_task(world.service.run(fake, fake, lambda: None))

    async def until(condition: Any) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110  # fakes have no event for everything a test may wait for
                await asyncio.sleep(0.001)

    asked: list[int] = []

    async def fails() -> None:
        asked.append(1)
        raise KafkaError

    monkeypatch.setattr(world, "refresh", fails)
    world.set(ROUTE)
    await until(lambda: len(asked) > 2)
    assert world.calls == []
    monkeypatch.undo()
    monkeypatch.setattr(service_module, "INTERVAL_S", 0.001)
    await until(lambda: world.calls == ["add in", "subscribe +['in'] -[]"])
    world.is_stable = False
    world.rebalance()
    world.set()
    for world.is_stable, world.settled in ((False, True), (True, False)):
        looks = world.looks
        await until(lambda: world.looks > looks + 3)  # noqa: B023
        assert len(world.calls) == 2
    world.is_stable = world.settled = True
    await until(lambda: world.calls[2:] == ["subscribe +[] -['in']"])
    task.cancel()

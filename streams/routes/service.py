"""Runs the routes of a worker: decides which can run, and adds their topics to the lane, without a restart.

A route runs here if the settings allow its topics, no earlier route has its sources, and its sources exist and may be
read. Its records wait, and the status says for what, while its model or its sink cannot be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from inferd.schemas.routes import Route, in_order
from inferd.schemas.topics import TenantTopics
from inferd.streams.kafka import Destinations, Right, TopicWatch, describe_missing
from inferd.streams.lane import Lane, Partition
from inferd.streams.routes.admission import RouteKey, admit, route_rights
from inferd.streams.routes.processor import RouteProcessor
from inferd.streams.routes.scoring import RouteScorer
from inferd.streams.routes.table import RouteTable
from inferd.streams.settings import StreamSettings
from inferd.streams.telemetry import RouteSnapshot, RouteState

log = structlog.get_logger(__name__)

RIGHTS_INTERVAL_S = 10.0
INTERVAL_S = 1.0
"""How often routes that wait are looked at again."""


class Group(Protocol):
    """What the service needs of the consumer group."""

    @property
    def stable(self) -> bool:
        """Whether no rebalance is in progress."""

    async def change_topics(self, add: Collection[str], remove: Collection[str]) -> None:
        """Changes the subscription, which leads to a rebalance."""


MakeProcessor = Callable[[TenantTopics, str, RouteScorer], RouteProcessor]
MakeScorer = Callable[[str, Route], RouteScorer]
Lacking = Callable[[Collection[Right]], Awaitable[Sequence[Right]]]


@dataclass(slots=True)
class RunningRoute:
    """A route whose topics are in the lane."""

    route: Route
    processors: dict[str, RouteProcessor] = field(default_factory=dict)
    """By source topic."""


@dataclass(frozen=True, slots=True)
class RouteParts:
    """How the parts of a route are made."""

    processor: MakeProcessor
    scorer: MakeScorer


class RouteService:
    """The routes of all tenants of a worker."""

    def __init__(
        self,
        settings: StreamSettings,
        table: RouteTable,
        topics: TopicWatch,
        destinations: Destinations,
        parts: RouteParts,
        lacking: Lacking,
        admitted: Callable[[str], bool],
    ) -> None:
        """`lacking`: the access rights among some that this user lacks; `admitted`: whether a tenant is served."""
        self.table = table
        self.reasons: dict[RouteKey, str] = {}
        """By tenant and route: why it does not run."""
        self.refused: frozenset[RouteKey] = frozenset()
        """Those that cannot run until something is changed."""
        self.running: dict[RouteKey, RunningRoute] = {}
        self._settings = settings
        self._topics = topics
        self._destinations = destinations
        self._parts = parts
        self._lacking = lacking
        self._admitted = admitted
        self._asked: frozenset[Right] = frozenset()
        self._denied: frozenset[Right] = frozenset()
        self._ask_at = 0.0
        self._leaving: set[str] = set()
        """Topics whose partitions are being revoked."""

    async def first(self) -> list[RouteProcessor]:
        """The processors of the routes that can run, before the group is joined."""
        wanted = await self._wanted()
        self._follow(wanted)
        return [processor for running in self.running.values() for processor in running.processors.values()]

    def snapshots(
        self, partitions: Collection[Partition], ends: Mapping[TopicPartition, int | None]
    ) -> tuple[RouteSnapshot, ...]:
        """The state of every route; `partitions`: those of the lane, `ends`: their last known end offsets."""
        routes = [(tenant, route) for tenant, route in in_order(self.table.routes) if self._admitted(tenant)]
        return tuple(self._snapshot(tenant, route, partitions, ends) for tenant, route in routes)

    def _snapshot(
        self,
        tenant: str,
        route: Route,
        partitions: Collection[Partition],
        ends: Mapping[TopicPartition, int | None],
    ) -> RouteSnapshot:
        running = self.running.get((tenant, route.name))
        processors = {} if running is None else running.processors
        owned = [partition for partition in partitions if partition.tp.topic in processors]
        lags = [max(0, end - each.committed) for each in owned if (end := ends[each.tp]) is not None]
        waits = [why for each in processors.values() if (why := each.waiting or each.reason_to_wait()) is not None]
        reason = self.reasons.get((tenant, route.name)) or next(iter(waits), None)
        state: RouteState = "refused" if (tenant, route.name) in self.refused else "waiting" if reason else "running"
        counters = [processor.counters for processor in processors.values()]
        return RouteSnapshot(
            tenant=tenant,
            route=route.name,
            state=state,
            reason=reason,
            sources=tuple(route.source.topics),
            format=route.source.format.name,
            model=route.model,
            sink=route.sink.topic,
            partitions=len(owned),
            records_in=sum(each.requests_in for each in counters),
            results=sum(each.results for each in counters),
            errors=dict(sum((each.errors for each in counters), Counter[str]())),
            dead_letters=sum(each.dead_letters for each in counters),
            tombstones=sum(each.tombstones for each in counters),
            pending=sum(partition.pending for partition in owned),
            bytes_out=sum(each.bytes_out for each in counters),
            lag=sum(lags) if lags else None,
        )

    async def run(self, group: Group, lane: Lane, changed: Callable[[], None]) -> None:
        """Follows the routes until cancelled. `changed` is called when the topics of the lane have changed."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self.table.changed.wait()
            if not group.stable or not lane.settled:
                await asyncio.sleep(INTERVAL_S / 10)
                continue
            self.table.changed.clear()
            with contextlib.suppress(
                KafkaError, OSError, TimeoutError
            ):  # the last state holds until the broker answers
                await self._step(group, lane, changed)

    async def _step(self, group: Group, lane: Lane, changed: Callable[[], None]) -> None:
        if self._leaving and not {tp.topic for tp in lane.assigned} & self._leaving:
            await lane.remove(self._leaving)
            self._leaving = set()
            changed()
        before = {topic for running in self.running.values() for topic in running.processors}
        self._follow(await self._wanted())
        now = {topic: each for running in self.running.values() for topic, each in running.processors.items()}
        added, removed = now.keys() - before - self._leaving, before - now.keys()
        if added or removed:
            lane.add([now[topic] for topic in added])
            changed()
            self._leaving |= removed
            log.info("routes_changed", added=sorted(added), removed=sorted(removed))
            await group.change_topics(added, removed)

    def _follow(self, wanted: Mapping[RouteKey, tuple[Route, Collection[str]]]) -> None:
        """Makes and drops processors. A topic that another route has read is left first: the lane has its processor."""
        taken = self._leaving | {topic for running in self.running.values() for topic in running.processors}
        for key in self.running.keys() - wanted.keys():
            del self.running[key]
        for key, (route, topics) in wanted.items():
            running = self.running.setdefault(key, RunningRoute(route))
            tenant, _ = key
            scorer = None
            if running.route != route:
                running.route, scorer = route, self._parts.scorer(tenant, route)
                for processor in running.processors.values():
                    processor.use(scorer)
            for topic in running.processors.keys() - set(topics):
                del running.processors[topic]
            for topic in topics:
                if topic not in running.processors and topic not in taken:
                    scorer = scorer or self._parts.scorer(tenant, route)
                    names = TenantTopics(self._settings.namespace, tenant)
                    running.processors[topic] = self._parts.processor(names, topic, scorer)

    async def _wanted(self) -> dict[RouteKey, tuple[Route, Collection[str]]]:
        """The routes that can run, each with the source topics that can be read; sets `reasons` for the others."""
        served = [(tenant, route) for tenant, route in in_order(self.table.routes) if self._admitted(tenant)]
        accepted, reasons = admit(served, self._settings)
        self.refused = frozenset(reasons)
        await self._look_at(accepted.values())
        await self._check_rights(accepted)
        wanted: dict[RouteKey, tuple[Route, Collection[str]]] = {}
        for key, route in accepted.items():
            topics = [topic for topic in route.source.topics if self._topics.partitions_of(topic)]
            if missing := [topic for topic in route.source.topics if topic not in topics]:
                reasons[key] = f"topic {missing[0]} does not exist: create it"
            if lacking := [right for right in route_rights(key[0], route, self._settings) if right in self._denied]:
                reasons[key] = describe_missing(lacking, self._settings.connection)
                topics = []
            if topics:
                wanted[key] = route, topics
        self._note(reasons)
        return wanted

    async def _look_at(self, routes: Collection[Route]) -> None:
        """Describes the topics of routes."""
        sinks = frozenset(route.sink.topic for route in routes)
        names = sinks | {topic for route in routes for topic in route.source.topics}
        if new := names - self._topics.partitions.keys():
            self._topics.watch(new)
            await self._topics.refresh()
        if sinks != self._destinations.sinks:
            self._destinations.sinks = sinks
            await self._destinations.refresh()

    async def _check_rights(self, routes: Mapping[RouteKey, Route]) -> None:
        """Asks for the rights of all routes: regularly, and at once after a change."""
        wanted = frozenset(
            right for (tenant, _), route in routes.items() for right in route_rights(tenant, route, self._settings)
        )
        now = time.monotonic()
        if wanted == self._asked and now < self._ask_at and not self._denied:
            return
        self._denied = frozenset(await self._lacking(wanted)) if wanted else frozenset()
        self._asked, self._ask_at = wanted, now + RIGHTS_INTERVAL_S

    def _note(self, reasons: dict[RouteKey, str]) -> None:
        for (tenant, name), reason in reasons.items():
            if self.reasons.get((tenant, name)) != reason:
                log.warning("route_waits", tenant=tenant, route=name, reason=reason)
        self.reasons = reasons

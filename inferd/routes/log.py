"""The topic `routes` of a tenant, and the topics of others that its routes read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from inferd.cluster import Cluster, codec_of_record, is_behind, offsets_since
from inferd.errors import TopicNotFoundError
from inferd.models import ModelLog
from inferd.routes.checks import check_beside, check_fits
from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import Limits
from inferd.schemas.routes import (
    EndOfTopic,
    Route,
    RouteExistsError,
    RouteNotFoundError,
    check_route,
    check_route_name,
    decode_route,
    encode_route,
    in_order,
)

Start = EndOfTopic | datetime
"""Where a route begins to read: the end of its topics, their beginning, or the first record since a time."""
POLL_MS = 200


class RouteLog:
    """Reads and writes the routes of a tenant."""

    def __init__(self, cluster: Cluster, models: ModelLog, limits: Limits) -> None:
        self._cluster, self._models, self._limits = cluster, models, limits

    async def create(self, route: Route, start: Start, timeout_s: float, *, replace: bool) -> Route:
        """See `Client.create_route`."""
        check_route(route)
        others = await self.read(timeout_s)
        present = others.pop(route.name, None)
        if present is not None and not replace:
            raise RouteExistsError(f"there is a route {route.name} already: remove it first, or replace it")
        tenant = self._cluster.topics.tenant
        namespace = self._cluster.topics.namespace
        check_beside(route, [each for _, each in in_order({tenant: others})], namespace, namespace)
        check_fits(route, await self._models.read(timeout_s))
        created_at = datetime.now(UTC).isoformat(timespec="milliseconds") if present is None else present.created_at
        offsets = await self._start(route, start, present, timeout_s)
        route = msgspec.structs.replace(
            route, created_at=created_at, source=msgspec.structs.replace(route.source, start=offsets)
        )
        await self._write(route.name, encode_route(route, limits=self._limits))
        return route

    async def remove(self, name: str, timeout_s: float) -> None:
        """See `Client.remove_route`."""
        if check_route_name(name) not in await self.read(timeout_s):
            raise RouteNotFoundError(f"there is no route {name!r}; `inferd routes list` shows what there is")
        await self._write(name, None)

    async def read(self, timeout_s: float) -> dict[str, Route]:
        """The routes by name, from the whole log as it is now; records that are no routes are left out."""
        partitions = await self._cluster.partitions("routes")
        routes: dict[str, Route] = {}
        whole = self._cluster.within(timeout_s, "reading the routes")
        async with whole, self._cluster.consumer("routes", partitions) as consumer:
            await consumer.seek_to_beginning()
            while await is_behind(consumer):
                for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                    for record in records:
                        self._apply(routes, record.key, record.value, record.headers)
        return dict(sorted(routes.items()))

    def _apply(
        self, routes: dict[str, Route], key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        name = (key or b"").decode("utf-8", "replace")
        if value is None:
            routes.pop(name, None)
            return
        try:
            route = decode_route(value, self._limits, codec_of_record(headers))
        except InferenceError:
            return
        if route.name == name:
            routes[name] = route

    async def _write(self, name: str, value: bytes | None) -> None:
        sent = await self._cluster.send("routes", key=name.encode(), value=value)
        await self._cluster.acknowledged("routes", [sent])

    async def _start(self, route: Route, start: Start, present: Route | None, timeout_s: float) -> dict[str, list[int]]:
        """The first offset of each partition of each source. Topics that a replaced route reads keep theirs."""
        kept = {} if present is None else present.source.start
        known = await self._cluster.topics_of_others([*route.source.topics, route.sink.topic])
        for topic, partitions in known.items():
            if not partitions:
                raise TopicNotFoundError(
                    f"topic {topic} does not exist: create it, or check its name, broker and access rights"
                )
        tps = [
            TopicPartition(topic, number)
            for topic in route.source.topics
            if topic not in kept
            for number in known[topic]
        ]
        offsets: Mapping[TopicPartition, int] = {}
        if tps:
            whole = self._cluster.within(timeout_s, "reading the source of the route")
            async with whole, self._cluster.consumer_of_others(tps) as consumer:
                offsets = await _offsets(consumer, tps, start)
        return {
            topic: kept[topic] if topic in kept else [offsets[TopicPartition(topic, number)] for number in known[topic]]
            for topic in route.source.topics
        }


async def _offsets(consumer: AIOKafkaConsumer, tps: list[TopicPartition], start: Start) -> Mapping[TopicPartition, int]:
    if isinstance(start, datetime):
        return await offsets_since(consumer, tps, start)
    ends = await (consumer.end_offsets(tps) if start == "latest" else consumer.beginning_offsets(tps))
    return dict(ends)

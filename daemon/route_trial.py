"""What a route would write for the latest records of its sources. Writes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from inferd.daemon.topic_reader import Record, open_topic
from inferd.schemas.errors import InferenceError, ModelServingError
from inferd.schemas.routes import Route, RouteNotFoundError
from inferd.streams.models.follower import ModelFollower
from inferd.streams.routes import RouteScorer, RouteTable, check_schemas
from inferd.streams.routes.formats import Headers, Pending, RegisteredSchema, Schemas
from inferd.streams.routes.schema_registry import SchemaCache, SchemaRegistryClient, SchemaRegistryError
from inferd.streams.settings import StreamSettings

SCHEMAS_TIMEOUT_S = 15.0
LOOK_AGAIN_S = 0.1
SPARE = 16
"""Offsets before the latest ones that are read, too: some are markers of transactions."""


@dataclass(frozen=True, slots=True)
class TriedRecord:
    """A record of a source, and what the route would write for it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    """The value of the record in the sink; None if there would be none."""
    error: ModelServingError | None = None
    """Why it would have no prediction."""
    headers: Headers | None = None
    """The headers of the record in the sink; None: those of the source."""


class _ReadOnly:
    """The schemas of a registry; registers none, and gives 0 as their id."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def get(self, schema_id: int) -> RegisteredSchema | InferenceError | Pending:
        return self._schemas.get(schema_id)

    def register(self, subject: str, schema: RegisteredSchema) -> int | InferenceError | Pending:
        return 0


async def try_route(settings: StreamSettings, tenant: str, name: str, limit: int) -> list[TriedRecord]:
    """The latest `limit` records of a route's sources, oldest first, and what it would write for each.

    Raises `RouteNotFoundError`, and the `InferenceError` of a route that does not fit its model or a schema.
    """
    with TemporaryDirectory(prefix="inferd-routes-") as folder:
        # A separate directory: a worker on this machine may be using its own.
        wanted = replace(settings, data_dir=Path(folder), worker_id=f"{settings.worker_id}-try", tenants=(tenant,))
        table = RouteTable(wanted.tenants, wanted.limits)
        follower = ModelFollower(wanted, lambda _record, _error: None, on_route=table.apply)
        try:
            await follower.start()
            route = table.routes[tenant].get(name)
            if route is None:
                raise RouteNotFoundError(f"there is no route {name!r}; `inferd routes list` shows what there is")
            async with _schemas(wanted) as schemas:
                scorer = RouteScorer(route, follower.catalogs[tenant], wanted.limits, wanted.group.group_id, schemas)
                if (reason := scorer.fit()) is not None:
                    raise InferenceError(f"route {name}: {reason}")
                await _check_schemas(wanted, scorer)
                records = await _latest(wanted, route, limit)
                return [await _tried(scorer, topic, record) for topic, record in records]
        finally:
            await follower.stop()


async def _check_schemas(settings: StreamSettings, scorer: RouteScorer) -> None:
    """`SchemaMismatchError` if a schema in the registry does not fit the route."""
    features = {each.name: each for version in scorer.versions() for each in version.manifest.features}
    with suppress(SchemaRegistryError):  # a record says that it would wait
        await check_schemas(settings.schema_registry, scorer.route, list(features.values()))


@asynccontextmanager
async def _schemas(settings: StreamSettings) -> AsyncIterator[Schemas | None]:
    if settings.schema_registry is None:
        yield None
        return
    cache = SchemaCache(SchemaRegistryClient(settings.schema_registry), partial(_raise, "a schema"))
    try:
        yield _ReadOnly(cache)
    finally:
        await cache.close()


def _raise(_what: str, error: BaseException) -> None:
    raise error


async def _latest(settings: StreamSettings, route: Route, limit: int) -> list[tuple[str, Record]]:
    """The latest records of all sources by their timestamps."""
    found: list[tuple[str, Record]] = []
    for topic in route.source.topics:
        async with open_topic(settings.connection, topic) as reader:
            ranges = await reader.ranges()
            latest = {tp: (max(first, end - 2 * limit - SPARE), end) for tp, (first, end) in ranges.items()}
            found += [(topic, record) async for record in reader.read(latest)]
    return sorted(found, key=lambda each: (each[1].timestamp, each[1].offset))[-limit:] if limit else []


async def _tried(scorer: RouteScorer, topic: str, record: Record) -> TriedRecord:
    place = (topic, record.partition, record.offset, record.key)
    if record.value is None:
        return TriedRecord(*place, None)
    deadline = time.monotonic() + SCHEMAS_TIMEOUT_S
    while True:
        taken: Any = record
        batch = scorer.prepare(topic, [(record.partition, [taken])], int(time.time() * 1000))
        for group in batch.groups:
            group.predict()
        outcome = batch.finish()
        if not outcome.unready:
            headers = outcome.sink_headers.get(0)
            return TriedRecord(*place, outcome.values[0] or None, outcome.failures.get(0), headers)
        if time.monotonic() > deadline:
            return TriedRecord(*place, None, InferenceError(f"it would wait: {outcome.unready[0]}"))
        await asyncio.sleep(LOOK_AGAIN_S)

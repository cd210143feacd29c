"""Checks of the routes and the schema registry: what keeps a route from running, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from aiokafka.client import AIOKafkaClient

from inferd.daemon.checks import Check
from inferd.schemas.connection import SchemaRegistryConnection
from inferd.schemas.errors import InferenceError, SchemaMismatchError
from inferd.schemas.routes import Route, in_order
from inferd.streams.connection import client_options
from inferd.streams.inference import ModelCatalog
from inferd.streams.kafka import Right, TopicMetadata, describe_rights, grant_commands, missing_rights, read_topics
from inferd.streams.routes import RouteKey, RouteScorer, admit, check_schemas, route_rights
from inferd.streams.routes.formats import Schemas
from inferd.streams.routes.schema_registry import (
    RegistryDeniedError,
    SchemaCache,
    SchemaRegistryClient,
    SchemaRegistryError,
)
from inferd.streams.settings import StreamSettings

Problem = tuple[str, str]
"""What is wrong, and what to do about it."""
ADDRESS = "check INFERD_SCHEMA_REGISTRY_URL and INFERD_SCHEMA_REGISTRY_SSL_…, the registry itself and the network"
CREDENTIALS = (
    "check INFERD_SCHEMA_REGISTRY_USERNAME and INFERD_SCHEMA_REGISTRY_PASSWORD, or INFERD_SCHEMA_REGISTRY_TOKEN, and"
    " what this user may do"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the broker and the schema registry say about the topics of routes."""

    topics: Mapping[str, TopicMetadata | None]
    """None: it does not exist. Topics that this user may not describe are left out."""
    missing: Collection[Right] = ()
    """The rights that this user lacks."""
    unfit: Mapping[RouteKey, str] = field(default_factory=dict)
    """Why routes do not fit the schemas in the schema registry."""


async def check_schema_registry(connection: SchemaRegistryConnection | None) -> list[Check]:
    """Whether the schema registry answers, and accepts the credentials of the settings."""
    name = "schema registry"
    if connection is None:
        return [Check(name, "skip", "INFERD_SCHEMA_REGISTRY_URL is not set")]
    client = SchemaRegistryClient(connection)
    started = time.perf_counter()
    try:
        await client.check()
    except SchemaRegistryError as error:
        return [Check(name, "fail", error.message, CREDENTIALS if isinstance(error, RegistryDeniedError) else ADDRESS)]
    finally:
        await client.close()
    return [Check(name, "ok", f"{client.url} answers in {(time.perf_counter() - started) * 1_000:.0f} ms")]


async def check_routes(
    settings: StreamSettings, routes: Mapping[str, Mapping[str, Route]], catalogs: Mapping[str, ModelCatalog]
) -> list[Check]:
    """Whether each route can run in a worker with these settings. `routes`: by tenant and name."""
    every = in_order(routes)
    if not every:
        return [Check("routes", "skip", "there are no routes")]
    facts = await _facts(settings, every)
    async with _schemas(settings.schema_registry) as schemas:
        unfit = await _unfit(settings, every, catalogs)
        return route_checks(settings, every, replace(facts, unfit=unfit), catalogs, schemas)


async def _unfit(
    settings: StreamSettings, routes: Sequence[tuple[str, Route]], catalogs: Mapping[str, ModelCatalog]
) -> Mapping[RouteKey, str]:
    """Why routes do not fit the schemas of the registry."""
    unfit: dict[RouteKey, str] = {}
    for tenant, route in routes:
        try:
            versions = RouteScorer(route, catalogs[tenant], settings.limits, settings.group.group_id).versions()
            features = {each.name: each for version in versions for each in version.manifest.features}
            await check_schemas(settings.schema_registry, route, list(features.values()))
        except SchemaMismatchError as error:
            unfit[tenant, route.name] = error.message
        except InferenceError:
            continue  # the check of its model says so
        except SchemaRegistryError:
            break  # the check of the registry says so
    return unfit


def route_checks(
    settings: StreamSettings,
    routes: Sequence[tuple[str, Route]],
    facts: Facts,
    catalogs: Mapping[str, ModelCatalog],
    schemas: Schemas | None,
) -> list[Check]:
    """One check for each problem of a route, and one for the routes without any. `routes`: the earliest first."""
    _, refused = admit(routes, settings)
    checks: list[Check] = []
    well = 0
    for tenant, route in routes:
        if (reason := refused.get((tenant, route.name))) is not None:
            problems = [(reason, _remedy_of_refusal(reason, route.name))]
        else:
            scorer = RouteScorer(route, catalogs[tenant], settings.limits, settings.group.group_id, schemas)
            problems = [*_topic_problems(route, facts), *_right_problems(tenant, route, facts, settings)]
            problems += _model_problems(scorer)
            if (misfit := facts.unfit.get((tenant, route.name))) is not None:
                problems.append(
                    (misfit, f"change the paths of the route with inferd routes create {route.name} --replace")
                )
        well += not problems
        where = f"route {route.name} of tenant {tenant}"
        checks += [Check("routes", "fail", f"{where}: {what}", remedy) for what, remedy in problems]
    return [*checks, Check("routes", "ok", f"{well} of {len(routes)} can run")] if well else checks


def _remedy_of_refusal(reason: str, name: str) -> str:
    remove = f"remove the route: inferd routes remove {name}"
    if reason.startswith("INFERD_"):
        return f"add the topic to that setting of all workers, or {remove}"
    return f"change the route with inferd routes create {name} --replace, or {remove}"


def _topic_problems(route: Route, facts: Facts) -> Iterator[Problem]:
    for what, topic in [*(("source", topic) for topic in route.source.topics), ("sink", route.sink.topic)]:
        if topic in facts.topics and facts.topics[topic] is None:
            yield f"its {what} {topic} does not exist", "create the topic, or name another in the route"


def _right_problems(tenant: str, route: Route, facts: Facts, settings: StreamSettings) -> Iterator[Problem]:
    if missing := [right for right in route_rights(tenant, route, settings) if right in facts.missing]:
        grant = "; ".join(grant_commands(missing, settings.connection))
        yield f"not allowed: {'; '.join(describe_rights(missing))}", grant


def _model_problems(scorer: RouteScorer) -> Iterator[Problem]:
    route = scorer.route
    remedy = f"deploy a version that fits, or change the route with inferd routes create {route.name} --replace"
    if (reason := scorer.fit()) is not None:
        yield reason, "set INFERD_SCHEMA_REGISTRY_URL" if "INFERD_SCHEMA_REGISTRY_URL" in reason else remedy
        return
    for version in scorer.versions():
        if not version.usable:
            manifest = version.manifest
            yield f"{manifest.model_id}:{manifest.version} is {version.state}: {version.reason}", remedy


@asynccontextmanager
async def _schemas(connection: SchemaRegistryConnection | None) -> AsyncIterator[Schemas | None]:
    if connection is None:
        yield None
        return
    cache = SchemaCache(SchemaRegistryClient(connection), lambda _error: None)
    try:
        yield cache
    finally:
        await cache.close()


async def _facts(settings: StreamSettings, routes: Sequence[tuple[str, Route]]) -> Facts:
    rights = {right for tenant, route in routes for right in route_rights(tenant, route, settings)}
    client = AIOKafkaClient(**client_options(settings.connection), client_id="inferd")
    try:
        await client.bootstrap()
        topics = await read_topics(client, {right.name for right in rights if right.resource == "topic"})
        return Facts(topics, await missing_rights(client, rights))
    finally:
        await client.close()

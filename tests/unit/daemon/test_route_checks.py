"""The checks of routes and of the schema registry in `inferd doctor`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiohttp import web

from inferd.daemon.checks import Check
from inferd.daemon.checks.routes import Facts, check_routes, check_schema_registry, route_checks
from inferd.daemon.settings.settings import Settings
from inferd.schemas.connection import SchemaRegistryConnection
from inferd.schemas.routes import Format, Route, Sink, Source
from inferd.streams.inference import ModelCatalog, Version
from inferd.streams.kafka import Right, TopicMetadata
from tests.fixtures.fake_registry import FakeRegistry
from tests.fixtures.lane import sum_model

SETTINGS = Settings.from_environment({}, {"routes_sources": "in*", "routes_sinks": "out*"}).streams()
ROUTE = Route("orders", Source(["in", "in2"], Format("json")), "sum", Sink("out"))
TOPICS: dict[str, TopicMetadata | None] = dict.fromkeys(("in", "in2", "out"), TopicMetadata(4))
FACTS = Facts(TOPICS)


def checks(*routes: Route, facts: Facts = FACTS, models: ModelCatalog | None = None) -> list[Check]:
    served = sum_model(1)
    catalog = models or ModelCatalog()
    if models is None:
        catalog.put(Version(served.manifest, "ready", served=served))
    every = [("default", route) for route in routes or (ROUTE,)]
    return route_checks(SETTINGS, every, facts, {"default": catalog}, None)


def changed(**changes: Any) -> Route:
    return msgspec.structs.replace(ROUTE, **changes)


def test_a_route_that_can_run() -> None:
    assert checks() == [Check("routes", "ok", "1 of 1 can run")]


def test_each_problem_is_named_with_its_route_and_its_remedy() -> None:
    denied = Right("READ", "topic", "in2", "default"), Right("WRITE", "topic", "out", "default")
    source, sink, rights = checks(facts=Facts({"in": None, "out": None}, denied))
    for check in (source, sink, rights):
        assert (check.name, check.state) == ("routes", "fail")
        assert check.detail.startswith("route orders of tenant default: ")
    assert "its source in does not exist" in source.detail
    assert "its sink out does not exist" in sink.detail
    assert "WRITE on topic out" in rights.detail
    assert "READ on topic in2" in rights.detail
    assert (rights.remedy or "").count("kafka-acls") == 2


@pytest.mark.parametrize(
    ("route", "detail", "remedy"),
    [
        (
            changed(sink=Sink("elsewhere")),
            "INFERD_ROUTES_SINKS of the worker does not allow topic elsewhere",
            "setting",
        ),
        (changed(source=Source(["x"], Format("json"))), "INFERD_ROUTES_SOURCES", "inferd routes remove orders"),
        (changed(source=Source(["in"], Format("yaml"))), "format 'yaml' is unknown", "--replace"),
        (changed(model="other"), "no model 'other'", "deploy"),
        (changed(features={"colour": "c"}), "colour", "--replace"),
        (changed(source=Source(["in"], Format("avro"))), "schema registry", "set INFERD_SCHEMA_REGISTRY_URL"),
    ],
)
def test_what_keeps_a_route_from_running(route: Route, detail: str, remedy: str) -> None:
    (check,) = checks(route)
    assert check.state == "fail"
    assert detail in check.detail
    assert remedy in (check.remedy or "")


def test_the_second_route_over_a_topic_is_refused_and_the_first_one_runs() -> None:
    refused, well = checks(ROUTE, changed(name="second", source=Source(["in"], Format("json"))))
    assert "route second of tenant default: topic in is read by the route orders" in refused.detail
    assert well == Check("routes", "ok", "1 of 2 can run")


def test_a_model_that_failed_its_trial() -> None:
    models = ModelCatalog()
    models.put(replace(Version(sum_model(1).manifest, "failed"), reason="it raised"))
    (check,) = checks(models=models)
    assert "failed" in check.detail
    assert "it raised" in check.detail


async def test_without_routes_the_broker_is_not_asked() -> None:
    (check,) = await check_routes(SETTINGS, {"default": {}}, {"default": ModelCatalog()})
    assert check.state == "skip"


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry()
    await registry.server.start_server()
    yield registry
    await registry.server.close()


async def test_a_schema_registry_that_answers(fake: FakeRegistry) -> None:
    fake.answer = lambda _request: web.json_response(["orders.v1-value"])
    connection = SchemaRegistryConnection(fake.url, username="ann", password="secret")
    (check,) = await check_schema_registry(connection)
    assert (check.name, check.state) == ("schema registry", "ok")
    assert fake.url in check.detail
    assert fake.authorizations == [connection.authorization()]


@pytest.mark.parametrize(
    ("status", "body", "detail", "remedy"),
    [
        (401, "", "answered 401", "INFERD_SCHEMA_REGISTRY_PASSWORD"),
        (500, "", "answered 500", "INFERD_SCHEMA_REGISTRY_URL"),
        (200, "<html>", "did not answer as a schema registry", "INFERD_SCHEMA_REGISTRY_URL"),
    ],
)
async def test_a_schema_registry_that_does_not(
    fake: FakeRegistry, status: int, body: str, detail: str, remedy: str
) -> None:
    fake.answer = lambda _request: web.Response(status=status, text=body)
    (check,) = await check_schema_registry(SchemaRegistryConnection(fake.url))
    assert check.state == "fail"
    assert detail in check.detail
    assert remedy in (check.remedy or "")


async def test_a_schema_registry_that_is_away_or_not_set() -> None:
    (check,) = await check_schema_registry(SchemaRegistryConnection("http://127.0.0.1:9"))
    assert (check.state, "cannot be reached" in check.detail) == ("fail", True)
    (check,) = await check_schema_registry(None)
    assert check.state == "skip"

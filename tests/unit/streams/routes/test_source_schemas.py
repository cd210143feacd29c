"""Routes are held against the schemas of their sources before there is a record."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from inferd.schemas.connection import SchemaRegistryConnection
from inferd.schemas.errors import SchemaMismatchError
from inferd.schemas.models import Feature
from inferd.schemas.routes import Format, Route, Sink, Source
from inferd.streams.routes import check_schemas
from inferd.streams.routes.schema_registry import RegistryDeniedError, RegistryUnavailableError
from tests.fixtures.fake_registry import FakeRegistry

FEATURES = (Feature("amount"), Feature("country", "category"))
ITEM = {"type": "record", "name": "Item", "fields": [{"name": "price", "type": ["null", "double"]}]}
ORDER = {"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "amount", "type": "double"},
    {"name": "country", "type": "string"},
    {"name": "items", "type": {"type": "array", "items": ITEM}},
    {"name": "photo", "type": "bytes"},
]}  # fmt: skip
PROTO = """syntax = "proto3"; package shop;
message Other { string note = 1; }
message Order { double amount = 1; string country = 2; repeated Item items = 3; bytes photo = 4; Item item = 5; }
message Item { double price = 1; }
"""
TEXTS = {"avro": json.dumps(ORDER), "protobuf": PROTO}
KINDS = {"avro": "AVRO", "protobuf": "PROTOBUF"}
pytestmark = pytest.mark.parametrize("name", ["avro", "protobuf"])


def route(name: str, features: dict[str, str] | None = None, **changes: Any) -> Route:
    made = Route("orders", Source(["in"], Format(name)), "m", Sink("out", field="score"), features or {})
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
async def fake(name: str) -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry()
    await registry.server.start_server()
    registry.versions["in-value", "latest"] = {"schema": TEXTS[name], "schemaType": KINDS[name], "id": 7}
    yield registry
    await registry.server.close()


async def check(fake: FakeRegistry, checked: Route) -> list[str]:
    return await check_schemas(SchemaRegistryConnection(fake.url), checked, FEATURES)


async def test_a_route_that_fits(fake: FakeRegistry, name: str) -> None:
    assert await check(fake, route(name)) == []
    (widened,) = fake.bodies
    assert widened.get("schemaType", "AVRO") == KINDS[name]
    assert "score" in widened["schema"]
    assert "country" in widened["schema"]
    assert "/compatibility/subjects/out-value/versions/latest" in fake.asked
    specials = {"amount": "items[0].price", "country": "$headers.country"}
    assert await check(fake, route(name, specials)) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("total", "has no field 'total'"),
        ("items", "there, expected"),
        ("photo", "bytes"),
        ("amount.more", "amount.more"),
        ("items.price", "items.price"),
    ],
)
async def test_a_path_without_a_value_names_feature_path_schema_and_subject(
    fake: FakeRegistry, name: str, path: str, message: str
) -> None:
    if (name, path) == ("protobuf", "items"):
        message = "repeated field"
    with pytest.raises(SchemaMismatchError) as refused:
        await check(fake, route(name, {"amount": path}))
    text = refused.value.message
    if (name, path) == ("avro", "total"):
        message = "without 'total'" if "without" in text else message
    assert text.startswith("feature 'amount': path ")
    assert "schema 7, the latest of subject in-value," in text
    assert message in text


async def test_text_for_a_number_is_refused_and_a_number_for_a_category_is_not(fake: FakeRegistry, name: str) -> None:
    with pytest.raises(SchemaMismatchError, match=r"feature 'amount': path country: .* has text there, .* a number"):
        await check(fake, route(name, {"amount": "country"}))
    assert await check(fake, route(name, {"country": "amount"})) == []


async def test_a_carried_field_without_a_value(fake: FakeRegistry, name: str) -> None:
    with pytest.raises(SchemaMismatchError, match=r"carried field 'when': path at: .*schema 7"):
        await check(fake, route(name, sink=Sink("out", "result", carry={"when": "at"})))
    assert await check(fake, route(name, sink=Sink("out", "result", carry={"when": "country"}))) == []
    assert "Result_out" in fake.bodies[-1]["schema"]


async def test_a_constant_needs_no_field(fake: FakeRegistry, name: str) -> None:
    fake.versions["in-value", "latest"]["schema"] = TEXTS[name].replace("country", "land")
    with pytest.raises(SchemaMismatchError, match="country"):
        await check(fake, route(name))
    assert await check(fake, route(name, constants={"country": "CH"})) == []


async def test_a_field_that_is_there_already(fake: FakeRegistry, name: str) -> None:
    with pytest.raises(SchemaMismatchError, match=r"subject in-value.*'country' already"):
        await check(fake, route(name, sink=Sink("out", field="country")))


async def test_a_schema_of_another_kind_or_that_cannot_be_read(fake: FakeRegistry, name: str) -> None:
    fake.versions["in-value", "latest"]["schemaType"] = "JSON"
    with pytest.raises(SchemaMismatchError, match="of the kind JSON, expected"):
        await check(fake, route(name))
    fake.versions["in-value", "latest"] |= {"schemaType": KINDS[name], "schema": "{"}
    with pytest.raises(SchemaMismatchError, match=r"subject in-value, cannot be used"):
        await check(fake, route(name))


async def test_a_sink_whose_subject_does_not_take_the_schema(fake: FakeRegistry, name: str) -> None:
    fake.refusals["out-value"] = ""
    assert await check(fake, route(name)) == []
    fake.refusals["out-value"] = "READER_FIELD_MISSING_DEFAULT_VALUE"
    with pytest.raises(SchemaMismatchError, match=r"subject out-value .* schema 7 of subject in-value: READER_FIELD"):
        await check(fake, route(name))
    named = route(name, sink=Sink("out", field="score", subjects="topic-record"))
    assert await check(fake, named) == []
    assert "/compatibility/subjects/out-shop.Order/versions/latest" in fake.asked


async def test_a_topic_whose_subject_is_not_there_is_named_and_no_error(fake: FakeRegistry, name: str) -> None:
    several = route(name, source=Source(["in", "in2"], Format(name)))
    (note,) = await check(fake, several)
    assert "topic in2" in note
    assert "in2-value" in note


async def test_a_registry_that_does_not_answer_is_an_error_of_its_own(fake: FakeRegistry, name: str) -> None:
    fake.answer = lambda _request: web.Response(status=500)
    with pytest.raises(RegistryUnavailableError):
        await check(fake, route(name))
    fake.answer = lambda _request: web.Response(status=403)
    with pytest.raises(RegistryDeniedError):
        await check(fake, route(name))


async def test_events_are_held_against_the_schema_of_their_data(fake: FakeRegistry, name: str) -> None:
    events = route(name, {"amount": "total"}, source=Source(["in"], Format("cloudevents", data=name)))
    with pytest.raises(SchemaMismatchError, match="feature 'amount': path total"):
        await check(fake, events)


async def test_the_schema_of_the_route_itself_needs_no_registry(fake: FakeRegistry, name: str) -> None:
    message = "Order" if name == "protobuf" else None
    given = Format(name, schema=TEXTS[name], message=message)
    assert await check_schemas(None, route(name, source=Source(["in"], given)), FEATURES) == []
    with pytest.raises(SchemaMismatchError, match="feature 'amount': path total: the route's schema"):
        await check_schemas(None, route(name, {"amount": "total"}, source=Source(["in"], given)), FEATURES)
    assert not fake.asked


async def test_the_readers_schema_of_a_route_is_what_paths_are_for(fake: FakeRegistry, name: str) -> None:
    reader = TEXTS[name].replace('"amount"', '"total", "aliases": ["amount"]').replace("amount = 1", "total = 1")
    given = Format(name, schema=reader, registry=True, message="Order" if name == "protobuf" else None)
    assert await check(fake, route(name, {"amount": "total"}, source=Source(["in"], given))) == []


async def test_formats_without_schemas_are_not_checked(fake: FakeRegistry, name: str) -> None:
    assert await check(fake, route(name, {"amount": "total"}, source=Source(["in"], Format("json")))) == []
    assert not fake.asked

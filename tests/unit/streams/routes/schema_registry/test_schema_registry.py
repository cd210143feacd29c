"""The client and the cache of schemas, with a registry that misbehaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from inferd.schemas.connection import SchemaRegistryConnection
from inferd.schemas.errors import SchemaNotFoundError
from inferd.streams.routes.formats import Pending, Reference, RegisteredSchema
from inferd.streams.routes.schema_registry import (
    RegistryDeniedError,
    RegistryUnavailableError,
    SchemaCache,
    SchemaRegistryClient,
    SchemaRejectedError,
)
from inferd.streams.routes.schema_registry import cache as cache_module
from tests.fixtures.fake_registry import FakeRegistry, problem

DEADLINE_S = 10
TEXT = '"string"'
AVRO = RegisteredSchema("AVRO", TEXT)


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry()
    await registry.server.start_server()
    yield registry
    registry.gate.set()
    await registry.server.close()


@pytest.fixture
async def client(fake: FakeRegistry) -> AsyncIterator[SchemaRegistryClient]:
    opened = SchemaRegistryClient(SchemaRegistryConnection(fake.url, timeout_s=5))
    yield opened
    await opened.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


class Cache:
    """A cache under test, and the changes that it reports."""

    def __init__(self, client: SchemaRegistryClient) -> None:
        self.changed = asyncio.Event()
        self.crashes: list[BaseException] = []
        self.schemas = SchemaCache(client, self.crashes.append, self.changed.set, retry_s=(0.001, 0.01))

    async def until_known(self, ask: Callable[[], Any]) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            while isinstance(answer := ask(), Pending):
                await self.changed.wait()
                self.changed.clear()
        return answer

    async def until_waits(self, text: str) -> None:
        await until(lambda: any(text in reason for reason in self.schemas.waits()))


@pytest.fixture
async def cache(client: SchemaRegistryClient) -> AsyncIterator[Cache]:
    made = Cache(client)
    yield made
    await made.schemas.close()
    assert made.crashes == []


async def test_a_schema_with_what_it_imports(fake: FakeRegistry, client: SchemaRegistryClient) -> None:
    one, two = ({"name": f"{name}.proto", "subject": f"{name}/x", "version": 2} for name in ("one", "two"))
    fake.schemas[7] = {"schema": "main", "schemaType": "PROTOBUF", "references": [one, two]}
    fake.versions["one%2Fx", "2"] = {"schema": "text of one", "references": [two], "id": 1}
    fake.versions["two%2Fx", "2"] = {"schema": "text of two", "id": 2}

    schema = await client.schema(7)

    assert (schema.kind, schema.text, schema.schema_id) == ("PROTOBUF", "main", 7)
    assert schema.references == (Reference("one.proto", "one/x", 2), Reference("two.proto", "two/x", 2))
    assert schema.imported == (("two.proto", "text of two"), ("one.proto", "text of one"))


async def test_a_schema_that_imports_itself_ends(fake: FakeRegistry, client: SchemaRegistryClient) -> None:
    itself = {"name": "a.proto", "subject": "a", "version": 1}
    fake.schemas[1] = {"schema": "main", "references": [itself]}
    fake.versions["a", "1"] = {"schema": "a", "references": [itself]}

    with pytest.raises(SchemaNotFoundError, match="imports itself"):
        await client.schema(1)


async def test_registering_sends_the_kind_and_the_references(fake: FakeRegistry, client: SchemaRegistryClient) -> None:
    schema = RegisteredSchema("PROTOBUF", "text", (Reference("a", "b", 3),))

    assert await client.register("orders-value", schema) == 1
    assert await client.register("orders-value", AVRO) == 2

    assert fake.bodies == [
        {"schema": "text", "schemaType": "PROTOBUF", "references": [{"name": "a", "subject": "b", "version": 3}]},
        {"schema": TEXT},
    ]


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (problem(500, 50001, "the store is away"), RegistryUnavailableError, "answered 500: the store is away"),
        (web.Response(status=503), RegistryUnavailableError, "answered 503: it gave no reason"),
        (web.Response(status=429), RegistryUnavailableError, "answered 429"),
        (web.Response(status=404, text="<html>no such page"), RegistryUnavailableError, "answered 404"),
        (web.Response(status=301, headers={"Location": "/"}), RegistryUnavailableError, "answered 301"),
        (web.Response(text="<html>"), RegistryUnavailableError, "did not answer as a schema registry"),
        (web.Response(text="{}"), RegistryUnavailableError, "INFERD_SCHEMA_REGISTRY_URL"),
        (web.Response(text='{"schema": 1}'), RegistryUnavailableError, "did not answer as"),
        (web.Response(text='{"schema": "", "schemaType": "XML"}'), RegistryUnavailableError, "did not answer as"),
        (web.Response(body=b"\xff\x00", headers={"Content-Encoding": "gzip"}), RegistryUnavailableError, "reached"),
        (web.Response(body=bytes(9 << 20)), RegistryUnavailableError, "more than"),
        (problem(404, 40403), SchemaNotFoundError, "no schema with id 5"),
        (problem(401, 401), RegistryDeniedError, "401: check INFERD_SCHEMA_REGISTRY_USERNAME"),
        (problem(403, 403), RegistryDeniedError, "403: check"),
    ],
)
async def test_answers_that_are_no_schema(
    fake: FakeRegistry, client: SchemaRegistryClient, answer: web.Response, error: type[Exception], text: str
) -> None:
    fake.answer = lambda _: answer

    with pytest.raises(error, match=text):
        await client.schema(5)


async def test_a_registry_that_is_away(fake: FakeRegistry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = SchemaRegistryClient(SchemaRegistryConnection(f"http://127.0.0.1:{port}"))
    with pytest.raises(RegistryUnavailableError, match=f"127.0.0.1:{port} cannot be reached"):
        await client.schema(5)


async def test_a_registry_that_is_slow(fake: FakeRegistry) -> None:
    fake.gate.clear()
    client = SchemaRegistryClient(SchemaRegistryConnection(fake.url, timeout_s=0.05))
    with pytest.raises(RegistryUnavailableError, match=r"did not answer within 0\.05 s"):
        await client.schema(5)


@pytest.mark.parametrize("status", [409, 422])
async def test_a_subject_that_rejects_a_schema(fake: FakeRegistry, client: SchemaRegistryClient, status: int) -> None:
    fake.answer = lambda _: problem(status, status, "a field has no default")
    with pytest.raises(SchemaRejectedError, match=r"subject orders-value .* a field has no default.*compatibility"):
        await client.register("orders-value", AVRO)


async def test_credentials(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.schemas[1] = {"schema": TEXT}
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    connections = (
        SchemaRegistryConnection(fake.url),
        SchemaRegistryConnection(fake.url, username="me", password="pass"),
        SchemaRegistryConnection(fake.url, token="abc"),
        SchemaRegistryConnection(fake.url, token_file=str(secret)),
    )
    for connection in connections:
        client = SchemaRegistryClient(connection)
        await client.schema(1)
        secret.write_text("second\n")
        await client.schema(1)
        await client.close()
    expected = (None, "Basic bWU6cGFzcw==", "Bearer abc", "Bearer second")
    assert fake.authorizations == [each for each in expected for _ in range(2)]


async def test_credentials_that_cannot_be_read(fake: FakeRegistry, tmp_path: Path) -> None:
    client = SchemaRegistryClient(SchemaRegistryConnection(fake.url, token_file=str(tmp_path / "none")))
    with pytest.raises(RegistryDeniedError, match=r"cannot be read.*none"):
        await client.schema(1)


async def test_a_schema_is_asked_for_once_and_kept(fake: FakeRegistry, cache: Cache) -> None:
    fake.schemas[1] = {"schema": TEXT}
    fake.gate.clear()
    first = [cache.schemas.get(1) for _ in range(100)]
    await fake.arrived.wait()
    fake.gate.set()

    schema = await cache.until_known(lambda: cache.schemas.get(1))

    assert all(isinstance(each, Pending) for each in first)
    assert schema == RegisteredSchema("AVRO", TEXT, schema_id=1)
    assert cache.schemas.get(1) is schema
    assert fake.asked == {"/schemas/ids/1": 1}
    assert cache.schemas.waits() == ()


async def test_a_wait_is_named_and_ends(fake: FakeRegistry, cache: Cache) -> None:
    fake.schemas[1] = {"schema": TEXT}
    fake.answer = lambda _: problem(401, 401)
    assert cache.schemas.get(1) == Pending("schema 1: asked for")

    await cache.until_waits("schema 1: waits, the schema registry")
    pending = cache.schemas.get(1)
    assert isinstance(pending, Pending)
    assert "INFERD_SCHEMA_REGISTRY_USERNAME" in pending.reason

    fake.answer = None
    assert (await cache.until_known(lambda: cache.schemas.get(1))).text == TEXT


async def test_an_unknown_id_is_an_error_after_some_tries(
    fake: FakeRegistry, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = await cache.until_known(lambda: cache.schemas.get(9))

    assert isinstance(error, SchemaNotFoundError)
    assert fake.asked == {"/schemas/ids/9": cache_module.NOT_FOUND_TRIES}
    assert cache.schemas.get(9) is error

    monkeypatch.setattr(cache_module, "NOT_FOUND_S", 0.0)
    await cache.until_known(lambda: cache.schemas.get(8))
    fake.schemas[8] = {"schema": TEXT}
    await until(lambda: isinstance(cache.schemas.get(8), RegisteredSchema))


async def test_an_incompatible_schema_waits_until_the_subject_takes_it(fake: FakeRegistry, cache: Cache) -> None:
    fake.answer = lambda _: problem(409, 409, "incompatible")
    cache.schemas.register("s-value", AVRO)
    await cache.until_waits("subject s-value: waits, subject s-value of the schema registry rejects")

    fake.answer = None
    assert await cache.until_known(lambda: cache.schemas.register("s-value", AVRO)) == 1
    assert cache.schemas.register("s-value", AVRO) == 1
    assert len(fake.bodies) == 1


async def test_the_cache_is_bounded(fake: FakeRegistry, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "KNOWN_MAX", 2)
    fake.schemas |= {number: {"schema": TEXT} for number in (1, 2, 3)}
    for number in (1, 2, 3):
        await cache.until_known(partial(cache.schemas.get, number))
    await cache.until_known(lambda: cache.schemas.get(1))
    assert fake.asked["/schemas/ids/1"] == 2
    assert fake.asked["/schemas/ids/3"] == 1


async def test_closing_ends_the_questions(fake: FakeRegistry, client: SchemaRegistryClient) -> None:
    fake.gate.clear()
    cache = Cache(client)
    cache.schemas.get(1)
    await fake.arrived.wait()
    async with asyncio.timeout(DEADLINE_S):
        await cache.schemas.close()
    fake.gate.set()

"""The TLS handshake with a schema registry, by the settings of a worker."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inferd.daemon.checks.routes import check_schema_registry
from inferd.daemon.settings.settings import Settings
from inferd.schemas.connection import SchemaRegistryConnection
from inferd.streams.routes.formats import Pending, RegisteredSchema
from inferd.streams.routes.schema_registry import RegistryUnavailableError, SchemaCache, SchemaRegistryClient
from tests.fixtures.certificates import Authority, Pair
from tests.fixtures.fake_registry import FakeRegistry

DEADLINE_S = 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("right"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("wrong"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue("registry")


@asynccontextmanager
async def listening(server: Pair | None, clients: Authority | None = None) -> AsyncIterator[FakeRegistry]:
    """A registry with one schema. `clients`: the authority of the certificates that clients must show."""
    fake, context = FakeRegistry(), None
    fake.schemas[1] = {"schema": '"string"'}
    if server is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(server.cert, server.key)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients.cert)
    await fake.server.start_server(ssl=context)
    try:
        yield fake
    finally:
        await fake.server.close()


def connection(fake: FakeRegistry, authority: Authority | None, **more: object) -> SchemaRegistryConnection:
    """The connection of a worker with these settings."""
    values = {"url": fake.url, "ssl_cafile": None if authority is None else authority.cert, **more}
    environ = {f"INFERD_SCHEMA_REGISTRY_{name.upper()}": str(v) for name, v in values.items() if v is not None}
    found = Settings.from_environment(environ, {}).streams().schema_registry
    assert found is not None
    return found


async def refused(made: SchemaRegistryConnection) -> str:
    client = SchemaRegistryClient(made)
    with pytest.raises(RegistryUnavailableError) as error:
        await client.schema(1)
    await client.close()
    return error.value.message


async def test_a_registry_whose_authority_is_known(authority: Authority, server: Pair) -> None:
    async with listening(server) as fake:
        made = connection(fake, authority, username="ann", password="secret")
        assert made.url.startswith("https://127.0.0.1:")
        client = SchemaRegistryClient(made)
        assert (await client.schema(1)).text == '"string"'
        await client.close()
        assert fake.authorizations == [made.authorization()]


async def test_a_wait_for_a_registry_of_an_unknown_authority_is_named_and_ends_when_it_is_known(
    tmp_path: Path, authority: Authority, stranger: Authority, server: Pair
) -> None:
    trusted = tmp_path / "authority.pem"
    trusted.write_bytes(stranger.cert.read_bytes())
    async with listening(server) as fake:
        changed, crashes = asyncio.Event(), list[BaseException]()
        client = SchemaRegistryClient(connection(fake, None, ssl_cafile=trusted))
        cache = SchemaCache(client, crashes.append, changed.set, retry_s=(0.001, 0.01))
        assert isinstance(cache.get(1), Pending)
        async with asyncio.timeout(DEADLINE_S):
            while not any("waits" in each for each in cache.waits()):  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.001)
        (wait,) = cache.waits()
        assert "shows a certificate of an unknown authority" in wait
        assert "check INFERD_SCHEMA_REGISTRY_SSL_CAFILE" in wait
        assert fake.asked.total() == 0
        trusted.write_bytes(authority.cert.read_bytes())
        async with asyncio.timeout(DEADLINE_S):
            await changed.wait()
        assert isinstance(cache.get(1), RegisteredSchema)
        await cache.close()
        assert crashes == []


async def test_the_system_s_authorities_apply_without_a_file(server: Pair) -> None:
    async with listening(server) as fake:
        assert "INFERD_SCHEMA_REGISTRY_SSL_CAFILE" in await refused(connection(fake, None))


async def test_a_certificate_for_another_name_and_an_expired_one(authority: Authority) -> None:
    for pair, said in (
        (authority.issue("elsewhere", "DNS:registry.example"), "for another host name"),
        (authority.issue("expired", days=0), "has expired"),
    ):
        async with listening(pair) as fake:
            assert said in await refused(connection(fake, authority))


async def test_a_client_certificate(authority: Authority, stranger: Authority, server: Pair) -> None:
    ours, theirs = authority.issue("worker"), stranger.issue("worker")
    async with listening(server, clients=authority) as fake:
        client = SchemaRegistryClient(connection(fake, authority, ssl_certfile=ours.cert, ssl_keyfile=ours.key))
        assert (await client.schema(1)).text == '"string"'
        await client.close()
        assert "INFERD_SCHEMA_REGISTRY_SSL_CERTFILE" in await refused(connection(fake, authority))
        wrong = connection(fake, authority, ssl_certfile=theirs.cert, ssl_keyfile=theirs.key)
        assert "INFERD_SCHEMA_REGISTRY_SSL_CERTFILE" in await refused(wrong)


async def test_https_where_there_is_no_tls_and_the_other_way_round(authority: Authority, server: Pair) -> None:
    async with listening(None) as fake:
        url = fake.url.replace("http:", "https:")
        message = await refused(connection(fake, authority, url=url))
        assert "does not answer the TLS handshake" in message
        assert "INFERD_SCHEMA_REGISTRY_URL" in message
    async with listening(server) as fake:
        await refused(connection(fake, None, url=fake.url.replace("https:", "http:")))


async def test_the_doctor_names_the_authority(stranger: Authority, server: Pair) -> None:
    async with listening(server) as fake:
        (check,) = await check_schema_registry(connection(fake, stranger))
        assert check.state == "fail"
        assert "unknown authority" in check.detail
        assert "INFERD_SCHEMA_REGISTRY_SSL_" in (check.remedy or "")

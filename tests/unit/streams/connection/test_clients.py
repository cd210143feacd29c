"""Changes to aiokafka's clients: lost connections, moved brokers, failed attempts."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.metadata import MetadataRequest

import inferd
from inferd.schemas.connection import KafkaConnection
from inferd.streams.connection import clients as connections
from inferd.streams.connection.attempts import ConnectionAttempts
from inferd.streams.connection.unreachable import Reason

Make = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(autouse=True)
def stock() -> Iterator[None]:
    """Unpatched aiokafka, without failed attempts."""
    connections.install()
    for owner, name, function in REPLACED:
        setattr(owner, name, function)
    connections._attempts.__init__()  # type: ignore[misc]
    yield
    connections.install()


REPLACED: list[tuple[Any, str, Any]] = [
    (AIOKafkaConnection, "send", connections._stock_send),
    (AIOKafkaConnection, "connect", connections._stock_connect),
    (AIOKafkaClient, "coordinator_lookup", connections._stock_lookup),
    (AIOKafkaClient, "bootstrap", connections._stock_bootstrap),
    (AIOKafkaClient, "hosts", connections._stock_hosts),
    (AIOKafkaClient, "send", connections._stock_client_send),
    (AIOKafkaClient, "get_random_node", connections._stock_random_node),
    (AIOKafkaClient, "_get_conn", connections._stock_get_conn),
    (AIOKafkaClient, "_metadata_update", connections._stock_metadata_update),
    (Fetcher, "close", connections._stock_close_fetcher),
]


async def send_on_a_closed_transport() -> None:
    """Sends a request after the connection was reset and before this is noticed."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection: Any = AIOKafkaConnection("127.0.0.1", port, request_timeout_ms=100)
    connection._versions = {3: (0, 1)}
    connection._reader, connection._writer = await asyncio.open_connection("127.0.0.1", port)
    connection._read_task = asyncio.ensure_future(asyncio.Event().wait())
    connection._writer.transport.abort()
    await asyncio.sleep(0)
    try:
        await connection.send(MetadataRequest([]))
    finally:
        server.close()
        await server.wait_closed()


def run(make: Make, scenario: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(scenario())


def test_uvloop_raises_an_error_unknown_to_aiokafka() -> None:
    with pytest.raises(RuntimeError, match="closed"):
        run(uvloop.new_event_loop, send_on_a_closed_transport)


def test_a_closed_connection_is_a_lost_connection() -> None:
    connections.install()
    connections.install()
    with pytest.raises(KafkaConnectionError, match="broken"):
        run(uvloop.new_event_loop, send_on_a_closed_transport)


def test_other_errors_are_unchanged() -> None:
    connections.install()

    async def send_nonsense() -> None:
        connection: Any = AIOKafkaConnection("127.0.0.1", 1)

        class Writer:
            def is_closing(self) -> bool:
                return False

            def write(self, _data: bytes) -> None:
                raise RuntimeError("something else")

        connection._versions, connection._writer = {3: (0, 1)}, Writer()
        connection.send(MetadataRequest([]))

    with pytest.raises(RuntimeError, match="something else"):
        run(asyncio.new_event_loop, send_nonsense)


async def look_for_the_coordinator() -> Any:
    """Looks up a coordinator with a client that knows no node, since its broker has just started."""
    client = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")
    return await client.coordinator_lookup(CoordinationType.TRANSACTION, "id")


async def test_aiokafka_asserts_that_some_broker_is_known() -> None:
    with pytest.raises(AssertionError, match="bootstrap"):
        await look_for_the_coordinator()


async def test_without_a_known_broker_the_coordinator_lookup_is_retried() -> None:
    connections.install()
    with pytest.raises(NodeNotReadyError, match="no broker yet"):
        await look_for_the_coordinator()
    assert NodeNotReadyError.retriable, "which causes a retry"


HOST = "127.0.0.1"
METADATA = 3


class Broker:
    """A node that responds to ApiVersions and Metadata, and advertises `advertised`. It is alone in its cluster, unless
    `others` are in it."""

    def __init__(self, host: str = HOST) -> None:
        self.host, self.advertised, self.port = host, 0, 0
        self.others: list[Broker] = []
        self.silent: frozenset[int] = frozenset()
        """Keys of requests that it does not answer."""
        self.name = host
        """Its advertised address."""
        self.accepted = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.advertised = self.advertised or self.port

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                key, version, correlation_id = struct.unpack_from(">hhi", await reader.readexactly(size))
                if key in self.silent:
                    continue
                body = self._metadata() if key == METADATA else _api_versions(version)
                writer.write(struct.pack(">ii", len(body) + 4, correlation_id) + body)
        writer.close()

    def _metadata(self) -> bytes:
        nodes = [self, *self.others]
        return struct.pack(">i", len(nodes)) + b"".join(map(_node, range(1, 1 + len(nodes)), nodes)) + bytes(4)


def _node(number: int, broker: Broker) -> bytes:
    host = broker.name.encode()
    return struct.pack(f">ih{len(host)}si", number, len(host), host, broker.advertised)


def _api_versions(version: int) -> bytes:
    return struct.pack(">hi6h", 0, 2, METADATA, 0, 0, 18, 0, 2) + (struct.pack(">i", 0) if version else b"")


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Any]:
    """A bootstrapped client."""
    client = AIOKafkaClient(**connections.client_options(KafkaConnection(address)))
    try:
        await client.bootstrap()
        yield client
    finally:
        await client.close()


async def until_connected(client: Any, broker: Broker) -> None:
    """Waits until the client is connected to a new broker."""
    before = broker.accepted
    async with asyncio.timeout(30):
        while not (await client.ready(1) and broker.accepted > before):
            await client.force_metadata_update()


async def test_moved_brokers_are_found_through_the_bootstrap_servers() -> None:
    entrance, broker, moved = Broker(), Broker(), Broker()
    await broker.start()
    await moved.start()
    entrance.advertised = broker.port
    await entrance.start()
    async with connected(f"{HOST}:{entrance.port}") as client:
        await until_connected(client, broker)
        entrance.advertised = moved.port
        await broker.stop()
        await until_connected(client, moved)
        assert client.cluster.broker_metadata(1).port == moved.port
        assert (await client.fetch_all_metadata()).broker_metadata(1).port == moved.port
    await entrance.stop()
    await moved.stop()


async def test_unpatched_clients_never_find_moved_brokers() -> None:
    """The reason for the patch: bootstrap servers are used only once."""
    entrance, broker = Broker(), Broker()
    await broker.start()
    entrance.advertised = broker.port
    await entrance.start()
    client: Any = AIOKafkaClient(bootstrap_servers=f"{HOST}:{entrance.port}")
    await client.bootstrap()
    await broker.stop()
    entrance.advertised = entrance.port
    assert not await client.force_metadata_update()
    await client.close()
    await entrance.stop()


async def test_a_changed_dns_name_is_resolved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Broker("127.0.0.1"), Broker("127.0.0.2")
    await first.start()
    await second.start(first.port)
    names, resolve = {"kafka.test": first.host}, socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: resolve(names[host], *more, **options))
    first.name = second.name = "kafka.test"
    async with connected(f"kafka.test:{first.port}") as client:
        await until_connected(client, first)
        names["kafka.test"] = second.host
        await first.stop()
        await until_connected(client, second)
    await second.stop()


async def test_clients_share_the_attempts_to_connect_to_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_attempts", ConnectionAttempts(clock=lambda: 0.0))
    monkeypatch.setattr(connections, "PACE_S", 0.001)
    broker = Broker()
    await broker.start()
    address = f"{HOST}:{broker.port}"
    async with connected(address) as one, connected(address) as other:
        await broker.stop()
        tried = 0

        async def reject(_connection: Any) -> None:
            nonlocal tried
            tried += 1
            raise ConnectionRefusedError

        monkeypatch.setattr(connections, "_stock_connect", reject)
        for _ in range(20):
            assert [await client.ready(1) for client in (one, other)] == [False, False]
        # Both may have noticed the lost connection at the same time, before the first attempt failed.
        assert tried <= 2


async def test_each_connection_attempt_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SETUP_TIMEOUT_S", 0.05)
    with socket.create_server((HOST, 0)) as silent:
        address = f"{HOST}:{silent.getsockname()[1]}"
        connection = KafkaConnection(address)
        with pytest.raises(KafkaConnectionError) as unable:
            await AIOKafkaClient(**connections.client_options(connection)).bootstrap()
    assert isinstance(unable.value.__cause__, TimeoutError)
    assert connections.why_unreachable(connection) == (address, Reason("unreachable", "does not answer in time"))


API_VERSIONS = 18
EVERYTHING = frozenset({API_VERSIONS, METADATA})
TIMES = 20
"""Random choices that would otherwise fall on each of two brokers."""


@asynccontextmanager
async def two_brokers() -> AsyncIterator[tuple[Broker, Broker]]:
    """A cluster of nodes 1 and 2, whose bootstrap servers are both."""
    good, hidden = Broker(), Broker()
    await good.start()
    await hidden.start()
    good.others = [hidden]
    hidden.others = [good]
    yield good, hidden
    await good.stop()
    await hidden.stop()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SETUP_TIMEOUT_S", 0.2)


@pytest.mark.usefixtures("hurry")
async def test_a_broker_that_hangs_is_asked_last() -> None:
    async with two_brokers() as (good, hidden):
        hidden.silent = EVERYTHING
        servers = f"{HOST}:{hidden.port},{HOST}:{good.port}"
        async with connected(servers) as client:
            assert not await client.ready(2)
            tried = hidden.accepted
            assert {client.get_random_node() for _ in range(TIMES)} == {1}
            for _ in range(TIMES):
                assert await client.force_metadata_update()
            for _ in range(TIMES):
                async with connected(servers):
                    pass
            assert hidden.accepted == tried
            hidden.silent = frozenset()
            async with asyncio.timeout(10):
                while not await client.ready(2):
                    pass
            assert {client.get_random_node() for _ in range(TIMES)} == {1, 2}


async def test_a_broker_that_callers_give_up_on_is_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HUNG_S", 0.05)
    async with two_brokers() as (good, hidden):
        hidden.silent = EVERYTHING
        servers = f"{HOST}:{hidden.port},{HOST}:{good.port}"
        while not hidden.accepted:  # the first server is chosen at random
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2), connected(servers):
                    pass
        tried = hidden.accepted
        for _ in range(TIMES):
            async with connected(servers):
                pass
        assert hidden.accepted == tried


async def test_while_a_client_waits_for_a_broker_it_connects_to_others() -> None:
    async with two_brokers() as (good, hidden), connected(f"{HOST}:{good.port}") as client:
        hidden.silent = EVERYTHING
        waiting = asyncio.create_task(client.ready(2))
        async with asyncio.timeout(5):
            while not hidden.accepted:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert await client.ready(1)
        assert not waiting.done()
        waiting.cancel()


async def test_a_broker_that_no_longer_answers_has_failed_until_it_is_reached_again() -> None:
    async with two_brokers() as (good, hidden), connected(f"{HOST}:{good.port}") as client:
        assert await client.ready(1)
        assert await client.ready(2)
        client._conns[2, ConnectionGroup.DEFAULT]._request_timeout = 0.05
        hidden.silent = frozenset({METADATA})
        with pytest.raises(RequestTimedOutError):
            await client.send(2, MetadataRequest([]))
        assert {client.get_random_node() for _ in range(TIMES)} == {1}
        async with asyncio.timeout(10):
            while not await client.ready(2):
                pass
        assert {client.get_random_node() for _ in range(TIMES)} == {1, 2}


async def test_a_connection_without_an_answer_about_metadata_is_closed() -> None:
    async with two_brokers() as (good, hidden), connected(f"{HOST}:{good.port}") as client:
        for node in (1, 2):
            assert await client.ready(node)
            client._conns[node, ConnectionGroup.DEFAULT]._request_timeout = 0.05
        stuck = client._conns[2, ConnectionGroup.DEFAULT]
        hidden.silent = frozenset({METADATA})
        for _ in range(TIMES):
            assert await client.force_metadata_update()
        assert not stuck.connected()


async def test_a_failed_update_of_metadata_is_no_error_because_it_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    await broker.start()
    async with connected(f"{HOST}:{broker.port}") as client:
        await broker.stop()
        assert not await client.force_metadata_update()
    own = [record for record in caplog.records if record.name.startswith("inferd")]
    assert "Unable to update metadata from" in own[-1].message
    assert {record.levelname for record in own} <= {"INFO", "WARNING"}


async def test_an_invalid_response_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def strange(_connection: Any) -> None:
        raise ValueError("Server sent wrong signature!")

    monkeypatch.setattr(connections, "_stock_connect", strange)
    connections.install()
    with pytest.raises(KafkaConnectionError, match="wrong signature"):
        await AIOKafkaConnection(HOST, 1).connect()


async def test_a_password_file_is_read_for_each_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    async def note(connection: Any) -> None:
        seen.append(connection._sasl_plain_password)

    monkeypatch.setattr(connections, "_stock_connect", note)
    file = tmp_path / "password"
    options = connections.client_options(
        KafkaConnection(security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password_file=str(file))
    )
    del options["bootstrap_servers"]
    for password in ("old", "new\n"):
        file.write_text(password)
        await AIOKafkaConnection(HOST, 1, **options).connect()
    file.unlink()
    with pytest.raises(FileNotFoundError):
        await AIOKafkaConnection(HOST, 1, **options).connect()
    assert seen == ["old", "new"]


def fetcher_in_backoff() -> Any:
    """A fetcher whose broker is unreachable: a fetch has failed and sleeps."""
    fetcher: Any = Fetcher.__new__(Fetcher)
    fetcher._fetch_task = asyncio.ensure_future(asyncio.Event().wait())
    fetcher._pending_tasks = {asyncio.ensure_future(asyncio.sleep(60))}
    fetcher._fetch_waiters = set()
    return fetcher


async def test_unpatched_fetchers_raise_the_cancellation_of_their_tasks() -> None:
    fetcher = fetcher_in_backoff()
    with pytest.raises(asyncio.CancelledError):
        await fetcher.close()


async def test_a_fetcher_closes_while_its_broker_is_unreachable() -> None:
    connections.install()
    fetcher = fetcher_in_backoff()
    tasks = {fetcher._fetch_task, *fetcher._pending_tasks}
    await fetcher.close()
    assert all(task.cancelled() for task in tasks)


def test_every_client_has_these_options() -> None:
    """With aiokafka's options alone, a client would never find moved brokers."""
    root = Path(inferd.__file__).resolve().parents[1]
    sources = [path for name in ("daemon", "inferd", "streams") for path in (root / name).rglob("*.py")]
    users = {path.name for path in sources if ".aiokafka_options()" in path.read_text(encoding="utf-8")}
    assert users == {"clients.py"}

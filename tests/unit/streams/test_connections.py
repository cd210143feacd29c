"""A connection that is closed under a request fails as every lost connection does, whatever the event loop says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError
from aiokafka.protocol.metadata import MetadataRequest

from streams import connections

Make = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(autouse=True)
def stock() -> Iterator[None]:
    """aiokafka as it was before."""
    connection: Any = AIOKafkaConnection
    client: Any = AIOKafkaClient
    send, lookup = connection.send, client.coordinator_lookup
    connection.send, client.coordinator_lookup = connections._stock_send, connections._stock_lookup
    yield
    connection.send, client.coordinator_lookup = send, lookup


async def send_on_a_closed_transport() -> None:
    """What a request does that comes between the reset and its notice."""
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


def test_uvloop_raises_what_aiokafka_does_not_expect() -> None:
    with pytest.raises(RuntimeError, match="closed"):
        run(uvloop.new_event_loop, send_on_a_closed_transport)


def test_a_closed_connection_is_a_lost_one() -> None:
    connections.install()
    connections.install()
    with pytest.raises(KafkaConnectionError, match="broken"):
        run(uvloop.new_event_loop, send_on_a_closed_transport)


def test_other_faults_stay_what_they_are() -> None:
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
    """By a client whose broker has told of no node: it has just been started."""
    client = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")
    return await client.coordinator_lookup(CoordinationType.TRANSACTION, "id")


async def test_aiokafka_asserts_that_some_broker_is_known() -> None:
    with pytest.raises(AssertionError, match="bootstrap"):
        await look_for_the_coordinator()


async def test_without_a_known_broker_a_coordinator_is_looked_for_again() -> None:
    connections.install()
    with pytest.raises(NodeNotReadyError, match="no broker yet"):
        await look_for_the_coordinator()
    assert NodeNotReadyError.retriable, "which is what makes everybody ask again"

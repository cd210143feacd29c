"""Errors for a broker that cannot be reached, and the settings they name."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka.errors import SaslAuthenticationFailed

from inferd.daemon.cluster import bootstrap_addresses, reach, why
from inferd.schemas.connection import BrokerUnreachableError, KafkaConnection

METADATA = 3
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve_and_close, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def kafka(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Responds to ApiVersions (as a broker with Produce 0 to 9) and Metadata, until the client disconnects."""
    while True:
        try:
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            key, version, correlation_id = struct.unpack_from(">hhi", await reader.readexactly(size))
        except asyncio.IncompleteReadError:
            return
        if key == METADATA:
            body = struct.pack(">iiii", correlation_id, 0, -1, 0)
        else:
            body = struct.pack(">ihi9h", correlation_id, 0, 3, 0, 0, 9, METADATA, 0, 1, 18, 0, 2)
            body += struct.pack(">i", 0) if version else b""
        writer.write(struct.pack(">i", len(body)) + body)


async def hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    await writer.drain()


async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


async def rejection(servers: str, timeout_s: float = 2.0, **options: str) -> str:
    with pytest.raises(BrokerUnreachableError) as refused:
        await reach(KafkaConnection(servers, **options), timeout_s)  # type: ignore[arg-type]
    return refused.value.message


async def test_a_broker_reports_its_api_versions() -> None:
    async with serving(kafka) as address:
        answer = await reach(KafkaConnection(address), 2)
    assert f"{answer.host}:{answer.port}" == address
    assert answer.api_versions == {0: (0, 9), METADATA: (0, 1), 18: (0, 2)}


async def test_one_reachable_broker_is_sufficient() -> None:
    async with serving(kafka) as address:
        answer = await reach(KafkaConnection(f"{closed_port()},{address}"), 2)
    assert f"{answer.host}:{answer.port}" == address


async def test_a_closed_port() -> None:
    address = closed_port()
    assert await rejection(address) == f"no Kafka broker answers: {address} refuses connections: nothing listens there"


async def test_each_server_has_its_reason() -> None:
    one, two = closed_port(), closed_port()
    message = await rejection(f"{one},{two}")
    assert one in message
    assert two in message


async def test_an_unknown_host_name() -> None:
    assert "nowhere.invalid:9092 cannot be reached" in await rejection("nowhere.invalid:9092")


@pytest.mark.parametrize("serve", [hang_up, speak_http])
async def test_a_server_that_is_not_kafka(serve: Serve) -> None:
    async with serving(serve) as address:
        message = await rejection(address)
    assert "it may not be a Kafka listener" in message
    assert "INFERD_KAFKA_SECURITY_PROTOCOL" in message


async def test_a_server_that_does_not_respond() -> None:
    async with serving(say_nothing) as address:
        assert "does not answer within 0.2 s" in await rejection(address, 0.2)


async def test_a_server_without_tls() -> None:
    async with serving(speak_http) as address:
        message = await rejection(address, security_protocol="SSL")
    assert "INFERD_KAFKA_S" in message


def test_a_rejected_password_names_its_settings() -> None:
    assert "INFERD_KAFKA_SASL_PASSWORD" in why(SaslAuthenticationFailed("wrong password"), KafkaConnection(), 1)


def test_addresses() -> None:
    assert bootstrap_addresses("a:1, b.c:2,[::1]:3") == [("a", 1), ("b.c", 2), ("::1", 3)]

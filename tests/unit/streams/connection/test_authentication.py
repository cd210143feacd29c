"""Sessions that end are renewed on the open connection, while other requests wait; rejected tokens are errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError, SaslAuthenticationFailed
from aiokafka.protocol.admin import (
    ApiVersionRequest,
    SaslAuthenticateResponse_v1,
    SaslHandShakeResponse_v1,
)

from inferd.schemas.oauth import AccessToken
from inferd.streams.connection import authentication
from inferd.streams.connection import clients as connections
from inferd.streams.connection.oauth import Tokens

HANDSHAKE, AUTHENTICATE, VERSIONS = 17, 36, 18
VERSIONS_ANSWER = (
    b"\0\0"
    + b"\0\0\0\3"
    + b"".join(
        key.to_bytes(2) + low.to_bytes(2) + high.to_bytes(2) for key, low, high in ((17, 1, 1), (36, 1, 1), (18, 0, 0))
    )
)


class Broker:
    """Answers handshakes, authentications and ApiVersions; records the requests of all connections in order."""

    def __init__(self) -> None:
        self.lifetime_ms = 0
        self.challenge = b""
        self.keys: list[int] = []
        self.accepts = True
        self.gate = asyncio.Event()
        """Handshakes after the first one wait for it."""
        self.gate.set()
        self.arrived = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4))
                message = await reader.readexactly(size)
                self.keys.append(key := int.from_bytes(message[:2]))
                if key == HANDSHAKE:
                    self.arrived.set()
                    await self.gate.wait()
                answer = message[4:8] + self.answer(key)
                writer.write(len(answer).to_bytes(4) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, key: int) -> bytes:
        if key == HANDSHAKE:
            return bytes(SaslHandShakeResponse_v1(0, ["OAUTHBEARER"]).encode())
        if key == AUTHENTICATE:
            code = 0 if self.accepts else 58
            return bytes(SaslAuthenticateResponse_v1(code, "no", self.challenge, self.lifetime_ms).encode())
        return VERSIONS_ANSWER


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    connections.install()
    connections._attempts.__init__()  # type: ignore[misc]
    yield
    connections._attempts.__init__()  # type: ignore[misc]


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    found = Broker()
    async with await asyncio.start_server(found.serve, "127.0.0.1", 0) as server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


async def connected(broker: Broker) -> Any:
    connection = AIOKafkaConnection(
        "127.0.0.1",
        broker.port,
        request_timeout_ms=20_000,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        sasl_oauth_token_provider=Tokens(lambda: AccessToken("t"), "x"),
    )
    await connection.connect()
    return connection


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.001)


async def test_a_session_without_end_is_not_renewed(broker: Broker) -> None:
    connection = await connected(broker)
    assert broker.keys == [VERSIONS, HANDSHAKE, AUTHENTICATE]
    assert connection not in authentication._lifetimes_ms
    connection.close()


async def test_a_session_that_ends_is_renewed_again_and_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "DELAY_S_MIN", 0.01)
    broker.lifetime_ms = 20
    connection = await connected(broker)
    await until(lambda: broker.keys.count(AUTHENTICATE) >= 4)
    assert connection.connected()
    connection.close()


async def test_requests_wait_while_a_connection_authenticates_again(broker: Broker) -> None:
    connection = await connected(broker)
    broker.gate.clear()
    broker.arrived.clear()
    renewing = asyncio.create_task(authentication.renew(connection))
    await broker.arrived.wait()
    sent = [asyncio.create_task(connection.send(ApiVersionRequest())) for _ in range(3)]
    await asyncio.sleep(0.01)
    broker.gate.set()
    await asyncio.wait_for(asyncio.gather(renewing, *sent), 30)
    assert broker.keys[3:] == [HANDSHAKE, AUTHENTICATE, VERSIONS, VERSIONS, VERSIONS]
    connection.close()


async def test_a_failed_renewal_closes_the_connection_and_fails_what_waits(broker: Broker) -> None:
    connection = await connected(broker)
    broker.gate.clear()
    broker.arrived.clear()
    broker.accepts = False
    renewing = asyncio.create_task(authentication.renew(connection))
    await broker.arrived.wait()
    sent = asyncio.create_task(connection.send(ApiVersionRequest()))
    await asyncio.sleep(0)
    broker.gate.set()
    with pytest.raises(KafkaConnectionError):
        await asyncio.wait_for(sent, 30)
    await renewing
    assert not connection.connected()


async def test_a_connection_that_is_lost_while_it_authenticates_again(broker: Broker) -> None:
    connection = await connected(broker)
    broker.gate.clear()
    broker.arrived.clear()
    renewing = asyncio.create_task(authentication.renew(connection))
    await broker.arrived.wait()
    connection.close()
    await asyncio.wait_for(renewing, 30)
    broker.gate.set()


async def test_the_challenge_that_rejects_a_token_is_an_error(broker: Broker) -> None:
    broker.challenge = b'{"status":"invalid_token"}'
    with pytest.raises(SaslAuthenticationFailed, match="invalid_token"):
        await connected(broker)


async def test_a_connection_that_is_gone_is_not_renewed(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "DELAY_S_MIN", 0.01)
    broker.lifetime_ms = 20
    connection = await connected(broker)
    connection.close()
    seen = list(broker.keys)
    await asyncio.sleep(0.05)
    assert broker.keys == seen

"""The proxy relays frames and applies the configured faults."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from inferd.daemon.broker.probe import free_port
from tests.chaos.proxy import HOST, OFFSET_COMMIT, PRODUCE, Proxy
from tests.fixtures.workers import until

TIMEOUT_S = 20.0


class Echo:
    """Answers each request with its correlation id and the bytes after it."""

    def __init__(self) -> None:
        self.port = free_port(HOST)
        self.requests = 0
        self._server = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while (frame := received(connection)) is not None:
                self.requests += 1
                connection.sendall(struct.pack(">i", len(frame) - 4) + frame[4:])

    def close(self) -> None:
        # A thread that waits in `accept` keeps the socket open until it wakes.
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def received(connection: socket.socket) -> bytes | None:
    """The next frame; None at the end."""
    try:
        size = connection.recv(4, socket.MSG_WAITALL)
        return connection.recv(struct.unpack(">i", size)[0], socket.MSG_WAITALL) if len(size) == 4 else None
    except OSError:
        return None


def ask(connection: socket.socket, api_key: int, correlation: int) -> None:
    frame = struct.pack(">hhi", api_key, 0, correlation) + b"body"
    connection.sendall(struct.pack(">i", len(frame)) + frame)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    made = Proxy(free_port(HOST), echo.port)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, proxy.port), TIMEOUT_S) as connection:
        yield connection


def reply(correlation: int) -> bytes:
    return struct.pack(">i", correlation) + b"body"


def test_frames_pass(client: socket.socket) -> None:
    for n in range(3):
        ask(client, PRODUCE, n)
    assert [received(client) for _ in range(3)] == [reply(n) for n in range(3)]


def test_latency_delays_both_directions_and_keeps_frames_in_flight(proxy: Proxy, client: socket.socket) -> None:
    proxy.latency_s = 0.1
    started = time.monotonic()
    for n in range(100):
        ask(client, PRODUCE, n)
    assert [received(client) for _ in range(100)] == [reply(n) for n in range(100)]
    assert 0.2 <= time.monotonic() - started < 10


def test_a_reset_ends_connections(proxy: Proxy, client: socket.socket) -> None:
    ask(client, PRODUCE, 1)
    assert received(client) == reply(1)
    proxy.reset()
    assert received(client) is None
    assert proxy.resets == 1


def test_a_lost_reply_was_acted_on(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    proxy.lose_replies([OFFSET_COMMIT], 1)
    ask(client, PRODUCE, 1)
    assert received(client) == reply(1)
    ask(client, OFFSET_COMMIT, 2)
    assert received(client) is None
    assert (echo.requests, proxy.lost_replies) == (2, {OFFSET_COMMIT: 1})


def test_held_frames_arrive_after_healing(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    ask(client, PRODUCE, 1)
    assert received(client) == reply(1)
    proxy.hold()
    ask(client, PRODUCE, 2)
    client.settimeout(0.2)
    assert received(client) is None
    assert echo.requests == 1
    client.settimeout(TIMEOUT_S)
    proxy.heal()
    assert received(client) == reply(2)


def test_dropped_requests_are_lost_with_their_connection(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    ask(client, PRODUCE, 1)
    assert received(client) == reply(1)
    proxy.swallows = True
    ask(client, PRODUCE, 2)
    until(lambda: any(link.has_swallowed for link in proxy.links), TIMEOUT_S, "the frame to be swallowed")
    proxy.heal()
    assert received(client) is None
    assert echo.requests == 1


def test_requests_behind_a_dropped_request_are_not_answered(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    proxy.swallowed_requests = frozenset({PRODUCE})
    for n, api_key in enumerate((OFFSET_COMMIT, PRODUCE, OFFSET_COMMIT)):
        ask(client, api_key, n)
    with socket.create_connection((HOST, proxy.port), TIMEOUT_S) as other:
        ask(other, OFFSET_COMMIT, 3)
        assert received(other) == reply(3)
    assert received(client) == reply(0)
    until(lambda: any(link.has_swallowed for link in proxy.links), TIMEOUT_S, "the frame to be swallowed")
    proxy.heal()
    assert received(client) is None
    assert echo.requests == 2


def test_without_a_broker_connections_end(proxy: Proxy, echo: Echo) -> None:
    echo.close()
    echo._server = socket.create_server((HOST, 0))  # for the fixture to close
    # With a reset or without one: it is over.
    with contextlib.suppress(ConnectionResetError), socket.create_connection((HOST, proxy.port), TIMEOUT_S) as link:
        assert received(link) is None


def test_held_frames_arrive_even_if_their_sender_has_disconnected(proxy: Proxy, echo: Echo) -> None:
    proxy.held_requests = frozenset({OFFSET_COMMIT})
    with socket.create_connection((HOST, proxy.port), TIMEOUT_S) as connection:
        ask(connection, OFFSET_COMMIT, 1)
        until(lambda: any(link.holds for link in proxy.links), TIMEOUT_S, "the request to be held")
    assert echo.requests == 0
    proxy.heal()
    until(lambda: echo.requests == 1, TIMEOUT_S, "the request to arrive")

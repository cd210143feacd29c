"""The readiness probe against servers that speak Kafka's protocol, and servers that do not."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inferd.daemon.broker import PortTakenError
from inferd.daemon.broker.probe import cluster_id_at, free_port, is_port_free


def text(value: str | None) -> bytes:
    if value is None:
        return struct.pack(">h", -1)
    return struct.pack(">h", len(value)) + value.encode()


def metadata(cluster_id: str | None, brokers: int = 1, correlation_id: int = 1) -> bytes:
    body = struct.pack(">iii", correlation_id, 0, brokers)
    for node in range(brokers):
        body += struct.pack(">i", node) + text("127.0.0.1") + struct.pack(">i", 9092) + text(None)
    body += text(cluster_id) + struct.pack(">ii", 1, 0)
    return struct.pack(">i", len(body)) + body


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """A server that reads one request and sends `reply`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                (size,) = struct.unpack(">i", connection.recv(4))
                connection.recv(size)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("brokers", [1, 3])
def test_a_broker_reports_its_cluster_id(brokers: int) -> None:
    with answering(metadata("cluster-1", brokers)) as port:
        assert cluster_id_at("127.0.0.1", port) == "cluster-1"


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\0\0",
        metadata("c", brokers=0),
        metadata("c", correlation_id=2),
        metadata(None),
        metadata("cluster")[:-12],
        struct.pack(">i", 20) + metadata("c")[4:24],
        struct.pack(">i", 1 << 30) + b"x" * 100,
        struct.pack(">i", -1),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack(">iiii", 12, 1, 0, 1_000_000),
    ],
)
def test_another_server_is_not_a_broker(reply: bytes) -> None:
    with answering(reply) as port:
        assert cluster_id_at("127.0.0.1", port) is None


def test_a_closed_port_is_not_a_broker() -> None:
    assert cluster_id_at("127.0.0.1", free_port("127.0.0.1")) is None


def test_a_port_is_free_until_someone_listens() -> None:
    port = free_port("127.0.0.1")
    assert is_port_free("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_port_free("127.0.0.1", port)
    assert is_port_free("127.0.0.1", port)


def test_a_free_port_is_not_ephemeral() -> None:
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port("127.0.0.1") < least for _ in range(20))


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.daemon.broker.probe.is_port_free", lambda *_: False)
    with pytest.raises(PortTakenError, match=r"no free port found on 127\.0\.0\.1 between 20000 and 32767: choose one"):
        free_port("127.0.0.1")

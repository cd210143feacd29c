"""Asks a broker for its cluster id over a plain socket, with a Metadata request (version 5); finds free ports."""

from __future__ import annotations

import secrets
import socket
import struct

from inferd.daemon.broker.errors import PortTakenError

METADATA_KEY, METADATA_VERSION = 3, 5
CORRELATION_ID = 1
RESPONSE_BYTES_MAX = 1 << 20
FREE_PORTS = range(20_000, 32_768)
FREE_PORT_TRIES = 100


def cluster_id_at(host: str, port: int, timeout_s: float = 2.0) -> str | None:
    """Cluster id of the broker that serves clients at this address; None if there is none (yet).

    Raises nothing: a server that does not speak Kafka's protocol counts as none.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(_metadata_request())
            return _read_cluster_id(_read_response(connection))
    except (OSError, struct.error, ValueError):
        return None


def is_port_free(host: str, port: int) -> bool:
    """Whether a server can bind the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # The JVM sets it, too: a port with connections in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str) -> int:
    """A port that is free at the moment.

    Not an ephemeral port: a client that keeps reconnecting to a broker that is down could get the broker's own port as
    its source port, connect to itself, and block the broker.
    """
    for _ in range(FREE_PORT_TRIES):
        port = secrets.choice(FREE_PORTS)
        if is_port_free(host, port):
            return port
    raise PortTakenError(f"no free port found on {host} between {FREE_PORTS[0]} and {FREE_PORTS[-1]}: choose one")


def free_ports(host: str, count: int) -> list[int]:
    """So many different ports that are free at the moment."""
    found: list[int] = []
    while len(found) < count:
        if (port := free_port(host)) not in found:
            found.append(port)
    return found


def _metadata_request() -> bytes:
    client = b"inferd"
    header = struct.pack(f">hhih{len(client)}s", METADATA_KEY, METADATA_VERSION, CORRELATION_ID, len(client), client)
    no_topics, no_creation = struct.pack(">i", 0), b"\x00"
    body = header + no_topics + no_creation
    return struct.pack(">i", len(body)) + body


def _read_response(connection: socket.socket) -> bytes:
    (size,) = struct.unpack(">i", _read_exactly(connection, 4))
    if not 0 < size <= RESPONSE_BYTES_MAX:
        raise ValueError(f"a response of {size} bytes")
    return _read_exactly(connection, size)


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ValueError("the connection ended within a response")
        parts += part
    return bytes(parts)


def _read_cluster_id(response: bytes) -> str | None:
    correlation_id, _throttle_ms, brokers = struct.unpack_from(">iii", response)
    if correlation_id != CORRELATION_ID or brokers < 1:
        return None
    offset = 12
    for _ in range(brokers):
        _host, offset = _read_string(response, offset + 4)
        _rack, offset = _read_string(response, offset + 4)
    cluster_id, _ = _read_string(response, offset)
    return cluster_id


def _read_string(data: bytes, offset: int) -> tuple[str | None, int]:
    (size,) = struct.unpack_from(">h", data, offset)
    start = offset + 2
    if size < 0:
        return None, start
    return data[start : start + size].decode(), start + size

"""The network of a cluster: what passes between nodes that are isolated, and afterwards."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from inferd.daemon.broker.probe import free_ports
from tests.chaos.network import CLIENTS, HOST, Network, Ports, Way, address, name

TIMEOUT_S = 10.0
SILENT_S = 0.2


class Cluster:
    """Two nodes with a network; each node listens on its ports, and the tests send its answers."""

    def __init__(self, network: Network, stack: ExitStack) -> None:
        self.network, self._stack = network, stack
        self._servers = {
            (node, port): stack.enter_context(socket.create_server((HOST, port)))
            for node, ports in network.ports.items()
            for port in (ports.clients, ports.nodes, ports.controller)
        }

    def dial(self, way: Way, port: int) -> socket.socket:
        connection = self._stack.enter_context(socket.create_connection((address(way), port), TIMEOUT_S))
        connection.settimeout(TIMEOUT_S)
        return connection

    def accept(self, node: int, port: int, within_s: float = TIMEOUT_S) -> socket.socket:
        server = self._servers[node, port]
        server.settimeout(within_s)
        connection = self._stack.enter_context(server.accept()[0])
        connection.settimeout(TIMEOUT_S)
        return connection

    def joined(self, way: Way, port: int) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection."""
        return self.dial(way, port), self.accept(way[1], port)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    free = free_ports(HOST, 6)
    network = Network({1: Ports(*free[:3]), 2: Ports(*free[3:])})
    with ExitStack() as stack:
        made = Cluster(network, stack)
        network.start()
        stack.callback(network.stop)
        yield made


def received(connection: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count and (part := connection.recv(count - len(read))):
        read += part
    return read


def silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENT_S)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(TIMEOUT_S)
    return False


def ways(cluster: Cluster) -> list[tuple[Way, int]]:
    ports = cluster.network.ports
    found: list[tuple[Way, int]] = [((CLIENTS, node), ports[node].clients) for node in ports]
    for start, end in ((1, 2), (2, 1)):
        found += [((start, end), ports[end].nodes), ((start, end), ports[end].controller)]
    return found


def test_bytes_pass_in_both_directions_and_so_does_an_end(cluster: Cluster) -> None:
    for way, port in ways(cluster):
        near, far = cluster.joined(way, port)
        near.sendall(b"request")
        assert received(far, 7) == b"request"
        far.sendall(b"reply" * 100_000)
        assert received(near, 500_000) == b"reply" * 100_000
        far.close()
        assert near.recv(1) == b""


@pytest.mark.parametrize("from_clients", [True, False])
def test_a_node_is_cut_off_and_what_was_sent_arrives_when_it_heals(cluster: Cluster, from_clients: bool) -> None:
    ends = {way: cluster.joined(way, port) for way, port in ways(cluster)}
    cluster.network.isolate(1, from_clients=from_clients)
    open_ways = {(CLIENTS, 2)} if from_clients else {(CLIENTS, 1), (CLIENTS, 2)}
    for way, (near, far) in ends.items():
        near.sendall(b"a")
        far.sendall(b"b")
        assert (silent(far), silent(near)) == ((False, False) if way in open_ways else (True, True)), way
    cluster.network.heal()
    for way, (near, far) in ends.items():
        if way not in open_ways:
            assert (far.recv(1), near.recv(1)) == (b"a", b"b")


def test_new_connections_wait_until_it_heals(cluster: Cluster) -> None:
    port = cluster.network.ports[2].nodes
    cluster.network.isolate(1)
    near = cluster.dial((1, 2), port)
    near.sendall(b"a")
    with pytest.raises(TimeoutError):
        cluster.accept(2, port, SILENT_S)
    cluster.network.heal()
    assert cluster.accept(2, port).recv(1) == b"a"


def test_a_connection_to_a_node_that_does_not_run_ends(cluster: Cluster) -> None:
    port = cluster.network.ports[2].nodes
    cluster._servers[2, port].close()
    assert cluster.dial((1, 2), port).recv(1) == b""


def test_each_node_resolves_itself_directly_and_the_others_through_the_network() -> None:
    network = Network({number: Ports(1, 2, 3) for number in (1, 2, 3)})
    lines = network.hosts(2).splitlines()
    assert lines == [f"127.0.0.1 {name(2)} localhost", f"127.0.12.1 {name(1)}", f"127.0.12.3 {name(3)}"]

"""The embedded broker with a second listener, which it advertises at the address of a proxy; and a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from inferd.daemon.broker import EmbeddedCluster, EmbeddedKafka
from inferd.daemon.broker.probe import free_port, free_ports
from tests.chaos.network import CLIENTS, HOST, Network, Ports, address, name
from tests.chaos.proxy import Proxy
from tests.fixtures.broker import FAST_GROUPS, broker_settings

EXTRA = {
    **FAST_GROUPS,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
}


class ProxiedKafka(EmbeddedKafka):
    """A broker that clients of `proxy` only reach through the proxy: its advertised addresses are rewritten."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(broker_settings(data_dir, extra=EXTRA))
        self.network = self.proxy = Proxy(free_port(HOST), free_port(HOST))

    @property
    def bootstraps(self) -> tuple[str, ...]:
        """Addresses for workers, which take turns."""
        return self.proxy.address, self.bootstrap_servers

    def _write_server_properties(self, kafka_dir: Path) -> Path:
        path = super()._write_server_properties(kafka_dir)
        ports = {"listeners": self.proxy.target_port, "advertised.listeners": self.proxy.port}
        old = _properties(path)
        _change(path, {key: f"{old[key]},PROXIED://{HOST}:{port}" for key, port in ports.items()})
        return path


def _properties(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())


def _change(path: Path, changed: Mapping[str, str]) -> None:
    properties = {**_properties(path), **changed}
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")


class PartedKafka(EmbeddedKafka):
    """A node that the others, and clients, only reach through the network of the tests."""

    network: Network

    def join(self, network: Network) -> None:
        """Must be called before it is started."""
        self.network = network
        self._port = network.ports[self.number].clients

    @property
    def number(self) -> int:
        assert self.settings.node is not None
        return self.settings.node.number

    @property
    def controller_port(self) -> int:
        assert self.settings.node is not None
        return self.settings.node.controllers[self.number]

    def _write_server_properties(self, kafka_dir: Path) -> Path:
        path = super()._write_server_properties(kafka_dir)
        node = self.number
        ports, numbers = self.network.ports[node], sorted(self.network.ports)
        listeners = {
            "PLAINTEXT": (HOST, address((CLIENTS, node)), ports.clients),
            "NODES": (HOST, name(node), ports.nodes),
            "CONTROLLER": (HOST, name(node), ports.controller),
        }
        voters = [f"{number}@{name(number)}:{self.network.ports[number].controller}" for number in numbers]
        _change(
            path,
            {
                "listeners": ",".join(f"{of}://{at}:{port}" for of, (at, _, port) in listeners.items()),
                "advertised.listeners": ",".join(f"{of}://{at}:{port}" for of, (_, at, port) in listeners.items()),
                "listener.security.protocol.map": ",".join(f"{of}:PLAINTEXT" for of in listeners),
                "inter.broker.listener.name": "NODES",
                "controller.quorum.voters": ",".join(voters),
            },
        )
        return path

    def _java_options(self) -> list[str]:
        hosts = self.settings.data_dir / "hosts"
        hosts.write_text(self.network.hosts(self.number), encoding="utf-8")
        return [*super()._java_options(), f"-Djdk.net.hosts.file={hosts}"]


class ClusterKafka(EmbeddedCluster):
    """A cluster whose nodes can be isolated from each other and from clients."""

    node_class = PartedKafka
    nodes: Sequence[PartedKafka]

    def __init__(self, data_dir: Path, nodes: int) -> None:
        extra = {**FAST_GROUPS, "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}
        super().__init__(broker_settings(data_dir, extra=extra, heap_mb=384, start_timeout_s=120.0), nodes)
        controllers = {node.number: node.controller_port for node in self.nodes}
        free = [port for port in free_ports(HOST, 3 * nodes) if port not in controllers.values()]
        self.network = Network({n: Ports(free.pop(), free.pop(), port) for n, port in controllers.items()})
        for node in self.nodes:
            node.join(self.network)

    @property
    def bootstrap_servers(self) -> str:
        """Addresses for clients, through the network."""
        return ",".join(f"{address((CLIENTS, node))}:{ports.clients}" for node, ports in self.network.ports.items())

    @property
    def bootstraps(self) -> tuple[str, ...]:
        """Addresses for workers."""
        return (self.bootstrap_servers,)

    @property
    def pid(self) -> int | None:
        """Process id of the first node; None if it is not running."""
        return self.nodes[0].pid


Kafka = ProxiedKafka | ClusterKafka

"""The embedded broker with a second listener, which it advertises at the address of a proxy; and a cluster."""

from __future__ import annotations

from pathlib import Path

from inferd.daemon.broker import EmbeddedCluster, EmbeddedKafka
from inferd.daemon.broker.probe import free_port
from tests.chaos.proxy import HOST, Proxy
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
        self.proxy = Proxy(free_port(HOST), free_port(HOST))

    @property
    def bootstraps(self) -> tuple[str, ...]:
        """Addresses for workers, which take turns."""
        return self.proxy.address, self.bootstrap_servers

    def _write_server_properties(self, kafka_dir: Path) -> Path:
        path = super()._write_server_properties(kafka_dir)
        properties = dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())
        properties["listeners"] += f",PROXIED://{HOST}:{self.proxy.target_port}"
        properties["advertised.listeners"] += f",PROXIED://{self.proxy.address}"
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")
        return path


class ClusterKafka(EmbeddedCluster):
    """A cluster, which clients reach directly: faults of the network are left to the battery of one broker."""

    def __init__(self, data_dir: Path, nodes: int) -> None:
        extra = {**FAST_GROUPS, "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}
        super().__init__(broker_settings(data_dir, extra=extra, heap_mb=384, start_timeout_s=120.0), nodes)
        self.proxy = Proxy(free_port(HOST), free_port(HOST))
        """Nobody connects to it."""

    @property
    def bootstraps(self) -> tuple[str, ...]:
        """Addresses for workers."""
        return (self.bootstrap_servers,)

    @property
    def pid(self) -> int | None:
        """Process id of the first node; None if it is not running."""
        return self.nodes[0].pid


Kafka = ProxiedKafka | ClusterKafka

"""The embedded broker with a second listener, which it advertises at the address of a proxy."""

from __future__ import annotations

from pathlib import Path

from inferd.daemon.broker import EmbeddedKafka
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

    def _write_server_properties(self, kafka_dir: Path) -> Path:
        path = super()._write_server_properties(kafka_dir)
        properties = dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())
        properties["listeners"] += f",PROXIED://{HOST}:{self.proxy.target_port}"
        properties["advertised.listeners"] += f",PROXIED://{self.proxy.address}"
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")
        return path

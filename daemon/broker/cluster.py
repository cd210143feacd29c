"""Several embedded brokers on this machine: a cluster with replicas, to try failures on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import ClassVar, Self

from inferd.daemon.broker.data_dir import known_cluster_id, new_cluster_id
from inferd.daemon.broker.errors import BrokerSettingError
from inferd.daemon.broker.kafka import EmbeddedKafka
from inferd.daemon.broker.probe import free_ports
from inferd.daemon.broker.settings import ClusterNode, EmbeddedKafkaSettings

NODES_MAX = 5
STOP_TIMEOUT_S = 10.0
"""The last nodes have no controller to take leave of: they are killed, which loses nothing that was acknowledged."""
POLL_S = 0.05

logger = logging.getLogger(__name__)


class EmbeddedCluster:
    """Start and stop a cluster, whose nodes are all broker and controller; also a context manager.

    Topics have three replicas unless they say otherwise (as many as there are nodes, if fewer), and a record is
    acknowledged once two have it. Nodes can be stopped, killed and started one by one. Not thread-safe.
    """

    node_class: ClassVar[type[EmbeddedKafka]] = EmbeddedKafka

    def __init__(
        self,
        settings: EmbeddedKafkaSettings,
        nodes: int = 3,
        report: Callable[[str], None] = logger.info,
    ) -> None:
        """The nodes listen on `settings.port` and those after it, or on free ports if it is 0, and have subdirectories
        of `settings.data_dir`. `BrokerSettingError`."""
        if not 1 <= nodes <= NODES_MAX:
            raise BrokerSettingError(f"nodes = {nodes} is not allowed: it must be 1 to {NODES_MAX}")
        self.settings = settings
        cluster_id = known_cluster_id(settings.data_dir / "node-1") or new_cluster_id()
        controllers = dict(enumerate(free_ports(settings.host, nodes), 1))
        self.nodes: Sequence[EmbeddedKafka] = [
            self.node_class(
                replace(
                    settings,
                    data_dir=settings.data_dir / f"node-{number}",
                    port=settings.port and settings.port + number - 1,
                    node=ClusterNode(number, cluster_id, controllers),
                    stop_timeout_s=min(settings.stop_timeout_s, STOP_TIMEOUT_S),
                ),
                report,
            )
            for number in controllers
        ]

    @property
    def bootstrap_servers(self) -> str:
        """Addresses for clients, `host:port,…`."""
        return ",".join(node.bootstrap_servers for node in self.nodes)

    @property
    def version(self) -> str:
        """Version of Apache Kafka."""
        return self.nodes[0].version

    @property
    def running(self) -> bool:
        """Whether all nodes are running."""
        return all(node.running for node in self.nodes)

    def start(self) -> None:
        """Start the nodes that do not run, and return once each answers. Raises BrokerError."""
        self.nodes[0].prepare()  # jars are downloaded once
        try:
            self._each([node.start for node in self.nodes if not node.running])
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop all nodes: SIGTERM, then SIGKILL after the timeout."""
        self._each([node.stop for node in self.nodes])

    def kill(self) -> None:
        """Kill all nodes (SIGKILL). What they have stored stays."""
        for node in self.nodes:
            node.kill()

    def wait(self, timeout_s: float) -> int | None:
        """Exit code of the first node that ends within `timeout_s`, else None."""
        deadline = time.monotonic() + timeout_s
        while True:
            codes = [code for node in self.nodes if (code := node.wait(0)) is not None]
            if codes or time.monotonic() >= deadline:
                return codes[0] if codes else None
            time.sleep(POLL_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _each(self, calls: Sequence[Callable[[], None]]) -> None:
        """Side by side: no node answers before most of them run."""
        with ThreadPoolExecutor(max(1, len(calls))) as pool:
            for done in [pool.submit(call) for call in calls]:
                done.result()

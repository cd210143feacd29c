"""A broker that returns with another advertised address, while its bootstrap address stays the same, as in
Kubernetes."""

from __future__ import annotations

from pathlib import Path

from inferd import Client
from inferd.daemon.broker import EmbeddedKafka
from inferd.daemon.broker.probe import free_port
from tests.chaos.proxy import HOST, Proxy
from tests.fixtures.broker import broker_settings
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel


def port_of(broker: EmbeddedKafka) -> int:
    return int(broker.bootstrap_servers.rpartition(":")[2])


async def test_workers_and_clients_follow_it(
    tmp_path: Path, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    settings = broker_settings(tmp_path / "kafka")
    before = EmbeddedKafka(settings)
    before.start()
    proxy = Proxy(free_port(HOST), port_of(before))
    proxy.start()
    cluster = Cluster(proxy.address, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    # The group's consumer, that of the models, and a transactional producer for each partition.
    worker = start_worker(cluster, processing_guarantee="exactly_once")
    worker.wait_ready()
    row = [0.5] * model.n_features
    async with Client(proxy.address, namespace=namespace) as client:
        first = await client.predict("demo", row)
        before.stop()
        after = EmbeddedKafka(settings)
        after.start()
        try:
            assert port_of(after) != port_of(before)
            proxy.target_port = port_of(after)
            second = await client.predict("demo", row, timeout_s=90)
            worker.wait_ready()
        finally:
            assert worker.stop() == 0
            after.kill()
            proxy.stop()
    assert second.outputs == first.outputs

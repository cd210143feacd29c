"""Two workers with the same instance id: the first one exits and says why. Also, stopping while the broker is
unreachable."""

from __future__ import annotations

from inferd.daemon.broker import EmbeddedKafka
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, until


def test_the_second_worker_stays_and_stops_gracefully_without_a_broker(
    spare_broker: EmbeddedKafka, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster = Cluster(spare_broker.bootstrap_servers, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    first = start_worker(cluster, instance_id="one")
    first.wait_ready()
    second = start_worker(cluster, instance_id="one")
    assert first.process.wait(60) == 2
    assert f"INFERD_INSTANCE_ID=one is used twice in group {namespace}: another worker joined with it" in first.text()
    second.wait_ready()
    spare_broker.kill()
    until(lambda: second.get("/readyz")[0] == 503, 30, "unready without a broker")
    assert second.stop() == 0
    for worker in (first, second):
        assert "Traceback" not in worker.text()
        assert '"exception"' not in worker.text()

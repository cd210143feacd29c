"""No request is lost: a ledger of requests and results, on a real Kafka, while workers and brokers fail."""

from __future__ import annotations

import pytest

from inferd.daemon.broker import EmbeddedKafka
from tests.fixtures.workers import Cluster, Ledger, Load, StartWorker, TrainedModel, Worker, until

pytestmark = pytest.mark.timeout(300)


both_guarantees = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


def assert_whole(ledger: Ledger, guarantee: str = "at_least_once") -> None:
    assert ledger.repeated == 0 or guarantee == "at_least_once"
    assert ledger.lost == [], f"{len(ledger.lost)} of {len(ledger.sent)} lost"
    assert ledger.wrong == 0
    assert ledger.different_repeats == 0
    assert ledger.out_of_order == 0


def test_a_hundred_thousand_requests_get_one_result_each(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    load = Load(cluster, model)
    load.send(100_000)
    worker = start_worker(cluster)
    load.stop()
    ledger = load.ledger(within_s=120)
    assert_whole(ledger)
    assert ledger.repeated == 0
    (tenant,) = worker.get("/status")[1]["tenants"]
    assert tenant["requests_in"] == tenant["results"] == 100_000
    assert (tenant["errors"], tenant["pending"]) == ({}, 0)
    assert worker.stop() == 0


@both_guarantees
def test_no_request_is_lost_if_a_worker_is_killed_under_load(
    guarantee: str, cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    worker = start_worker(cluster, processing_guarantee=guarantee)
    worker.wait_ready()
    load = Load(cluster, model)
    load.start(per_second=3_000)
    for _ in range(2):
        answered = load.n
        until(lambda: done(worker) > answered, 60, "work before the kill")  # noqa: B023
        worker.kill()
        worker = start_worker(cluster, processing_guarantee=guarantee)
        worker.wait_ready()
    load.stop()
    assert_whole(load.ledger(), guarantee)
    assert worker.stop() == 0


@both_guarantees
def test_no_request_is_lost_while_workers_join_and_leave(
    guarantee: str, cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    first = start_worker(cluster, processing_guarantee=guarantee)
    first.wait_ready()
    load = Load(cluster, model)
    load.start(per_second=3_000)
    second = start_worker(cluster, processing_guarantee=guarantee)
    until(lambda: owned(second) == 2 and owned(first) == 2, 40, "two partitions each")
    assert first.stop() == 0
    until(lambda: owned(second) == 4, 40, "all partitions at the one that stayed")
    third = start_worker(cluster, processing_guarantee=guarantee)
    until(lambda: owned(third) == 2 and done(third) > 0, 40, "work at the one that joined")
    load.stop()
    assert_whole(load.ledger(), guarantee)
    assert second.stop() == 0
    assert third.stop() == 0


def test_a_worker_waits_for_a_killed_broker(
    spare_broker: EmbeddedKafka, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster = Cluster(spare_broker.bootstrap_servers, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    worker = start_worker(cluster)
    worker.wait_ready()
    load = Load(cluster, model)
    load.start(per_second=2_000)
    until(lambda: done(worker) > 2_000, 40, "work before the fault")
    spare_broker.kill()
    until(lambda: worker.get("/readyz")[0] == 503, 30, "unready without a broker")
    assert worker.get("/livez")[0] == 200
    reasons = worker.get("/readyz")[1]["reasons"]
    assert any("broker" in reason or "publish" in reason for reason in reasons), reasons
    spare_broker.start()
    worker.wait_ready(90)
    load.stop()
    assert_whole(load.ledger(120))
    assert worker.process.poll() is None
    assert worker.stop() == 0


def test_a_worker_waits_for_a_broker_that_starts_late(
    spare_broker: EmbeddedKafka, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster = Cluster(spare_broker.bootstrap_servers, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    spare_broker.stop()
    worker = start_worker(cluster)
    until(lambda: waits_for_broker(worker), 20, "an unready answer that names the broker")
    assert worker.get("/livez")[0] == 200
    spare_broker.start()
    worker.wait_ready()
    load = Load(cluster, model)
    load.send(1_000)
    load.stop()
    assert_whole(load.ledger())


def test_a_stop_under_load_repeats_no_result(cluster: Cluster, model: TrainedModel, start_worker: StartWorker) -> None:
    cluster.deploy(model)
    worker = start_worker(cluster)
    worker.wait_ready()
    load = Load(cluster, model)
    load.start(per_second=3_000)
    until(lambda: done(worker) > 3_000, 40, "work before the stop")
    assert worker.stop() == 0
    second = start_worker(cluster)
    second.wait_ready()
    load.stop()
    ledger = load.ledger()
    assert_whole(ledger)
    assert ledger.repeated == 0


def waits_for_broker(worker: Worker) -> bool:
    status, body = worker.get("/readyz")
    return status == 503 and any("waiting for the broker" in reason for reason in body["reasons"])


def done(worker: Worker) -> int:
    """Requests that a worker has answered."""
    status = worker.get("/status")[1]
    return sum(tenant["results"] for tenant in status["tenants"]) if status else 0


def owned(worker: Worker) -> int:
    """Request partitions that a worker has."""
    status = worker.get("/status")[1]
    return sum(p["topic"].endswith(".requests") for p in status["partitions"]) if status else 0

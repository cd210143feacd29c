"""More workers than partitions: idle workers report that they have none, do not disturb others, and take over."""

from __future__ import annotations

from typing import Any

import msgpack

from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, Worker, until

READY: list[str] = []
IDLE = ["no partitions are assigned to this worker"]


def reasons(worker: Worker) -> list[str]:
    """Why a worker is not ready."""
    body = worker.get("/readyz")[1]
    return list(body["reasons"]) if body and "reasons" in body else []


def owned(worker: Worker) -> int:
    status: Any = worker.get("/status")[1]
    return sum(p["topic"].endswith(".requests") for p in status["partitions"]) if status else 0


def ask(cluster: Cluster, count: int) -> None:
    """One more request; waits for `count` results in all."""
    body = msgpack.packb({"id": f"q{count}", "model_id": "demo", "input_data": [0.0] * 10})
    producer = cluster.producer()
    producer.produce(cluster.topics.name("requests"), body)
    assert producer.flush(30) == 0
    results = cluster.read("results", lambda found: len(found) >= count, 20)
    assert {msgpack.unpackb(result.value())["id"] for result in results} == {f"q{n}" for n in range(1, count + 1)}


def test_a_worker_without_a_partition_waits_and_takes_over(
    kafka: str, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster = Cluster(kafka, namespace)
    first = start_worker(cluster, topic_partitions=1)
    until(lambda: any("no model is ready" in reason for reason in reasons(first)), 30, "a worker without a model")
    cluster.deploy(model)
    first.wait_ready()
    ask(cluster, 1)

    second = start_worker(cluster, topic_partitions=1)
    settled = ([READY, IDLE], [IDLE, READY])
    until(lambda: [reasons(first), reasons(second)] in settled, 30, "one worker with the partition, one without")
    owner, spare = (first, second) if owned(first) else (second, first)
    ask(cluster, 2)

    assert owner.stop() == 0
    spare.wait_ready()
    assert owned(spare) == 1
    ask(cluster, 3)
    assert spare.stop() == 0

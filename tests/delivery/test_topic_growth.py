"""Topics of requests get partitions while workers answer: by the command, and by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import msgpack
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from tests.fixtures.workers import PARTITIONS, Cluster, Load, StartWorker, TrainedModel, until

COMMAND = (sys.executable, "-c", "from inferd.daemon.cli import main; main()")
GROWN = 2 * PARTITIONS
NEW_REQUESTS, FIRST_NEW = 40, 1_000_000
"""Requests to the new partitions, and the number in the id of the first."""


def grow(cluster: Cluster) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
    environment |= {"INFERD_BROKER": cluster.bootstrap, "INFERD_NAMESPACE": cluster.namespace}
    command = [*COMMAND, "topics", "grow", "--partitions", str(GROWN)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def grow_by_hand(cluster: Cluster) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    asked = [NewPartitions(cluster.topics.name("requests"), GROWN)]
    for done in admin.create_partitions(asked).values():
        done.result(30)


def send_to_new_partitions(cluster: Cluster) -> None:
    producer = cluster.producer(**{"topic.metadata.refresh.interval.ms": 200, "message.timeout.ms": 60_000})
    for n in range(NEW_REQUESTS):
        body = {"id": f"r{FIRST_NEW + n}", "model_id": "demo", "input_data": [0.0] * 10}
        partition = PARTITIONS + n % (GROWN - PARTITIONS)
        producer.produce(cluster.topics.name("requests"), msgpack.packb(body), partition=partition)
    assert producer.flush(60) == 0


@pytest.mark.parametrize(("guarantee", "by_hand"), [("exactly_once", False), ("at_least_once", True)])
def test_partitions_are_added_under_load_and_nothing_is_lost_or_twice(
    kafka: str, namespace: str, model: TrainedModel, start_worker: StartWorker, guarantee: str, by_hand: bool
) -> None:
    cluster = Cluster(kafka, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    workers = [start_worker(cluster, processing_guarantee=guarantee) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    load = Load(cluster, model)
    load.start(per_second=200)
    until(lambda: load.n > 200, 30, "load")
    if by_hand:
        grow_by_hand(cluster)
        send_to_new_partitions(cluster)
        topic = cluster.topics.name("requests")

        def said() -> bool:
            answers: list[tuple[int, Any]] = [worker.get("/readyz") for worker in workers]
            return any(status == 503 and topic in str(answer) for status, answer in answers)

        until(said, 30, "the partitions that are not served are named on /readyz")
    grown = grow(cluster).splitlines()[1:]
    assert {line.split()[1] for line in grown} == {str(GROWN)}, grown
    if not by_hand:
        send_to_new_partitions(cluster)
    ids = [FIRST_NEW + n for n in range(NEW_REQUESTS)]

    def answered() -> list[int]:
        numbers = (int(msgpack.unpackb(record.value())["id"][1:]) for record in cluster.read_all("results"))
        return sorted(number for number in numbers if number >= FIRST_NEW)

    until(lambda: len(answered()) >= NEW_REQUESTS, 90, "requests in new partitions are answered without a restart")
    load.stop()
    until(lambda: all(worker.get("/status")[1]["lag"] == 0 for worker in workers), 60, "everything is committed")
    assert set(answered()) == set(ids)
    ledger = load.ledger()
    assert ledger.lost == []
    if guarantee == "exactly_once":
        assert answered() == ids
        assert ledger.repeated == 0
    for worker in workers:
        until(lambda worker=worker: worker.get("/readyz")[0] == 200, 30, "ready")  # type: ignore[misc]

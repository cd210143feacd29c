"""Topics that are deleted, created again and grown under a running worker: it says so, serves on, and loses nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]

from schemas.topics import Stream
from tests.fixtures.workers import PARTITIONS, Cluster, Load, StartWorker, TrainedModel, Worker, until

NOTICED_WITHIN_S = 30.0


class Topics:
    """What an operator does to the topics of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})

    def delete(self, stream: Stream) -> None:
        self._admin.delete_topics([self.cluster.topics.name(stream)])[self.cluster.topics.name(stream)].result(30)

    def create(self, stream: Stream) -> None:
        """Creates a topic that was deleted, which the broker may take a moment to have done."""
        topic = NewTopic(self.cluster.topics.name(stream), PARTITIONS, 1)
        until(lambda: self._created(topic), NOTICED_WITHIN_S, f"{topic.topic} is created")

    def _created(self, topic: Any) -> bool:
        return self._admin.create_topics([topic])[topic.topic].exception(30) is None

    def grow(self, partitions: int, *names: str) -> None:
        for grown in self._admin.create_partitions([NewPartitions(name, partitions) for name in names]).values():
            grown.result(30)


def until_unready(worker: Worker, *said: str) -> None:
    def unready() -> bool:
        status, body = worker.get("/readyz")
        return status == 503 and all(part in json.dumps(body) for part in said)

    until(unready, NOTICED_WITHIN_S, f"/readyz says {said}")


def positions(worker: Worker, cluster: Cluster) -> set[int]:
    """What is committed of the partitions of `requests`."""
    partitions = worker.get("/status")[1]["partitions"]
    return {each["committed"] for each in partitions if each["topic"] == cluster.topics.name("requests")}


def answered(load: Load) -> None:
    ledger = load.ledger(60)
    assert (ledger.lost, ledger.different_repeats, ledger.wrong) == ([], 0, 0)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_topics_that_are_deleted_and_created_again_are_served_again(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    topics = Topics(cluster)
    cluster.deploy(model)
    worker, load = start_worker(cluster, processing_guarantee=guarantee, offset_reset="latest"), Load(cluster, model)
    worker.wait_ready()
    load.send(80)
    load.stop()
    answered(load)

    topics.delete("requests")
    until_unready(worker, f"topic {cluster.topics.name('requests')} does not exist")
    topics.create("requests")
    load.send(40)  # fewer than were committed: the new log begins at 0, whatever "latest" says
    load.stop()
    answered(load)
    worker.wait_ready(NOTICED_WITHIN_S)
    until(lambda: positions(worker, cluster) == {10}, NOTICED_WITHIN_S, "everything is committed")

    topics.delete("requests")
    topics.create("requests")  # at once: only the topic id tells
    until(lambda: positions(worker, cluster) == {0}, NOTICED_WITHIN_S, "the new log is noticed")
    load.send(200)
    load.stop()
    answered(load)
    worker.wait_ready(NOTICED_WITHIN_S)
    assert worker.stop() == 0


def test_partitions_that_are_added_are_named_and_then_served(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    topics, names = Topics(cluster), cluster.topics
    cluster.deploy(model)
    worker = start_worker(cluster)
    worker.wait_ready()
    topics.grow(PARTITIONS + 2, names.name("requests"))
    until_unready(worker, f"partitions 4 and 5 of {names.name('requests')} are not served", names.name("results"))
    producer, rows = cluster.producer(), [0.5] * model.n_features
    for number in range(PARTITIONS + 2):
        body = {"id": f"p{number}", "model_id": "demo", "input_data": rows}
        producer.produce(
            names.name("requests"), json.dumps(body), headers=[("content-type", b"application/json")], partition=number
        )
    assert producer.flush(30) == 0
    known = cluster.read("results", lambda results: len(results) >= PARTITIONS, 30)
    assert sorted(result.partition() for result in known) == [0, 1, 2, 3], "what can be served is"

    changelog = f"{cluster.namespace}-default.predictions-changelog"
    topics.grow(PARTITIONS + 2, names.name("results"), names.name("dead-letters"), changelog)
    worker.wait_ready(NOTICED_WITHIN_S)
    results = cluster.read("results", lambda results: len(results) >= PARTITIONS + 2, 30)
    assert sorted(result.partition() for result in results) == [0, 1, 2, 3, 4, 5]

    topics.grow(PARTITIONS + 2, names.name("jobs"))
    until_unready(worker, f"partitions 4 and 5 of {names.name('jobs')} are not served: INFERD_TOPIC_PARTITIONS is 4")
    assert worker.stop() == 0
    assert "Traceback" not in worker.text()

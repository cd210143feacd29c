"""An idle group has no lag according to Kafka's tools: offsets of transaction markers are committed."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.fixtures.workers import PARTITIONS, Cluster, StartWorker, TrainedModel, until

WITHIN_S = 60.0


def lag(cluster: Cluster, stream: str) -> dict[int, int]:
    """By partition, end of the log less the committed offset, as `kafka-consumer-groups --describe` shows it."""
    asked = ConsumerGroupTopicPartitions(cluster.namespace)
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    found = admin.list_consumer_group_offsets([asked])[cluster.namespace].result(30)
    topic = cluster.topics.name(stream)  # type: ignore[arg-type]
    committed = {tp.partition: max(tp.offset, 0) for tp in found.topic_partitions if tp.topic == topic}
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": f"{cluster.namespace}-ends"})
    ends = {n: consumer.get_watermark_offsets(TopicPartition(topic, n), 10)[1] for n in range(PARTITIONS)}
    consumer.close()
    return {number: end - committed.get(number, 0) for number, end in ends.items() if end}


def in_transaction(cluster: Cluster, number: int, end: Callable[[Producer], None], ids: range) -> None:
    """Requests of one transaction, to one partition."""
    options = {"bootstrap.servers": cluster.bootstrap, "transactional.id": f"{cluster.namespace}-in-{number}"}
    producer = Producer(options)
    producer.init_transactions(30)
    producer.begin_transaction()
    for request in ids:
        body = {"id": f"r{request}", "model_id": "demo", "input_data": [0.0] * 10}
        producer.produce(cluster.topics.name("requests"), msgpack.packb(body), partition=number)
    assert producer.flush(30) == 0
    end(producer)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_markers_and_aborted_requests_are_committed_past_and_no_request_is(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    cluster.deploy(model)
    # Before the worker starts, after that, and then records behind markers.
    in_transaction(cluster, 0, lambda producer: producer.commit_transaction(30), range(3))
    in_transaction(cluster, 1, lambda producer: producer.abort_transaction(30), range(100, 104))
    worker = start_worker(cluster, processing_guarantee=guarantee)
    worker.wait_ready(120)
    until(lambda: set(lag(cluster, "requests").values()) == {0}, WITHIN_S, f"no lag: {lag(cluster, 'requests')}")
    in_transaction(cluster, 1, lambda producer: producer.commit_transaction(30), range(3, 6))
    in_transaction(cluster, 0, lambda producer: producer.abort_transaction(30), range(200, 203))
    in_transaction(cluster, 0, lambda producer: producer.commit_transaction(30), range(6, 9))
    until(
        lambda: len(cluster.read_all("results")) == 9 and set(lag(cluster, "requests").values()) == {0},
        WITHIN_S,
        f"no lag: {lag(cluster, 'requests')}",
    )
    # What was scored is counted by records, too, which are read a moment later.
    until(lambda: worker.get("/status")[1]["lag"] == 0, WITHIN_S, "no lag of any topic")
    assert worker.get("/status")[1]["records_missing"] == 0
    assert worker.stop() == 0
    again = start_worker(cluster, processing_guarantee=guarantee)
    again.wait_ready(120)
    assert again.stop() == 0
    results = [msgpack.unpackb(record.value()) for record in cluster.read_all("results")]
    assert sorted(result["id"] for result in results) == [f"r{n}" for n in range(9)]
    assert not any("error" in result for result in results)

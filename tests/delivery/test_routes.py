"""Routes on a real broker: existing topics are scored in their own format, under both guarantees."""

from __future__ import annotations

import json

import pytest

from tests.fixtures.routes import ForeignTopics, feature_options, order, routes_command, row, status
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, until

both_guarantees = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


@both_guarantees
def test_a_running_worker_adopts_a_route_and_enriches_its_records(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("orders.v1"), others.create("orders.scored")
    cluster.deploy(model)
    worker = start_worker(
        cluster, processing_guarantee=guarantee, routes_sources=f"{others.prefix}.*", routes_sinks=sink
    )
    worker.wait_ready()
    rebalances = status(worker)["rebalances"]
    producer = others.producer()
    producer.produce(source, order(-1), b"before")
    assert producer.flush(30) == 0
    routes_command(
        cluster, "create", "orders", "--from", source, "--to", sink, "--format", "json", "--model", "demo",
        *feature_options(), "--field", "fraud",
    )  # fmt: skip
    for number in range(1_000):
        producer.produce(source, order(number), b"k%d" % number, headers=[("trace", b"t"), ("none", None)])
    assert producer.flush(30) == 0
    records = others.read(sink, 1_000)
    assert len(records) == 1_000
    expected = model.booster.predict([row(number) for number in range(1_000)])
    for record in records:
        value = json.loads(record.value())
        number = value["id"]
        assert record.value().startswith(order(number)[:-1]), "the original survives byte for byte"
        assert value["fraud"] == {"prediction": expected[number], "model_id": "demo", "version": 1}
        assert record.key() == b"k%d" % number
        assert record.headers() == [("trace", b"t"), ("none", None)]
    assert {json.loads(record.value())["id"] for record in records} == set(range(1_000))
    assert status(worker)["rebalances"] == rebalances + 1
    until(lambda: not any(part["lag"] for part in status(worker)["partitions"]), 20, "no lag")
    assert worker.stop() == 0

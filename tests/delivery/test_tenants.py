"""Tenants of one worker on a real broker: a tenant with a problem does not delay others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tests.fixtures.workers import Cluster, StartWorker, TrainedModel

TENANTS = ("healthy", "missing", "slow", "huge")
REQUESTS = 40
MODULE = """
import os
import time

from inferd import BatchPredictor, RealtimePredictor


def wait_for_the_test():
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.05)


class Realtime(RealtimePredictor):
    def predict(self, model_id, input_data):
        if self.tenant_id == "slow":
            wait_for_the_test()
        return super().predict(model_id, input_data)


class Batch(BatchPredictor):
    def process_batch(self, model_id, input_batch):
        if self.tenant_id == "huge":
            wait_for_the_test()
        return super().process_batch(model_id, input_batch)
"""


def test_tenants_with_problems_do_not_delay_others(
    kafka: str, namespace: str, start_worker: StartWorker, model: TrainedModel, tmp_path: Path
) -> None:
    """The first requests a missing model, the code of the second never returns, and the third has a job that never
    ends."""
    (tmp_path / "own_tenants.py").write_text(MODULE)
    gate = tmp_path / "gate"
    clusters = {tenant: Cluster(kafka, namespace, tenant) for tenant in TENANTS}
    for tenant, cluster in clusters.items():
        cluster.create_topics()
        if tenant != "missing":
            cluster.deploy(model)
    worker = start_worker(
        clusters["healthy"],
        tenants=",".join(TENANTS),
        realtime_predictor="own_tenants.Realtime",
        batch_predictor="own_tenants.Batch",
        environ={"PYTHONPATH": str(tmp_path), "GATE": str(gate)},
    )
    worker.wait_ready()
    rows = np.random.default_rng(4).normal(size=(REQUESTS, model.n_features))
    for tenant, cluster in clusters.items():
        send(cluster, rows, job=tenant in ("healthy", "huge"))

    expected = dict(zip(range(REQUESTS), model.booster.predict(rows, num_threads=1).tolist(), strict=True))
    assert predictions(clusters["healthy"]) == expected
    status = clusters["healthy"].read("job-status", completed, 60)
    assert b"completed" in status[-1].value()
    errors = [result["error"]["code"] for result in results(clusters["missing"])]
    assert errors == ["model_not_found"] * REQUESTS
    assert clusters["slow"].read_all("results") == []
    assert clusters["huge"].read_all("job-results") == []

    gate.touch()
    assert predictions(clusters["slow"]) == expected
    status = clusters["huge"].read("job-status", completed, 60)
    assert b"completed" in status[-1].value()
    assert worker.stop() == 0


def send(cluster: Cluster, rows: Any, *, job: bool) -> None:
    producer = cluster.producer()
    for number, row in enumerate(rows.tolist()):
        value = msgspec.msgpack.encode({"id": f"{number}", "model_id": "demo", "input_data": row})
        producer.produce(cluster.topics.name("requests"), value, b"%d" % number)
    if job:
        submit = {"type": "submit", "model_id": "demo", "input_batch": rows.tolist()}
        producer.produce(cluster.topics.name("jobs"), msgspec.msgpack.encode(submit), b"job-1")
    assert producer.flush(30) == 0


def results(cluster: Cluster) -> list[dict[str, Any]]:
    found = cluster.read("results", lambda records: len(records) >= REQUESTS, 60)
    return [msgspec.msgpack.decode(record.value()) for record in found]


def predictions(cluster: Cluster) -> dict[int, Any]:
    return {int(str(result["id"])): result["prediction"] for result in results(cluster)}


def completed(statuses: list[Any]) -> bool:
    return bool(statuses) and b"completed" in statuses[-1].value()

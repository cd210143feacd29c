"""Tenants of one worker on a real broker: a tenant with a problem does not delay others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tests.fixtures.http_client import Answer, ask
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, Worker

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


def test_a_tenant_over_its_quota_waits_and_loses_nothing_and_others_do_not_notice(
    kafka: str, namespace: str, start_worker: StartWorker, model: TrainedModel
) -> None:
    """Two workers share the quota of 10 requests a second: 20 at once, then 20 over two seconds."""
    clusters = {tenant: Cluster(kafka, namespace, tenant) for tenant in ("limited", "free")}
    for cluster in clusters.values():
        cluster.create_topics()
        cluster.deploy(model)
    workers = [
        start_worker(clusters["free"], tenants=",".join(clusters), quota_requests_per_s="0,limited=10")
        for _ in range(2)
    ]
    for worker in workers:
        worker.wait_ready()
    rows = np.random.default_rng(4).normal(size=(REQUESTS, model.n_features))
    expected = dict(zip(range(REQUESTS), model.booster.predict(rows, num_threads=1).tolist(), strict=True))
    for cluster in clusters.values():
        send(cluster, rows, job=False)
    assert predictions(clusters["free"]) == expected
    assert predictions(clusters["limited"]) == expected, "delayed, and not refused"
    stamps = {tenant: [r.timestamp()[1] for r in cluster.read_all("results")] for tenant, cluster in clusters.items()}
    took_s = {tenant: (max(each) - min(each)) / 1_000 for tenant, each in stamps.items()}
    assert took_s["limited"] > 1.5 > took_s["free"]

    body = msgspec.json.encode({"input_data": rows[0].tolist()})

    def predict(worker: Worker, tenant: str) -> Answer:
        return ask(worker, "POST", "/predict/demo", body, Content_Type="application/json", Inferd_Tenant=tenant)

    answers = [predict(worker, "limited") for worker in workers for _ in range(40)]
    refused = sum(answer.status == 429 for answer in answers)
    assert refused > 0
    assert {answer.status for answer in answers} <= {200, 429}
    assert all(b"quota_exceeded" in answer.body for answer in answers if answer.status == 429)
    assert [predict(worker, "free").status for worker in workers] == [200, 200]
    quotas = [quota for worker in workers for quota in worker.get("/status")[1]["quotas"]]
    assert {(each["tenant"], each["requests_per_s"]) for each in quotas} == {("limited", 10)}
    assert sum(each["share"] for each in quotas) == 1
    assert sum(each["refused"] for each in quotas) == refused
    assert sum(each["delayed"] for each in quotas) > 0

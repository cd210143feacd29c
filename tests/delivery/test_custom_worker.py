"""User-defined classes in a real worker on a real broker: routes, requests and jobs, and exceptions that do not stop
the worker."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tests.fixtures.workers import Cluster, StartWorker, TrainedModel

ROWS = np.random.default_rng(3).normal(size=(6, 10)).tolist()
MODULE = """
from inferd import BatchPredictor, ModelServer, RealtimePredictor


class Server(ModelServer):
    def _setup_routes(self):
        @self.app.post("/predict_batch/{model_id}")
        def predict_batch(model_id: str, input_batch: list):
            return [self.realtime_predictor.predict(model_id, row) for row in input_batch]


class Realtime(RealtimePredictor):
    def predict(self, model_id, input_data):
        if input_data == [0.0]:
            raise ZeroDivisionError("feature 4711")
        return {"score": super().predict(model_id, input_data), "asked": model_id}


class Batch(BatchPredictor):
    def process_batch(self, model_id, input_batch):
        return [100 * prediction for prediction in super().process_batch(model_id, input_batch)]
"""


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_a_team_s_classes_answer_routes_requests_and_jobs(
    cluster: Cluster, start_worker: StartWorker, model: TrainedModel, tmp_path: Path
) -> None:
    (tmp_path / "own_worker.py").write_text(MODULE)
    cluster.deploy(model)
    worker = start_worker(
        cluster,
        server="own_worker.Server",
        realtime_predictor="own_worker.Realtime",
        batch_predictor="own_worker.Batch",
        environ={"PYTHONPATH": str(tmp_path)},
    )
    worker.wait_ready()
    expected = model.booster.predict(np.array(ROWS), num_threads=1).tolist()
    answers = [{"score": score, "asked": "demo"} for score in expected]

    assert post(f"{worker.url}/predict_batch/demo", ROWS) == answers
    assert post(f"{worker.url}/predict/demo:1", {"input_data": ROWS[0]})["prediction"] == answers[0] | {
        "asked": "demo:1"
    }

    producer = cluster.producer()
    for number, row in enumerate([*ROWS, [0.0]]):
        value = msgspec.msgpack.encode({"id": f"r-{number}", "model_id": "demo", "input_data": row})
        producer.produce(cluster.topics.name("requests"), value, b"k")
    submit = {"type": "submit", "model_id": "demo", "input_batch": [*ROWS, [1.0]]}
    producer.produce(cluster.topics.name("jobs"), msgspec.msgpack.encode(submit), b"job-1")
    assert producer.flush(30) == 0

    results = [msgspec.msgpack.decode(r.value()) for r in cluster.read("results", lambda found: len(found) >= 7, 30)]
    by_id = {result["id"]: result for result in results if str(result["id"]).startswith("r-")}
    assert [by_id[f"r-{number}"]["prediction"] for number in range(6)] == answers
    assert by_id["r-6"]["error"]["code"] == "internal"
    assert "4711" not in by_id["r-6"]["error"]["message"]
    assert "feature 4711" in worker.text()

    (chunk,) = [msgspec.msgpack.decode(r.value()) for r in cluster.read("job-results", bool, 30)]
    assert chunk["predictions"] == [*(100 * score for score in expected), None]
    assert [(error["row"], error["code"]) for error in chunk["errors"]] == [(6, "schema_mismatch")]
    assert worker.stop() == 0


OWN_NAMES = """
from inferd import RealtimePredictor


class Totals(RealtimePredictor):
    own_models = {"total": 3}

    def predict_batch(self, model_id, input_batch):
        return [{"total": sum(row)} for row in input_batch]
"""


def test_a_predictor_owns_a_name_without_a_model_and_its_time_is_measured(
    cluster: Cluster, start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "own_names.py").write_text(OWN_NAMES)
    worker = start_worker(cluster, realtime_predictor="own_names.Totals", environ={"PYTHONPATH": str(tmp_path)})
    worker.wait_ready()

    producer = cluster.producer()
    for number in range(500):
        value = msgspec.msgpack.encode({"id": f"r-{number}", "model_id": "total", "input_data": [number, 1]})
        producer.produce(cluster.topics.name("requests"), value, b"%d" % number)
    assert producer.flush(30) == 0
    direct = post(f"{worker.url}/predict/total:3", {"input_data": [[1, 2], [3, 4]]})
    assert (direct["version"], direct["prediction"]) == (3, [{"total": 3}, {"total": 7}])

    results = [msgspec.msgpack.decode(r.value()) for r in cluster.read("results", lambda found: len(found) >= 500, 40)]
    assert {result["id"]: result["prediction"] for result in results} == {
        f"r-{number}": {"total": number + 1} for number in range(500)
    }
    assert {(result["version"], result["digest"]) for result in results} == {(3, direct["digest"])}

    submit = {"type": "submit", "model_id": "total", "input_batch": [[1, 2], [3, 4]]}
    producer.produce(cluster.topics.name("jobs"), msgspec.msgpack.encode(submit), b"job-1")
    assert producer.flush(30) == 0
    (chunk,) = [msgspec.msgpack.decode(r.value()) for r in cluster.read("job-results", bool, 40)]
    assert chunk["predictions"] == [{"total": 3}, {"total": 7}]

    with urllib.request.urlopen(f"{worker.url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    (seconds,) = [line for line in lines if line.startswith("inferd_model_predict_seconds_total{")]
    assert 'model="total"' in seconds
    assert float(seconds.split()[-1]) > 0
    assert worker.stop() == 0

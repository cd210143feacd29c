"""HTTP of real workers on a real broker: models deployed over it, predictions, tenants and their tokens, the drain."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.fixtures.http_client import TOKENS, Answer, ask, write_tokens
from tests.fixtures.workers import Cluster, TrainedModel, Worker, until


def predict(worker: Worker, model_id: str, input_data: Any, **headers: str) -> Answer:
    body = json.dumps({"input_data": input_data}).encode()
    return ask(worker, "POST", f"/predict/{model_id}", body, **({"Content_Type": "application/json"} | headers))


def put(worker: Worker, path: str, model: bytes, **headers: str) -> Answer:
    return ask(worker, "PUT", path, model, **({"Content_Type": "application/octet-stream"} | headers))


@pytest.fixture(scope="module")
def place(kafka: str) -> Cluster:
    return Cluster(kafka, f"http-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="module")
def workers(place: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Worker]]:
    """Two workers of two tenants, guarded by tokens; they create their topics."""
    directory = tmp_path_factory.mktemp("workers")
    tokens = write_tokens(directory)
    started = []
    for name in ("w1", "w2"):
        (directory / name).mkdir()
        worker = Worker(
            place.bootstrap, place.namespace, directory / name, name, tenants="default,other", http_tokens_file=tokens
        )
        started.append(worker)
    yield started[0], started[1]
    for worker in started:
        worker.kill()


@pytest.fixture(scope="module")
def deployed(workers: tuple[Worker, Worker], model: TrainedModel) -> Answer:
    """The model `demo`, deployed over HTTP, and served by both workers."""
    until(lambda: put(workers[0], "/models/demo", b"none").status == 400, 60, "models can be deployed")
    answer = put(workers[0], "/models/demo?alias=champion", model.data)
    for worker in workers:
        worker.wait_ready()
        wait_for_model(worker)
    return answer


def wait_for_model(worker: Worker) -> None:
    def ready() -> bool:
        overview = ask(worker, "GET", "/models/demo:1").json()["overview"]
        return bool(overview["state"] == "ready")

    until(ready, 60, "the model serves")


def test_a_deploy_over_http_serves_everywhere(
    deployed: Answer, workers: tuple[Worker, Worker], model: TrainedModel
) -> None:
    assert (deployed.status, deployed.json()["version"]) == (201, 1), deployed.body
    rows = np.random.default_rng(2).normal(size=(5, model.n_features))
    expected = model.booster.predict(rows)
    for worker in workers:
        for model_id in ("demo", "demo:1", "demo@champion"):
            answer = predict(worker, model_id, rows.tolist())
            assert answer.status == 200, answer.body
            assert answer.json()["prediction"] == pytest.approx(expected.tolist(), abs=1e-12)
        said = predict(worker, "demo", rows[0].tolist()).json()
        assert said["prediction"] == pytest.approx(expected[0], abs=1e-12)
        assert (said["model_id"], said["version"], said["digest"]) == ("demo", 1, deployed.json()["sha256"])


def test_messagepack_is_answered_in_messagepack(
    deployed: Answer, workers: tuple[Worker, Worker], model: TrainedModel
) -> None:
    body = msgspec.msgpack.encode({"input_data": [0.0] * model.n_features, "id": "r1"})
    answer = ask(workers[0], "POST", "/predict/demo", body, Content_Type="application/msgpack")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/msgpack")
    assert msgspec.msgpack.decode(answer.body)["id"] == "r1"


@pytest.mark.parametrize(
    ("model_id", "input_data", "status", "code"),
    [
        ("demo", [1.0], 422, "schema_mismatch"),
        ("demo", {"nope": 1}, 422, "schema_mismatch"),
        ("demo", ["x"] * 10, 422, "invalid_value"),
        ("demo:9", [0.0] * 10, 404, "version_not_found"),
        ("nobody", [0.0] * 10, 404, "model_not_found"),
        ("demo", None, 400, "malformed"),
    ],
)
def test_errors_are_those_of_the_wire(
    deployed: Answer, workers: tuple[Worker, Worker], model_id: str, input_data: Any, status: int, code: str
) -> None:
    answer = predict(workers[1], model_id, input_data)
    assert (answer.status, answer.code) == (status, code), answer.body


def test_a_late_request_is_not_scored(deployed: Answer, workers: tuple[Worker, Worker]) -> None:
    answer = predict(workers[0], "demo", [0.0] * 10, deadline="1")
    assert (answer.status, answer.code) == (504, "deadline_exceeded")


def test_a_repeated_deploy_changes_nothing(
    deployed: Answer, workers: tuple[Worker, Worker], model: TrainedModel
) -> None:
    for path in ("/models/demo", "/models/demo:1", "/models/demo/versions/1"):
        again = put(workers[1], path, model.data)
        assert (again.status, again.body) == (200, deployed.body)
    changed = put(workers[0], "/models/demo:1?manifest=%7B%22labels%22:%7B%22a%22:%22b%22%7D%7D", model.data)
    assert (changed.status, changed.code) == (409, "version_exists")


def test_versions_and_aliases_are_deployed_and_removed(
    deployed: Answer, workers: tuple[Worker, Worker], model: TrainedModel
) -> None:
    one, two = workers
    manifest = "?manifest=%7B%22labels%22:%7B%22a%22:%22b%22%7D%7D"
    assert put(one, f"/models/brief{manifest}", model.data).json()["version"] == 1
    assert put(one, "/models/brief", model.data).json()["version"] == 2
    alias = ask(two, "PUT", "/models/brief/aliases/best", b'{"version": 2}', Content_Type="application/json")
    target = alias.json()["target"]
    assert (target["version"], target["revision"], target["changed_by"]) == (2, 1, "http")
    shown = ask(two, "GET", "/models/brief").json()
    assert [(item["version"], item["aliases"]) for item in shown["versions"]] == [(1, []), (2, ["best"])]
    missing = ask(two, "PUT", "/models/brief/aliases/best", b'{"version": 7}', Content_Type="application/json")
    assert (missing.status, missing.code) == (404, "version_not_found")
    until(lambda: predict(two, "brief@best", [0.0] * 10).status == 200, 30, "the alias serves")
    used = ask(one, "DELETE", "/models/brief/versions/2")
    assert (used.status, used.code) == (409, "version_in_use")
    removed = ask(one, "DELETE", "/models/brief/versions/2?move_aliases_to=1").json()
    assert removed == {"removed": ["brief/2"]}
    assert ask(one, "DELETE", "/models/brief?all=true").json() == {"removed": ["brief@best", "brief/1"]}
    until(lambda: predict(two, "brief@best", [0.0] * 10).code == "model_not_found", 30, "the model is gone")
    assert ask(two, "GET", "/models/brief").code == "model_not_found"


def test_a_file_that_is_not_a_model_is_rejected(deployed: Answer, workers: tuple[Worker, Worker]) -> None:
    for content in (b"none", b"tree\nversion=v4\n" + os.urandom(1_000)):
        answer = put(workers[0], "/models/broken", content)
        assert 400 <= answer.status < 500, answer.body
    assert ask(workers[0], "GET", "/models/broken").code == "model_not_found"


def test_tenants_are_isolated(deployed: Answer, workers: tuple[Worker, Worker]) -> None:
    other = {"Authorization": f"Bearer {TOKENS['other']}"}
    assert predict(workers[0], "demo", [0.0] * 10, **other).code == "model_not_found"
    assert ask(workers[0], "GET", "/models", None, **other).json() == {"models": []}
    status = ask(workers[0], "GET", "/status", None, **other)
    assert {item["tenant"] for item in status.json()["tenants"]} == {"other"}
    assert b"demo" not in status.body
    assert predict(workers[0], "demo", [0.0] * 10, inferd_tenant="other").status == 403
    assert predict(workers[0], "demo", [0.0] * 10, Authorization="Bearer wrong").status == 401
    operator = ask(workers[0], "GET", "/metrics", Authorization=f"Bearer {TOKENS['*']}")
    assert b"inferd_requests_total" in operator.body


def test_predictions_that_run_are_answered_before_the_worker_ends(
    place: Cluster, deployed: Answer, tmp_path: Path
) -> None:
    alone = f"{place.namespace}-alone"
    worker = Worker(place.bootstrap, place.namespace, tmp_path, "w3", group_id=alone, tenants="default,other")
    try:
        worker.wait_ready()
        headers = {"inferd_tenant": "default"}
        until(lambda: predict(worker, "demo", [0.0] * 10, **headers).status == 200, 30, "it serves")
        outcomes: list[tuple[float, Answer | OSError]] = []
        stopping = threading.Event()

        def load() -> None:
            while not stopping.is_set():
                started = time.monotonic()
                try:
                    outcomes.append((started, predict(worker, "demo", [[0.0] * 10] * 100, **headers)))
                except OSError as error:
                    outcomes.append((started, error))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(outcomes) > 50, 30, "predictions run")
        signalled = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - signalled < 20, "an unanswered request delays the stop until its deadline"
        stopping.set()
        for thread in threads:
            thread.join(30)
        answers = [outcome for _, outcome in outcomes if isinstance(outcome, Answer)]
        assert {answer.status for answer in answers} <= {200, 503}
        # Connections fail only if they are opened after the worker began to stop.
        assert [outcome for started, outcome in outcomes if started < signalled and isinstance(outcome, OSError)] == []
    finally:
        worker.kill()

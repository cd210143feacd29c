"""`ModelServer` in a script, over real sockets, with the package requests."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import requests

from inferd import (
    BatchPredictor,
    ModelManager,
    ModelServer,
    RealtimePredictor,
    ServerError,
    create_batch_predictor,
    create_model_server,
    create_realtime_predictor,
)
from inferd.schemas.errors import ModelServingError
from inferd.schemas.models import Alias, SplitShare

TIMEOUT_S = 20.0
ROW = [1, 2, 3, 4, 5]


@pytest.fixture(scope="session")
def booster() -> Any:
    rows = np.random.default_rng(0).normal(size=(200, 5))
    data = lightgbm.Dataset(rows, (rows[:, 0] > 0).astype(float))
    return lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, 3)


@pytest.fixture
def manager(booster: Any, tmp_path: Path) -> ModelManager:
    booster.save_model(tmp_path / "model.txt")
    manager = ModelManager(tmp_path / "store")
    manager.register("ticket_classifier", tmp_path / "model.txt", trial=False)
    manager._directory.passed_trial(manager.list()[0])
    return manager


@pytest.fixture
def expected(booster: Any) -> float:
    return float(booster.predict(np.array([ROW], float), num_threads=1)[0])


@pytest.fixture
def url(manager: ModelManager) -> Iterator[str]:
    with ModelServer(manager, port=0) as server:
        yield server.url


def test_a_prediction_is_one_request(url: str, expected: float) -> None:
    answer = requests.post(f"{url}/predict/ticket_classifier", json={"input_data": [1, 2, 3, 4, 5]}, timeout=TIMEOUT_S)
    assert answer.json()["prediction"] == expected
    assert answer.json().keys() == {"id", "model_id", "version", "digest", "prediction"}
    body: Any = {"input_data": [ROW, ROW], "outputs": ["prediction", "raw"]}
    answer = requests.post(f"{url}/predict/ticket_classifier:1", json=body, timeout=TIMEOUT_S)
    assert answer.json()["prediction"] == [expected, expected]
    assert len(answer.json()["raw"]) == 2


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/predict/nobody", {"input_data": ROW}, 404, "model_not_found"),
        ("/predict/ticket_classifier:9", {"input_data": ROW}, 404, "version_not_found"),
        ("/predict/ticket_classifier", {"input_data": [1]}, 422, "schema_mismatch"),
        ("/predict/ticket_classifier", {"input": ROW}, 400, "malformed"),
        ("/predict/ticket_classifier", [], 400, "malformed"),
        ("/nowhere", {}, 404, "not_found"),
    ],
)
def test_errors_are_those_of_a_worker(url: str, path: str, body: Any, status: int, code: str) -> None:
    answer = requests.post(url + path, json=body, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]


def test_models_are_registered_and_removed_over_http(url: str, booster: Any, manager: ModelManager) -> None:
    assert requests.get(f"{url}/health", timeout=TIMEOUT_S).json() == {"status": "healthy"}
    (model,) = requests.get(f"{url}/models", timeout=TIMEOUT_S).json()["models"]
    assert (model["model_id"], [version["version"] for version in model["versions"]]) == ("ticket_classifier", [1])
    text = booster.model_to_string().encode()
    headers = {"Content-Type": "application/octet-stream"}
    for status in (201, 200):
        put = requests.put(f"{url}/models/second?alias=champion", data=text, headers=headers, timeout=TIMEOUT_S)
        assert (put.status_code, put.json()["model_id"], put.json()["version"]) == (status, "second", 1), put.text
    shown = requests.get(f"{url}/models/second", timeout=TIMEOUT_S).json()
    assert shown["aliases"]["champion"]["version"] == shown["aliases"]["champion"]["revision"] == 1
    version = requests.get(f"{url}/models/second/aliases/champion", timeout=TIMEOUT_S).json()
    assert version["manifest"] == put.json()
    assert manager.load("second@champion").manifest.version == 1
    assert requests.delete(f"{url}/models/second?all=true", timeout=TIMEOUT_S).status_code == 200
    assert requests.get(f"{url}/models/second", timeout=TIMEOUT_S).status_code == 404


def test_a_split_is_served_over_http(url: str, booster: Any, manager: ModelManager) -> None:
    manager.register("ticket_classifier", booster.model_to_string(num_iteration=1).encode(), trial=False)
    manager._directory.passed_trial(manager.list()[1])
    manager.set_alias("ticket_classifier", "half", Alias(split=[SplitShare(1, 1.0), SplitShare(2, 1.0)]))
    answers = [
        requests.post(f"{url}/predict/ticket_classifier@half", json={"input_data": ROW}, timeout=TIMEOUT_S).json()
        for _ in range(40)
    ]
    assert {answer.get("version") for answer in answers} == {1, 2}, answers


def test_jobs_run_over_http(url: str, expected: float) -> None:
    job: Any = {"job_id": "j-1", "model_id": "ticket_classifier", "input_batch": [ROW, [1], ROW]}
    for _ in range(2):
        submitted = requests.post(f"{url}/jobs", json=job, timeout=TIMEOUT_S)
        assert (submitted.status_code, submitted.json()["input_count"]) == (202, 3)
    other = requests.post(f"{url}/jobs", json={**job, "input_batch": [ROW]}, timeout=TIMEOUT_S)
    assert (other.status_code, other.json()["error"]["code"]) in {(409, "job_conflict"), (409, "job_closed")}
    for _ in range(1_000):
        status = requests.get(f"{url}/jobs/j-1", timeout=TIMEOUT_S).json()
        if status["finished_at"]:
            break
    assert (status["status"], status["succeeded"], status["failed"]) == ("completed_with_errors", 2, 1)
    lines = requests.get(f"{url}/jobs/j-1/results?from_row=1", timeout=TIMEOUT_S).text.splitlines()
    assert '"schema_mismatch"' in lines[0]
    assert lines[1] == f'{{"row":2,"prediction":{expected!r}}}'
    assert [each["job_id"] for each in requests.get(f"{url}/jobs", timeout=TIMEOUT_S).json()["jobs"]] == ["j-1"]


def test_rows_of_a_job_may_be_ndjson(url: str, expected: float) -> None:
    headers, job = {"Content-Type": "application/x-ndjson"}, f"{url}/jobs?model=ticket_classifier&job_id=j-2"
    for _ in range(2):
        answer = requests.post(job, data=b"[1,2,3,4,5]\n" * 3_000, headers=headers, timeout=TIMEOUT_S)
        assert (answer.status_code, answer.json()["input_count"]) == (202, 3_000)
    other = requests.post(job, data=b"[1,2,3,4,5]\n", headers=headers, timeout=TIMEOUT_S)
    assert (other.status_code, other.json()["error"]["code"]) in {(409, "job_conflict"), (409, "job_closed")}
    deadline = time.monotonic() + TIMEOUT_S
    while requests.get(f"{url}/jobs/j-2", timeout=TIMEOUT_S).json()["status"] != "completed":
        assert time.monotonic() < deadline
    text = requests.get(f"{url}/jobs/j-2/results?from_row=2999", headers={"Accept": "text/csv"}, timeout=TIMEOUT_S).text
    assert text.splitlines() == ["row,prediction,error_code,error_message", f"2999,{expected!r},,"]


class Own(ModelServer):
    """Adds a user route."""

    def _setup_routes(self) -> None:
        @self.app.post("/predict_batch/{model_id}")
        async def predict_batch(model_id: str, input_batch: list) -> dict[str, Any]:  # type: ignore[type-arg]
            return {"predictions": self.batch_predictor.process_batch(model_id, input_batch)}

        @self.app.get("/tenant")
        def tenant() -> str:
            return self.tenant_id


class Halved(RealtimePredictor):
    def predict(self, model_id: str, input_data: Any) -> Any:
        if input_data == [0] * 5:
            raise ZeroDivisionError("row 4711")
        return super().predict(model_id, input_data) / 2


class Doubled(BatchPredictor):
    def process_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
        return [2 * prediction for prediction in super().process_batch(model_id, input_batch)]


def test_subclasses_are_used(manager: ModelManager, expected: float) -> None:
    halved, doubled = Halved(manager), Doubled(manager)
    with Own(manager, port=0, realtime_predictor=halved, batch_predictor=doubled) as server:
        answer = requests.post(f"{server.url}/predict_batch/ticket_classifier", json=[ROW], timeout=TIMEOUT_S)
        assert answer.json() == {"predictions": [2 * expected]}
        assert requests.get(f"{server.url}/tenant", timeout=TIMEOUT_S).text == "default"
        predict = f"{server.url}/predict/ticket_classifier"
        assert requests.post(predict, json={"input_data": ROW}, timeout=TIMEOUT_S).json()["prediction"] == expected / 2
        bug = requests.post(predict, json={"input_data": [0] * 5}, timeout=TIMEOUT_S)
        assert (bug.status_code, bug.json()["error"]["code"]) == (500, "internal")
        assert "4711" not in bug.text
        assert requests.post(predict, json={"input_data": ROW}, timeout=TIMEOUT_S).status_code == 200


def test_the_cache_of_the_predictor_is_used(manager: ModelManager, expected: float) -> None:
    cache: dict[str, str] = {}
    with ModelServer(manager, port=0, realtime_predictor=RealtimePredictor(manager, cache)) as server:
        for _ in range(2):
            answer = requests.post(
                f"{server.url}/predict/ticket_classifier", json={"input_data": ROW}, timeout=TIMEOUT_S
            )
            assert answer.json()["prediction"] == expected
    assert list(cache.values()) == [f"[{expected!r}]"]


def test_a_port_in_use_is_an_error(manager: ModelManager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = ModelServer(manager, port=port)
        for start in (server.start_in_thread, server.start_server):
            with pytest.raises(ServerError, match=rf"port={port} cannot be used: another process.*choose another port"):
                start()
    with ModelServer(manager, port=0) as server, pytest.raises(ServerError, match="already running on http://127"):
        server.start_server()


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("no.such.host.invalid", 8000, "host='no.such.host.invalid' cannot be used"),
        ("300.1.1.1", 8000, "host='300.1.1.1' cannot be used"),
        ("", 8000, "expected a name or an address"),
        ("0.0.0.0", 8000, r"without authentication: set a file of bearer tokens \(tokens_file=…\)"),
        ("127.0.0.1", 70_000, "port=70000 cannot be used: expected a number"),
        ("127.0.0.1", "8000", "port='8000' cannot be used"),
    ],
)
def test_an_invalid_address_is_an_error(manager: ModelManager, host: str, port: Any, words: str) -> None:
    with pytest.raises(ServerError, match=words):
        ModelServer(manager, host, port).start_server()


def test_an_address_of_another_machine_is_an_error(manager: ModelManager) -> None:
    server = ModelServer(manager, "192.0.2.1", 0, insecure_http=True)
    with pytest.raises(ServerError, match="must be an address of this machine"):
        server.start_in_thread()
    with pytest.raises(ServerError, match="has not started"):
        _ = server.url


def test_tokens_are_required(manager: ModelManager, tmp_path: Path) -> None:
    import hashlib

    (tokens := tmp_path / "tokens").write_text(f"default:{hashlib.sha256(b's3cret').hexdigest()}\n")
    tokens.chmod(0o600)
    with ModelServer(manager, port=0, tokens_file=tokens) as server:
        assert requests.get(f"{server.url}/models", timeout=TIMEOUT_S).status_code == 401
        headers = {"Authorization": "Bearer s3cret"}
        assert requests.get(f"{server.url}/models", headers=headers, timeout=TIMEOUT_S).status_code == 200
        assert requests.get(f"{server.url}/health", timeout=TIMEOUT_S).status_code == 200


async def test_it_does_not_block_an_event_loop(manager: ModelManager) -> None:
    with pytest.raises(ServerError, match="would block the running event loop: call start_in_thread"):
        ModelServer(manager, port=0).start_server()


def test_it_starts_again_after_a_stop_and_from_any_thread(manager: ModelManager) -> None:
    server = ModelServer(manager, port=0)
    server.stop_server()
    for _ in range(2):
        assert requests.get(f"{server.start_in_thread()}/livez", timeout=TIMEOUT_S).status_code == 200
        server.stop_server()
    blocking = threading.Thread(target=server.start_server)
    blocking.start()
    while blocking.is_alive():
        server.stop_server()
        blocking.join(0.01)


SCRIPT = """
import sys
from inferd import ModelManager, ModelServer
ModelServer(ModelManager(sys.argv[1]), port=0).start_server()
print("ended")
"""


@pytest.mark.parametrize("number", [2, 15])
def test_a_script_serves_until_a_signal(manager: ModelManager, number: int) -> None:
    command = [sys.executable, "-c", SCRIPT, str(manager.store)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as script:
        assert script.stderr is not None
        try:
            assert any("http://127.0.0.1" in line for line in script.stderr)
            script.send_signal(number)
            assert script.communicate(timeout=TIMEOUT_S)[0] == "ended\n"
            assert script.returncode == 0
        finally:
            script.kill()


def test_factories_take_a_directory_or_a_manager(manager: ModelManager, expected: float) -> None:
    assert create_realtime_predictor(manager.store).predict("ticket_classifier", ROW) == expected
    assert create_realtime_predictor(manager, cache={}).predict("ticket_classifier", ROW) == expected
    with create_batch_predictor(str(manager.store)) as predictor:
        job_id = predictor.submit_batch("ticket_classifier", [ROW])
        assert predictor.get_batch_results(job_id, TIMEOUT_S) == [{"row": 0, "prediction": expected}]
    server = create_model_server(manager, port=0)
    assert server.tenant_id == "default"
    acme = create_model_server(manager.store, port=0, tenant_id="acme")
    assert acme.model_manager.list() == []


@pytest.mark.parametrize(
    "raises",
    [
        lambda manager: ModelServer(manager, port=-1).start_server(),
        lambda manager: RealtimePredictor(manager).predict("x", ROW),
        lambda manager: BatchPredictor(manager).get_batch_status("x"),
        lambda manager: manager.load("a/b"),
    ],
)
def test_every_error_has_a_message_and_a_code(manager: ModelManager, raises: Any) -> None:
    with pytest.raises(ModelServingError) as caught:
        raises(manager)
    assert caught.value.message
    assert caught.value.code

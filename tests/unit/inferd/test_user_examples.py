"""The names, keywords and defaults of the Python API, and programs that use them as documented."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import requests

import inferd

ROW = [1, 2, 3, 4, 5]
REQUIRED = inspect.Parameter.empty
TIMEOUT_S = 30.0
SIGNATURES: dict[str, dict[str, Any]] = {
    "ModelServer": {"model_manager": REQUIRED, "host": "127.0.0.1", "port": 8000, "tenant_id": None},
    "create_model_server": {"model_manager": REQUIRED, "host": "127.0.0.1", "port": 8000, "tenant_id": None},
    "BatchPredictor": {"model_manager": REQUIRED, "tenant_id": None},
    "create_batch_predictor": {"model_manager": REQUIRED, "tenant_id": None},
    "RealtimePredictor": {"model_manager": REQUIRED, "cache": None, "tenant_id": None},
    "create_realtime_predictor": {"model_manager": REQUIRED, "cache": None, "tenant_id": None},
    "ModelManager": {"store": REQUIRED, "tenant_id": "default"},
    "RealtimePredictor.predict": {"model_id": REQUIRED, "input_data": REQUIRED},
    "BatchPredictor.submit_batch": {"model_id": REQUIRED, "input_batch": REQUIRED, "job_id": None},
    "BatchPredictor.get_batch_status": {"job_id": REQUIRED},
    "BatchPredictor.get_batch_results": {"job_id": REQUIRED, "timeout_s": None},
    "BatchPredictor.process_batch": {"model_id": REQUIRED, "input_batch": REQUIRED},
    "ModelServer._setup_routes": {},
    "ModelServer.start_server": {},
}
"""The positional parameters of each function, in order, and their defaults."""


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_signature_is_the_documented_one(name: str) -> None:
    owner, _, method = name.partition(".")
    function = getattr(inferd, owner)
    parameters = inspect.signature(getattr(function, method) if method else function).parameters.values()
    positional = {each.name: each.default for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD}
    positional.pop("self", None)
    assert list(positional.items()) == list(SIGNATURES[name].items())


@pytest.fixture
def model_manager(tmp_path: Path) -> inferd.ModelManager:
    rows = np.random.default_rng(0).normal(size=(200, 5))
    data = lightgbm.Dataset(rows, (rows[:, 0] > 0).astype(float))
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1}
    lightgbm.train(parameters, data, 3).save_model(tmp_path / "model.txt")
    manager = inferd.ModelManager(tmp_path / "models")
    manager.register("ticket_classifier", tmp_path / "model.txt", trial=False)
    return manager


@pytest.fixture
def expected(tmp_path: Path, model_manager: inferd.ModelManager) -> float:
    booster = lightgbm.Booster(model_file=tmp_path / "model.txt")
    return float(booster.predict(np.array([ROW], float), num_threads=1)[0])


def test_a_server_is_created_and_called(model_manager: inferd.ModelManager, expected: float) -> None:
    from inferd import create_model_server

    server = create_model_server(model_manager=model_manager, host="127.0.0.1", port=0, tenant_id="default")
    with server:
        answer = requests.post(
            f"{server.url}/predict/ticket_classifier", json={"input_data": [1, 2, 3, 4, 5]}, timeout=TIMEOUT_S
        )
        assert answer.json()["prediction"] == expected
        assert requests.get(f"{server.url}/health", timeout=TIMEOUT_S).json()["status"] == "healthy"


def test_a_subclass_adds_routes_with_app_post(model_manager: inferd.ModelManager, expected: float) -> None:
    from inferd import ModelServer

    class CustomModelServer(ModelServer):
        def _setup_routes(self) -> None:
            super()._setup_routes()

            @self.app.post("/predict_batch/{model_id}")
            async def predict_batch(model_id: str, input_batch: list) -> dict[str, Any]:  # type: ignore[type-arg]
                predictor = inferd.create_realtime_predictor(model_manager=self.model_manager)
                rows = [predictor.predict(model_id=model_id, input_data=row) for row in input_batch]
                return {"predictions": rows}

    with CustomModelServer(model_manager=model_manager, host="127.0.0.1", port=0, tenant_id="default") as server:
        answer = requests.post(
            f"{server.url}/predict_batch/ticket_classifier", json={"input_batch": [ROW, ROW]}, timeout=TIMEOUT_S
        )
        assert answer.json() == {"predictions": [expected, expected]}


def test_a_batch_is_submitted_watched_and_read(model_manager: inferd.ModelManager, expected: float) -> None:
    from inferd import create_batch_predictor

    predictor = create_batch_predictor(model_manager=model_manager, tenant_id="default")
    job_id = predictor.submit_batch(model_id="ticket_classifier", input_batch=[ROW, ROW], job_id="job-1")
    assert job_id == "job-1"
    results = predictor.get_batch_results(job_id="job-1")
    assert results == [{"row": 0, "prediction": expected}, {"row": 1, "prediction": expected}]
    assert predictor.get_batch_status(job_id="job-1")["status"] == "completed"
    assert predictor.process_batch(model_id="ticket_classifier", input_batch=[ROW]) == [expected]


def test_a_subclass_changes_how_batches_are_scored(model_manager: inferd.ModelManager, expected: float) -> None:
    class CustomBatchPredictor(inferd.BatchPredictor):
        def process_batch(self, model_id: str, input_batch: Any) -> list[Any]:
            return [2 * value for value in super().process_batch(model_id=model_id, input_batch=input_batch)]

    predictor = CustomBatchPredictor(model_manager=model_manager, tenant_id="default")
    job_id = predictor.submit_batch(model_id="ticket_classifier", input_batch=[ROW])
    assert predictor.get_batch_results(job_id=job_id) == [{"row": 0, "prediction": 2 * expected}]


@pytest.mark.parametrize("cache", [None, {}])
def test_one_row_is_predicted_with_and_without_a_cache(
    model_manager: inferd.ModelManager, expected: float, cache: dict[str, str] | None
) -> None:
    from inferd import create_realtime_predictor

    predictor = create_realtime_predictor(model_manager=model_manager, cache=cache, tenant_id="default")
    assert predictor.predict(model_id="ticket_classifier", input_data=[1, 2, 3, 4, 5]) == expected


def test_errors_are_caught_by_their_documented_names(model_manager: inferd.ModelManager) -> None:
    from inferd import (
        BatchJobError,
        InferenceError,
        ModelServingError,
        create_batch_predictor,
    )

    predictor = inferd.create_realtime_predictor(model_manager=model_manager)
    with pytest.raises(InferenceError) as refused:
        predictor.predict(model_id="nobody", input_data=ROW)
    assert isinstance(refused.value, ModelServingError)
    with pytest.raises(BatchJobError):
        create_batch_predictor(model_manager=model_manager).get_batch_status(job_id="none")

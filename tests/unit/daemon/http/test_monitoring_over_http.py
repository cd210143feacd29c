"""`/models/{model_id}/windows` and `/drift` over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from inferd.schemas.labels import Label
from tests.unit.daemon.http.fake_http_services import FakeWorker


async def get(worker: FakeWorker, path: str) -> tuple[int, Any]:
    async with TestClient(TestServer(worker.app)) as client, client.get(path) as answer:
        return answer.status, await answer.json()


async def test_windows_and_drift_of_a_model(tmp_path: Path) -> None:
    worker = FakeWorker(tmp_path)
    status, answer = await get(worker, "/models/churn/windows?version=3&since_s=60")
    (window,) = answer["windows"]
    assert (status, window["requests"], window["latency"]) == (200, 2, {"4": 2})
    assert worker.monitoring.asked == [("default", "churn", 3, 60)]


async def test_drift_of_a_model(tmp_path: Path) -> None:
    worker = FakeWorker(tmp_path)
    status, answer = await get(worker, "/models/churn/drift")
    (found,) = answer["drift"]
    assert (status, found["source"], found["features"][0]["psi"]) == (200, "given", 0.25)
    assert worker.monitoring.asked == [("default", "churn", None, 3_600)]


async def test_quality_of_a_model(tmp_path: Path) -> None:
    worker = FakeWorker(tmp_path)
    status, answer = await get(worker, "/models/churn/quality?since_s=600")
    (found,) = answer["quality"]
    assert (status, found["rows"], found["labelled_rows"], found["brier"]) == (200, 4, 1, 0.0625)
    assert worker.monitoring.asked == [("default", "churn", None, 600)]


async def test_captured_requests_are_lines_of_rows(tmp_path: Path) -> None:
    worker = FakeWorker(tmp_path)
    async with TestClient(TestServer(worker.app)) as client:
        answer = await client.get("/models/churn/captured?version=3&outputs=prediction,raw")
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        assert answer.content_type == "application/x-ndjson"
        about = {"inferd_id": "r-1", "version": 3, "alias": "champion", "variant": "champion"}
        at = {"scored_at": "1970-01-01T00:00:00.000+00:00"}
        assert lines == [
            about | at | {"age": 24.0, "id": "a", "prediction": 0.25, "raw": None},
            about | at | {"age": None, "id": "b", "prediction": None, "raw": None},
        ]
        worker.monitoring.uncaptured = True
        answer = await client.get("/models/churn/captured")
        assert (answer.status, (await answer.json())["error"]["code"]) == (503, "unavailable")


async def test_labels_are_sent_all_or_none(tmp_path: Path) -> None:
    worker = FakeWorker(tmp_path)
    good: list[Any] = [{"id": "r-1", "label": 1}, {"id": "r-2", "label": ["no", "yes"], "weight": 0.5}]
    async with TestClient(TestServer(worker.app)) as client:
        for wrong, code in (
            ({"labels": [*good, {"id": "r-3", "label": 1, "weight": 0}]}, "invalid_value"),
            ({"labels": []}, "malformed"),
            ({"labels": [{"label": 1}]}, "malformed"),
            ([], "malformed"),
        ):
            answer = await client.post("/labels", json=wrong)
            assert (await answer.json())["error"]["code"] == code, wrong
        assert worker.monitoring.labels == []
        answer = await client.post("/labels", json={"labels": good})
        assert (answer.status, await answer.json()) == (202, {"sent": 2})
    sent = [Label("r-1", 1), Label("r-2", ["no", "yes"], 0.5)]
    assert worker.monitoring.labels == [("default", label) for label in sent]


@pytest.mark.parametrize("query", ["version=x", "version=0", "since_s=-1", "since_s=9999999999", "version=²"])
async def test_wrong_numbers_are_rejected(tmp_path: Path, query: str) -> None:
    status, answer = await get(FakeWorker(tmp_path), f"/models/churn/windows?{query}")
    assert (status, answer["error"]["code"]) == (422, "invalid_value")

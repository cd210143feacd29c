"""`/models/{model_id}/windows` and `/drift` over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

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


@pytest.mark.parametrize("query", ["version=x", "version=0", "since_s=-1", "since_s=9999999999", "version=²"])
async def test_wrong_numbers_are_rejected(tmp_path: Path, query: str) -> None:
    status, answer = await get(FakeWorker(tmp_path), f"/models/churn/windows?{query}")
    assert (status, answer["error"]["code"]) == (422, "invalid_value")

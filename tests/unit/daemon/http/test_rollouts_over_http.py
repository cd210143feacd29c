"""`/rollouts…` over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.unit.daemon.http.fake_http_services import FakeWorker

BODY = {"to": 4, "steps": ["10%:1h", "100%"], "guards": ["errors < 1%"]}


async def ask(worker: FakeWorker, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    async with TestClient(TestServer(worker.app)) as client:
        answer = await client.request(method, path, json=body, headers={"x-requested-with": "t"})
        return answer.status, await answer.json()


async def test_a_rollout_is_started_shown_and_steered(tmp_path: Path) -> None:
    worker = FakeWorker(tmp_path)
    assert (await ask(worker, "GET", "/rollouts/churn"))[1]["error"]["code"] == "rollout_not_found"
    status, answer = await ask(worker, "POST", "/rollouts/churn?changed_by=ana", BODY)
    rollout = answer["rollout"]
    assert (status, rollout["version"], rollout["steps"], rollout["started_by"]) == (202, 4, BODY["steps"], "ana")
    assert await ask(worker, "GET", "/rollouts/churn") == (200, answer)
    assert await ask(worker, "GET", "/rollouts") == (200, {"rollouts": {"churn": answer}})
    for action in ("pause", "resume", "promote", "abort"):
        assert (await ask(worker, "POST", f"/rollouts/churn/{action}"))[0] == 202
    assert worker.rollouts.steered == [(action, "http") for action in ("pause", "resume", "promote", "abort")]
    status, answer = await ask(worker, "POST", "/rollouts/churn", BODY)
    assert (status, answer["error"]["code"]) == (409, "rollout_conflict")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/rollouts/churn", {"to": 4}, 400, "malformed"),
        ("/rollouts/churn", BODY | {"more": 1}, 400, "malformed"),
        ("/rollouts/churn", BODY | {"steps": ["10%:1h"]}, 422, "invalid_value"),
        ("/rollouts/churn", BODY | {"guards": ["x"]}, 422, "invalid_value"),
        ("/rollouts/a%20b", BODY, 400, "invalid_id"),
        ("/rollouts/churn/stop", None, 404, "not_found"),
    ],
)
async def test_invalid_rollouts(tmp_path: Path, path: str, body: object, status: int, code: str) -> None:
    found, answer = await ask(FakeWorker(tmp_path), "POST", path, body)
    assert (found, answer["error"]["code"]) == (status, code)

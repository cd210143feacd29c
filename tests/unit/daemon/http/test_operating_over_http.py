"""The audit over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.tokens import TokensFile
from inferd.daemon.http.routes.services import RedriveOptions
from tests.unit.daemon.http.fake_http_services import FakeWorker


def tokens_of(tmp_path: Path) -> TokensFile:
    import hashlib

    file = tmp_path / "tokens"
    file.write_text(f"default:{hashlib.sha256(b'secret').hexdigest()}:ann\n")
    file.chmod(0o600)
    return TokensFile(file)


async def test_cancelled_and_retried_jobs_are_in_the_audit_with_the_caller(tmp_path: Path) -> None:
    worker = FakeWorker(tmp_path, access=Access(tokens=tokens_of(tmp_path)))
    cancel = worker.jobs.cancel

    async def cancelled(tenant: str, job_id: str) -> bytes:
        return b"{}" if job_id == "open" else await cancel(tenant, job_id)

    worker.jobs.cancel = cancelled  # type: ignore[method-assign]
    headers = {"authorization": "Bearer secret", "x-requested-with": "t"}
    async with TestClient(TestServer(worker.app)) as client:
        assert (await client.post("/jobs/open/cancel", headers=headers)).status == 202
        assert (await client.post("/jobs/open/retry", headers=headers)).status == 202
        assert (await client.post("/jobs/no/cancel", headers=headers)).status == 404
        answer = await (await client.get("/audit?since_s=60&limit=5", headers=headers)).json()
    assert [(each["action"], each["subject"]) for each in answer["records"]] == [
        ("cancel", "open"), ("retry", "open"),
    ]  # fmt: skip
    record = worker.operating.records[0]
    assert record.by == "ann"
    assert record.origin == "http 127.0.0.1"
    assert worker.operating.asked == [("default", 60, 5)]


@pytest.mark.parametrize("query", ["since_s=0", "since_s=x", "limit=1001", "limit=-1"])
async def test_wrong_queries(tmp_path: Path, query: str) -> None:
    async with TestClient(TestServer(FakeWorker(tmp_path).app)) as client:
        answer = await client.get(f"/audit?{query}")
        assert (answer.status, (await answer.json())["error"]["code"]) == (422, "invalid_value")


async def test_dead_letters_are_redriven(tmp_path: Path) -> None:
    worker = FakeWorker(tmp_path)
    headers = {"inferd-request": "1"}
    async with TestClient(TestServer(worker.app)) as client:
        answer = await client.post("/dead-letters/redrive?code=malformed&since_s=60&dry_run=true", headers=headers)
        assert (answer.status, await answer.json()) == (
            200, {"read": 3, "redriven": 2, "skipped": {"incomplete": 1}, "dry_run": True, "done": True},
        )  # fmt: skip
        for wrong in ("limit=0", "dry_run=yes", "since_s=x"):
            assert (await client.post(f"/dead-letters/redrive?{wrong}", headers=headers)).status == 422
    options = RedriveOptions(code="malformed", since_s=60, limit=1_000, dry_run=True)
    assert worker.operating.redriven == [("default", options)]

"""A worker's HTTP application over services in memory, and a client of it; modules may define others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.unit.daemon.http.fake_http_services import FakeWorker


@pytest.fixture
def worker(tmp_path: Path) -> FakeWorker:
    return FakeWorker(tmp_path)


@pytest.fixture
async def client(worker: FakeWorker) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(worker.app)) as client:
        yield client

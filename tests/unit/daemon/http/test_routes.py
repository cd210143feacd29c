"""`/routes…` over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from inferd.schemas.routes import Format, Route, Sink, Source
from tests.unit.daemon.http.fake_http_services import FakeWorker

ROUTE = Route("orders", Source(["orders.v1"], Format("json")), "m", Sink("orders.scored"))

STARTED = {"topics": ["a"], "format": {"name": "json"}, "start": {"a": [1]}}


async def ask(
    worker: FakeWorker, method: str, path: str, route: Route | None = None, **changes: Any
) -> tuple[int, dict[str, Any]]:
    body = None if route is None else msgspec.to_builtins(route) | changes
    async with TestClient(TestServer(worker.app)) as client:
        answer = await client.request(method, path, json=body, headers={"x-requested-with": "t"})
        return answer.status, await answer.json()


async def test_a_route_is_created_from_a_time_on(tmp_path: Path) -> None:
    worker = FakeWorker(tmp_path)
    status, answer = await ask(worker, "PUT", "/routes/orders?start=1000", ROUTE)
    assert (status, answer["state"], answer["route"]["name"]) == (201, "running", "orders")
    assert worker.routes.starts == [datetime.fromtimestamp(1, UTC)]


@pytest.mark.parametrize(
    ("path", "changes", "status", "code"),
    [
        ("/routes/other", {}, 422, "invalid_value"),
        ("/routes/orders?start=tomorrow", {}, 422, "invalid_value"),
        ("/routes/orders", {"model": "@"}, 400, "invalid_id"),
        ("/routes/orders", {"more": 1}, 400, "malformed"),
        (
            "/routes/orders",
            {"source": {"topics": ["a"], "format": {"name": "json"}, "start": {"a": [1]}}},
            422,
            "invalid_value",
        ),
        ("/routes/a%20b", {}, 400, "invalid_id"),
    ],
)
async def test_invalid_routes(tmp_path: Path, path: str, changes: dict[str, Any], status: int, code: str) -> None:
    found, answer = await ask(FakeWorker(tmp_path), "PUT", path, ROUTE, **changes)
    assert (found, answer["error"]["code"]) == (status, code)


async def test_a_route_that_does_not_exist_is_404(tmp_path: Path) -> None:
    for method in ("GET", "DELETE"):
        status, answer = await ask(FakeWorker(tmp_path), method, "/routes/none")
        assert (status, answer["error"]["code"]) == (404, "route_not_found")


async def test_routes_are_listed_and_removed(tmp_path: Path) -> None:
    worker = FakeWorker(tmp_path)
    worker.routes.routes["default", "orders"] = ROUTE
    async with TestClient(TestServer(worker.app)) as client:
        listed = await (await client.get("/routes")).json()
        shown = await (await client.get("/routes/orders")).json()
        assert listed == {"routes": [shown]}
        assert shown["route"] == msgspec.to_builtins(ROUTE)
        removed = await client.delete("/routes/orders")
        assert (removed.status, await removed.json()) == (200, {"removed": "orders"})
        assert await (await client.get("/routes")).json() == {"routes": []}

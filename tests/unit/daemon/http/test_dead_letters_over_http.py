"""`/dead-letters` over HTTP."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from tests.unit.daemon.http.fake_http_services import FakeWorker

Client = TestClient[web.Request, web.Application]


async def test_the_newest_are_listed(client: Client, worker: FakeWorker) -> None:
    (found,) = (await (await client.get("/dead-letters?last=5&code=malformed")).json())["dead_letters"]
    assert (found["partition"], found["offset"], found["code"]) == (2, 17, "malformed")
    assert found["source"]["topic"] == "inferd.default.requests"
    assert "value" not in found
    assert worker.dead_letters.asked == [("default", 5, "malformed")]
    await client.get("/dead-letters")
    assert worker.dead_letters.asked[1] == ("default", 20, None)


async def test_one_is_shown_with_its_value(client: Client) -> None:
    found = await (await client.get("/dead-letters/2:17")).json()
    assert (found["value"], found["value_format"]) == ({"model_id": 7}, "json")
    assert found["headers"] == [["correlation-id", "c1"]]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/dead-letters?last=0", 422, "invalid_value"),
        ("/dead-letters?last=201", 422, "invalid_value"),
        ("/dead-letters/17", 422, "invalid_value"),
        ("/dead-letters/a:b", 422, "invalid_value"),
        ("/dead-letters/2:18", 404, "not_found"),
    ],
)
async def test_errors(client: Client, path: str, status: int, code: str) -> None:
    answer = await client.get(path)
    assert (answer.status, (await answer.json())["error"]["code"]) == (status, code)

"""Probes, status, metrics, the page, and JSON errors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from inferd.daemon.http.core.application import AppLimits, create_app
from inferd.daemon.http.core.bodies import read_body
from inferd.daemon.http.core.server import HttpServer
from inferd.daemon.http.routes.observation import add_observation
from inferd.daemon.settings.settings import Settings
from inferd.daemon.telemetry.status import StatusBoard
from inferd.schemas.errors import ModelNotFoundError, ServerError
from tests.unit.daemon.fake_streams import FakeStreams, snapshot

Client = TestClient[web.Request, web.Application]
BODY_BYTES_MAX = 1_000
LIMITS = AppLimits(body_bytes_max=BODY_BYTES_MAX)


@pytest.fixture
def streams() -> FakeStreams:
    return FakeStreams(Settings.from_environment({}).streams(), lambda _reason, _code: None)


@pytest.fixture
def board(streams: FakeStreams) -> StatusBoard:
    board = StatusBoard(Settings.from_environment({"INFERD_WORKER_ID": "w1"}))
    board.attach(streams)
    board.enter("running", "")
    return board


def observing(board: StatusBoard) -> web.Application:
    app = create_app(limits=LIMITS)
    add_observation(app, board)
    return app


@pytest.fixture
async def client(board: StatusBoard) -> AsyncIterator[Client]:
    app = observing(board)
    app.router.add_get("/test/bug", bug)
    app.router.add_get("/test/typed", typed)
    app.router.add_post("/test/body", body)
    async with TestClient(TestServer(app)) as client:
        yield client


async def bug(_request: web.Request) -> web.Response:
    raise ZeroDivisionError("feature 4711")


async def typed(_request: web.Request) -> web.Response:
    raise ModelNotFoundError("the tenant has no model 'x'")


async def body(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await read_body(request, LIMITS.body))))


async def test_liveness_does_not_depend_on_the_streams(client: Client, board: StatusBoard) -> None:
    board.enter("waiting", "waiting for the broker")
    answer = await client.get("/livez")
    assert (answer.status, await answer.json()) == (200, {"status": "live"})


@pytest.mark.parametrize("path", ["/health", "/readyz"])
async def test_readiness_lists_the_reasons(client: Client, board: StatusBoard, streams: FakeStreams, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status, await answer.json()) == (200, {"status": "healthy"})
    streams.said = snapshot(unready=("rebalancing", "no model is ready"))
    answer = await client.get(path)
    assert answer.status == 503
    assert await answer.json() == {"status": "unhealthy", "reasons": ["rebalancing", "no model is ready"]}
    board.attach(None)
    board.enter("waiting", "waiting for the broker")
    answer = await client.get(path)
    assert await answer.json() == {"status": "unhealthy", "reasons": ["waiting for the broker"]}


async def test_status_has_the_snapshot_of_the_streams(client: Client) -> None:
    answer = await client.get("/status")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    said = await answer.json()
    assert (said["worker"], said["ready"], said["phase"], said["lag"]) == ("w1", True, "running", 20)
    assert said["partitions"][0]["topic"] == "inferd.default.requests"
    assert said["models"][0]["model_id"] == "churn"
    assert said["tenants"][0]["errors"] == {"malformed": 3, "model_not_found": 1}
    assert set(said["latency"]) == {"queue", "infer", "end_to_end", "direct", "model_wait"}
    versions = {each["name"]: each["version"] for each in said["model_formats"]}
    assert all(versions[name] for name in ("lightgbm", "xgboost", "catboost", "onnx", "sklearn"))


async def test_metrics_are_for_prometheus(client: Client) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert 'inferd_requests_total{tenant="default"} 50.0' in await answer.text()


async def test_requests_are_counted_by_route(client: Client) -> None:
    for path in ("/livez", "/livez", "/made-up/4711", "/test/bug"):
        await client.get(path)
    await client.request("BREW", "/livez")
    text = await (await client.get("/metrics")).text()
    assert 'inferd_http_requests_total{method="GET",route="/livez",status="200"} 2.0' in text
    assert 'inferd_http_requests_total{method="GET",route="other",status="404"} 1.0' in text
    assert 'inferd_http_requests_total{method="GET",route="/test/bug",status="500"} 1.0' in text
    assert 'inferd_http_request_seconds_count{route="/livez"} 2.0' in text
    assert "4711" not in text
    assert "BREW" not in text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/status/", 404, "not_found"),
        ("POST", "/status", 405, "method_not_allowed"),
        ("GET", "/test/typed", 404, "model_not_found"),
        ("GET", "/test/bug", 500, "internal"),
    ],
)
async def test_errors_are_json(client: Client, method: str, path: str, status: int, code: str) -> None:
    answer = await client.request(method, path)
    error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (status, code)
    assert error["message"]
    assert "4711" not in error["message"]
    assert ("Allow" in answer.headers) == (status == 405)


async def test_a_body_over_the_limit_is_rejected(client: Client) -> None:
    answer = await client.post("/test/body", data=b"x" * BODY_BYTES_MAX)
    assert answer.status == 200
    answer = await client.post("/test/body", data=b"x" * (BODY_BYTES_MAX + 1))
    assert (answer.status, (await answer.json())["error"]["code"]) == (413, "too_large")


async def test_paths_are_escaped_in_errors(client: Client) -> None:
    answer = await client.get("/%1b[2J")
    assert (await answer.json())["error"]["message"].isprintable()


async def test_head_is_allowed(client: Client) -> None:
    assert (await client.head("/readyz")).status == 200


def server(board: StatusBoard, **flags: str) -> HttpServer:
    settings = Settings.from_environment({}, {"http_port": "0", **flags})
    return HttpServer(observing(board), settings.http_host, settings.http_port)


async def test_port_0_chooses_a_free_port(board: StatusBoard) -> None:
    http = server(board)
    await http.start()
    try:
        assert http.url == f"http://127.0.0.1:{http.port}"
        async with ClientSession() as session, session.get(f"{http.url}/livez") as answer:
            assert answer.status == 200
    finally:
        port = http.port
        await http.stop()
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_taken_port_is_an_error_that_names_it(board: StatusBoard) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError) as refused:
            await server(board, http_port=str(port)).start()
    assert f"INFERD_HTTP_PORT={port}" in refused.value.message


async def test_a_host_of_another_machine_is_an_error_that_names_it(board: StatusBoard) -> None:
    with pytest.raises(ServerError) as refused:
        await server(board, http_host="192.0.2.1").start()
    assert "INFERD_HTTP_HOST=192.0.2.1" in refused.value.message


async def test_overlong_headers_are_rejected(board: StatusBoard) -> None:
    http = server(board)
    await http.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n")
        refused = await reader.read()
        assert b" 431 " in refused.splitlines()[0]
        assert b'{"error":{"code":"too_large"' in refused
        writer.close()
        await writer.wait_closed()
        async with ClientSession() as session, session.get(f"{http.url}/livez") as answer:
            assert answer.status == 200
    finally:
        await http.stop()

"""Limits of HTTP over a real socket: size, speed and number of requests, and data that is not HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from inferd.daemon.http.core.admission import ADMISSION, Admission
from inferd.daemon.http.core.application import AppLimits
from inferd.daemon.http.core.server import HttpServer
from tests.unit.daemon.http.fake_http_services import FakeWorker

BODY_BYTES_MAX = 100_000
GOOD = b'{"input_data":[1,2]}'
HEAD = b"POST /predict/churn HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
WITHIN_S = 10.0


class Served:
    """A fake worker behind a real server."""

    def __init__(self, worker: FakeWorker, http: HttpServer) -> None:
        self.worker, self.http = worker, http

    async def send(self, *pieces: bytes) -> bytes:
        """Sends `pieces`; returns everything received until the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.http.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            async with asyncio.timeout(WITHIN_S):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def served(directory: Path, admission: Admission | None = None, **limits: Any) -> AsyncIterator[Served]:
    bounds = AppLimits(**{"body_bytes_max": BODY_BYTES_MAX, "read_timeout_s": 0.2, **limits})
    worker = FakeWorker(directory, limits=bounds, admission=admission)
    http = HttpServer(worker.app, "127.0.0.1", 0, idle_timeout_s=0.5)
    await http.start()
    try:
        yield Served(worker, http)
    finally:
        await http.stop()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made


def parsed(answer: bytes) -> tuple[int, str]:
    """Status and code of the (only, or last) response, whose body must be a JSON error."""
    head, _, body = answer.rpartition(b"\r\n\r\n")
    status = int(head.splitlines()[0].split()[1])
    assert b"Content-Type: application/json" in head
    error = json.loads(body)["error"]
    assert set(error) == {"code", "message"}
    assert "Traceback" not in error["message"]
    return status, error["code"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.005)


async def test_a_slow_body_times_out(server: Served) -> None:
    answer = await server.send(HEAD + b"Content-Length: 20\r\n\r\n", GOOD[:5])
    assert parsed(answer) == (408, "request_timeout")
    assert b"connection: close" in answer.lower()


async def test_slow_headers_close_the_connection(server: Served) -> None:
    assert await server.send(HEAD) == b""


async def test_an_idle_connection_is_closed(server: Served) -> None:
    assert await server.send() == b""


async def test_slow_clients_do_not_delay_others(server: Served) -> None:
    slow = [asyncio.create_task(server.send(HEAD + b"Content-Length: 20\r\n\r\n")) for _ in range(50)]
    await until(lambda: server.worker.app[ADMISSION].running == len(slow))
    url = f"{server.http.url}/predict/churn"
    async with ClientSession() as session, session.post(url, json={"input_data": [1, 2]}) as answer:
        assert answer.status == 200
    assert {parsed(answer) for answer in await asyncio.gather(*slow)} == {(408, "request_timeout")}


async def test_a_large_body_at_a_steady_rate_has_time(tmp_path: Path) -> None:
    """The transfer takes four times the timeout; the body is large enough to be allowed that time."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"tree" * 8_192
            await asyncio.sleep(0.1)

    async with served(tmp_path, read_timeout_s=0.2) as server, ClientSession() as session:
        headers = {"Content-Type": "application/octet-stream"}
        async with session.put(f"{server.http.url}/models/m:1", data=body(), headers=headers) as answer:
            assert answer.status == 201


async def test_bodies_over_the_limit_are_rejected(server: Served) -> None:
    claimed = await server.send(HEAD + b"Connection: close\r\nContent-Length: 100001\r\n\r\n")
    assert parsed(claimed) == (413, "too_large")
    chunk = b"186a0\r\n" + b" " * 100_000 + b"\r\n"
    sent = await server.send(
        HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, b"1\r\n \r\n0\r\n\r\n"
    )
    assert parsed(sent) == (413, "too_large")


def deflate(data: bytes) -> bytes:
    return zlib.compress(data)


@pytest.mark.parametrize(("name", "compress"), [("gzip", gzip.compress), ("deflate", deflate), ("identity", bytes)])
async def test_compressed_bodies_are_decompressed(
    server: Served, name: str, compress: Callable[[bytes], bytes]
) -> None:
    async with ClientSession() as session:
        headers = {"Content-Type": "application/json", "Content-Encoding": name}
        url = f"{server.http.url}/predict/churn"
        async with session.post(url, data=compress(GOOD), headers=headers) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(("name", "compress"), [("gzip", gzip.compress), ("deflate", deflate)])
async def test_decompression_bombs_are_rejected_and_never_allocated(
    server: Served, name: str, compress: Callable[[bytes], bytes]
) -> None:
    bomb = compress(b" " * 40_000_000)
    assert len(bomb) < BODY_BYTES_MAX
    head = HEAD + b"Connection: close\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (
        name.encode(),
        len(bomb),
    )
    tracemalloc.start()
    try:
        answers = await asyncio.gather(*(server.send(head, bomb) for _ in range(4)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {parsed(answer) for answer in answers} == {(413, "too_large")}
    assert peak < 10_000_000


def gzipped(data: bytes) -> bytes:
    """Deterministic bytes: pytest-xdist compares the test ids that pytest derives from them."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "data", "expected"),
    [
        (b"gzip", b"no gzip at all", (400, "malformed")),
        (b"gzip", gzipped(GOOD)[:-12], (400, "malformed")),
        (b"snappy", GOOD, (415, "unsupported_content_type")),
        (b"gzip, gzip", gzipped(gzipped(GOOD)), (415, "unsupported_content_type")),
    ],
    # Explicit ids: those derived from the bytes contain the time of compression, and differ between processes.
    ids=["no gzip", "cut off", "unknown", "twice"],
)
async def test_invalid_compressed_data_is_rejected(
    server: Served, encoding: bytes, data: bytes, expected: tuple[int, str]
) -> None:
    length = b"Connection: close\r\nContent-Length: %d\r\n" % len(data)
    assert parsed(await server.send(HEAD + length + b"Content-Encoding: " + encoding + b"\r\n\r\n", data)) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", (400, "malformed")),
        (b"GET /livez HTTP/1.1\r\nno header\r\n\r\n", (400, "malformed")),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", (431, "too_large")),
        (b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", (431, "too_large")),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n", (400, "malformed")),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", (400, "malformed")),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", (400, "malformed")),
        (HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (400, "malformed")),
        (HEAD + b"Connection: close\r\nExpect: magic\r\nContent-Length: 0\r\n\r\n", (417, "malformed")),
        (b"PATCH /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", (405, "method_not_allowed")),
        (b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", (404, "not_found")),
        (b"PUT /predict/m HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", (405, "method_not_allowed")),
    ],
)
async def test_invalid_http_requests_get_a_json_error(
    server: Served, request_: bytes, expected: tuple[int, str]
) -> None:
    answer = await server.send(request_)
    assert parsed(answer) == expected
    assert (expected[0] == 405) == (b"allow:" in answer.lower())
    async with ClientSession() as session, session.get(f"{server.http.url}/livez") as live:
        assert live.status == 200


async def test_too_many_concurrent_requests_are_rejected(tmp_path: Path) -> None:
    async with served(tmp_path, Admission(2)) as server, ClientSession() as session:
        gate = server.worker.predictions.gate = asyncio.Event()
        url = f"{server.http.url}/predict/churn"

        async def ask() -> int:
            async with session.post(url, json={"input_data": [1, 2]}) as answer:
                return answer.status

        running = [asyncio.create_task(ask()) for _ in range(2)]
        await until(lambda: len(server.worker.predictions.asked) == 2)
        async with session.post(url, json={"input_data": [1, 2]}) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
            assert (await answer.json())["error"]["code"] == "quota_exceeded"
        async with session.get(f"{server.http.url}/livez") as live:
            assert live.status == 200
        gate.set()
        assert await asyncio.gather(*running) == [200, 200]
        assert await ask() == 200


async def test_draining_rejects_new_requests_and_finishes_running_ones(tmp_path: Path) -> None:
    reasons: list[str] = []
    admission = Admission(10, lambda: reasons[0] if reasons else None)
    async with served(tmp_path, admission) as server, ClientSession() as session:
        gate = server.worker.predictions.gate = asyncio.Event()
        url = f"{server.http.url}/predict/churn"

        async def ask() -> int:
            async with session.post(url, json={"input_data": [1, 2]}) as answer:
                return answer.status

        running = asyncio.create_task(ask())
        await until(lambda: len(server.worker.predictions.asked) == 1)
        reasons.append("stopping: SIGTERM was received")
        async with session.post(url, json={"input_data": [1, 2]}) as answer:
            assert (answer.status, answer.headers["Connection"]) == (503, "close")
            assert (await answer.json())["error"] == {"code": "unavailable", "message": reasons[0]}
        for path in ("/livez", "/status"):
            async with session.get(f"{server.http.url}{path}") as watched:
                assert watched.status == 200
        assert not await admission.wait_idle(0.01)
        gate.set()
        assert await running == 200
        assert await admission.wait_idle(1.0)


async def test_an_unexpected_exception_becomes_internal(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> bytes:
        raise ZeroDivisionError("feature 4711")

    monkeypatch.setattr(server.worker.predictions, "predict", fail)
    answer = await server.send(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(GOOD), GOOD)
    assert parsed(answer) == (500, "internal")
    assert b"4711" not in answer


async def test_a_connection_serves_several_requests(server: Served) -> None:
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    last = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    assert (await server.send(one + one + last)).count(b"HTTP/1.1 200 OK") == 3

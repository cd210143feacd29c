"""Request bodies over real sockets: decompression only after authentication and in steps, and closed connections."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.admission import ADMISSION
from inferd.daemon.http.core.application import AppLimits
from inferd.daemon.http.core.expansion import STEP_BYTES, Expansion
from inferd.daemon.http.core.server import HttpServer
from inferd.daemon.http.core.tokens import TokensFile
from inferd.daemon.http.core.traffic import TRAFFIC
from inferd.daemon.http.user_routes.routes import UserRoutes
from tests.fixtures.http_client import TOKENS, write_tokens
from tests.unit.daemon.http.fake_http_services import FakeWorker

DEADLINE_S = 60.0
CONNECTIONS = 64
EXPANDED_BYTES = 20_000_000
ROUTES = (
    ("POST", "/predict/churn", "application/json"),
    ("PUT", "/models/churn", "application/octet-stream"),
    ("PUT", "/models/churn", "multipart/form-data; boundary=b"),
    ("PUT", "/models/churn/aliases/champion", "application/json"),
    ("POST", "/jobs", "application/json"),
    ("POST", "/jobs?model=churn", "application/x-ndjson"),
    ("POST", "/own/read", "application/json"),
    ("POST", "/own/field", "application/json"),
)


class Server:
    """A fake worker behind a real server, on an event loop in a separate thread."""

    def __init__(self, directory: Path, **limits: Any) -> None:
        access = Access(("default", "other"), TokensFile(write_tokens(directory)))
        self.worker = FakeWorker(directory / "uploads", access=access, limits=AppLimits(**limits), own=own_routes())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.http = HttpServer(self.worker.app, "127.0.0.1", 0)
        self.run(self.http.start())

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    def connect(self, head: bytes, body: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.http.port), DEADLINE_S)
        connection.sendall(head)
        with suppress(ConnectionError):  # the server may respond and close the connection before the whole body is sent
            connection.sendall(body)
        return connection

    def statuses(self) -> Counter[str]:
        """Counts of responses by status."""
        counted: Counter[str] = Counter()
        for (_, _, status), count in self.worker.app[TRAFFIC].responses.items():
            counted[status] += count
        return counted

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def stop(self) -> None:
        self.run(self.http.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def own_routes() -> UserRoutes:
    routes = UserRoutes()

    @routes.post("/own/read")
    async def read(request: web.Request) -> Any:
        return {"read": (await request.read()).decode()}

    @routes.post("/own/field")
    async def field(words: int) -> Any:
        return words

    return routes


@contextmanager
def serving(directory: Path, **limits: Any) -> Iterator[Server]:
    server = Server(directory, **limits)
    try:
        yield server
    finally:
        server.stop()


def head_of(method: str, path: str, content_type: str, length: int, *headers: str, token: str | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {content_type}"]
    lines += [f"Content-Length: {length}", *headers]
    lines += [] if token is None else [f"Authorization: Bearer {token}"]
    return "\r\n".join([*lines, "", ""]).encode()


def status_of(connection: socket.socket) -> int:
    with connection, connection.makefile("rb") as answer:
        return int(answer.readline().split()[1])


@cache
def bomb() -> bytes:
    return gzip.compress(bytes(EXPANDED_BYTES))


class Decompressors:
    """Replaces `zlib`; records the threads that decompress, including those of aiohttp."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: set[str] = set()
        self._original = zlib.decompressobj
        monkeypatch.setattr(zlib, "decompressobj", lambda *arguments, **named: Noted(self, *arguments, **named))

    def begin(self, *arguments: Any, **named: Any) -> Any:
        return self._original(*arguments, **named)

    def note(self) -> None:
        self.threads.add(threading.current_thread().name)


class Noted:
    def __init__(self, decompressors: Decompressors, *arguments: Any, **named: Any) -> None:
        self._decompressors, self._inner = decompressors, decompressors.begin(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name == "decompress":
            self._decompressors.note()
        return getattr(self._inner, name)


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_a_token_no_body_is_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    decompressors, data = Decompressors(monkeypatch), bomb()
    with serving(tmp_path) as server:
        connections = [
            server.connect(head_of(*ROUTES[n % len(ROUTES)], len(data), "Content-Encoding: gzip", token=token), data)
            for n in range(CONNECTIONS)
        ]
        assert {status_of(connection) for connection in connections} == {401}
    assert decompressors.threads == set()


def test_the_event_loop_never_decompresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(bytes(EXPANDED_BYTES))
    head = head_of(*ROUTES[1], len(data), "Content-Encoding: gzip", token=TOKENS["default"])
    decompressors = Decompressors(monkeypatch)
    with serving(tmp_path, upload_bytes_max=2 * EXPANDED_BYTES) as server:
        assert status_of(server.connect(head, data)) == 201
        (_, received) = server.worker.models.files[0]
    assert len(received) == EXPANDED_BYTES
    assert decompressors.threads
    assert {name.rpartition("_")[0] for name in decompressors.threads} == {"inferd-expand"}


@pytest.mark.parametrize("route", ROUTES, ids=[f"{method} {path} {kind}" for method, path, kind in ROUTES])
def test_a_decompression_bomb_is_rejected(small_server: Server, route: tuple[str, str, str]) -> None:
    data = bomb()
    head = head_of(*route, len(data), "Content-Encoding: gzip", token=TOKENS["default"])
    assert status_of(small_server.connect(head, data)) == (415 if "multipart" in route[2] else 413)


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("small"), upload_bytes_max=1_000_000) as made:
        yield made


# ------------------------------------------------------------------------------------------------------- codings


GOOD = b'{"input_data":[1,2]}'


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


def gzipped(data: bytes) -> bytes:
    """Deterministic bytes: pytest-xdist compares the test ids that pytest derives from them."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("headers", "data", "status"),
    [
        (["Content-Encoding: gzip"], gzipped(GOOD), 200),
        (["Content-Encoding: x-gzip"], gzipped(GOOD), 200),
        (["Content-Encoding: GZIP"], gzipped(GOOD), 200),
        (["Content-Encoding: gzip"], gzipped(GOOD[:5]) + gzipped(GOOD[5:]), 200),
        (["Content-Encoding: deflate"], zlib.compress(GOOD), 200),
        (["Content-Encoding: deflate"], raw_deflate(GOOD), 200),
        (["Content-Encoding:"], GOOD, 200),
        (["Content-Encoding: gzip", "Content-Encoding: gzip"], gzipped(gzipped(GOOD)), 415),
        (["Content-Encoding: gzip", "Content-Encoding: identity"], gzipped(GOOD), 415),
        (["Content-Encoding: deflate, gzip"], gzipped(zlib.compress(GOOD)), 415),
        (["Content-Encoding: br"], GOOD, 415),
        (["Content-Encoding: zstd"], GOOD, 415),
        (["Content-Encoding: gzip"], GOOD, 400),
        (["Content-Encoding: gzip"], gzipped(GOOD)[:-3], 400),
        (["Content-Encoding: gzip"], gzipped(GOOD) + b"more", 400),
        (["Content-Encoding: deflate"], zlib.compress(GOOD) + b"more", 400),
        (["Content-Encoding: deflate"], zlib.compress(GOOD)[:-3], 400),
    ],
)
def test_codings(server: Server, headers: list[str], data: bytes, status: int) -> None:
    head = head_of(*ROUTES[0], len(data), *headers, token=TOKENS["default"])
    assert status_of(server.connect(head, data)) == status


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as made:
        yield made


def test_a_user_route_reads_the_decompressed_body(server: Server) -> None:
    data = gzip.compress(GOOD)
    connection = server.connect(
        head_of(*ROUTES[6], len(data), "Content-Encoding: gzip", "Connection: close", token=TOKENS["default"]), data
    )
    with connection, connection.makefile("rb") as answer:
        assert json.loads(answer.read().rpartition(b"\r\n\r\n")[2]) == {"read": GOOD.decode()}


@pytest.mark.parametrize("size", [0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES])
@pytest.mark.parametrize("cut", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)]
)
async def test_decompression_steps_are_bounded_and_complete(
    coding: str, compress: Callable[[bytes], bytes], cut: int, size: int
) -> None:
    data = compress(bytes(size))
    expanding, steps = Expansion(coding), []
    for start in range(0, len(data), cut):
        steps += [step async for step in expanding.expand(data[start : start + cut])]
    expanding.finish()
    assert max(map(len, steps), default=0) <= STEP_BYTES
    assert b"".join(steps) == bytes(size)


# ------------------------------------------------------------------------------------------- clients that hang up


@pytest.mark.parametrize("route", ROUTES, ids=[f"{method} {path} {kind}" for method, path, kind in ROUTES])
@pytest.mark.parametrize("begun", [b"", b'{"input', b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\ntr"])
def test_a_client_that_closes_the_connection_is_not_a_server_error(
    server: Server, route: tuple[str, str, str], begun: bytes
) -> None:
    with capture_logs() as logged:
        before = sum(server.statuses().values())
        connection = server.connect(head_of(*route, 1_000, token=TOKENS["default"]), begun)
        server.wait(lambda: server.worker.app[ADMISSION].running == 1)
        connection.close()
        server.wait(lambda: server.worker.app[ADMISSION].running == 0)
        server.wait(lambda: sum(server.statuses().values()) == before + 1)
    assert server.statuses()["500"] == 0
    assert [entry for entry in logged if entry["log_level"] in ("warning", "error")] == []


def test_closed_connections_are_counted_as_499(server: Server) -> None:
    before = server.statuses()["499"]
    connection = server.connect(head_of(*ROUTES[0], 1_000, token=TOKENS["default"]))
    server.wait(lambda: server.worker.app[ADMISSION].running == 1)
    connection.close()
    server.wait(lambda: server.statuses()["499"] == before + 1)

"""If a Docker engine responds but cannot run Kafka, the tests use the embedded broker, and say so."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import Reaper

from tests.fixtures import broker

Answer = Callable[[str], tuple[int, object]]
NOT_FOUND = (404, {"message": "no such image"})
REFUSED = (500, {"message": "the engine cannot do that"})


def without_registry(path: str) -> tuple[int, object]:
    return REFUSED if "/images/create" in path else NOT_FOUND


def without_network(path: str) -> tuple[int, object]:
    if path.endswith("/start"):
        return REFUSED
    if "/containers/create" in path:
        return 201, {"Id": "0123456789ab", "Warnings": []}
    return 200, {"Id": "0123456789ab", "State": {"Status": "created"}, "Config": {"Image": "x"}, "Image": "x"}


def without_sense(_: str) -> tuple[int, object]:
    return 200, ["no", "engine"]


class Engine(ThreadingHTTPServer):
    """Responds to pings, and to other paths with `answer`."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), EngineHandler)
        self.answer = answer


class EngineHandler(BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("_ping"):
            self._send(200, "OK")
        elif path.endswith("/version"):
            self._send(200, {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10"})
        else:
            self._send(*self.server.answer(path))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    do_DELETE = do_GET  # noqa: N815  (the base class's way to name methods)

    def _send(self, status: int, content: object) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(HTTPStatus(status))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with Engine(request.param) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ryuk_disabled", [True, False])
@pytest.mark.parametrize("engine", [without_registry, without_network, without_sense], indirect=True)
def test_an_engine_that_cannot_run_containers_is_reported_and_skipped(
    engine: Engine, ryuk_disabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", ryuk_disabled)
    monkeypatch.setattr(Reaper, "_instance", None)
    reported: list[str] = []
    with ExitStack() as stack:
        assert broker.docker_answers()
        assert broker.kafka_in_container(stack, reported.append) is None
    assert len(reported) == 1
    assert reported[0].startswith("Docker answers, but runs no Kafka; the tests use an embedded one (")


def test_without_an_engine_there_is_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with ExitStack() as stack:
        assert broker.kafka_in_container(stack, pytest.fail) is None

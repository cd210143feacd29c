"""A server of models in a plain script, with the daemon's routes and errors, and a team's own routes beside them.

In a worker that is told to use a subclass, its routes are added to the worker's own application, and nothing here
listens.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from aiohttp import web

from inferd.daemon.http.core import Access, Admission, AppLimits, TokensFile, create_app, hosts_under, json_response
from inferd.daemon.http.local.jobs import LocalJobs
from inferd.daemon.http.local.models import LocalModels
from inferd.daemon.http.local.predictions import LocalPredictions
from inferd.daemon.http.local.script_server import ScriptServer, check_address
from inferd.daemon.http.routes import Uploads, add_jobs, add_models, add_openapi, add_predictions
from inferd.daemon.http.user_routes import OwnRoutes
from inferd.schemas.errors import ServerError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.serving import BatchPredictor, ModelManager, RealtimePredictor, manager_of

UPLOADS = "~uploads"
"""Below the store; no tenant is named so."""
START_TIMEOUT_S = 30.0
JOB_BYTES_MAX = 256 * 1_048_576
"""Of the rows of one job, which a script has in memory."""
log = structlog.get_logger(__name__)


class ModelServer:
    """Serves the models of a `ModelManager`: `POST /predict/{model_id}`, `/models…`, `/jobs…`, `/health`.

    Override `_setup_routes` to add routes to `app`; the built-in ones are there in any case, and a route of the same
    path and method takes the place of one.
    """

    def __init__(  # noqa: PLR0913  (users name them)
        self,
        model_manager: ModelManager,
        host: str = "127.0.0.1",
        port: int = 8000,
        tenant_id: str | None = None,
        *,
        realtime_predictor: RealtimePredictor | None = None,
        batch_predictor: BatchPredictor | None = None,
        tokens_file: str | Path | None = None,
        insecure_http: bool = False,
        allowed_hosts: Sequence[str] = (),
    ) -> None:
        """`tenant_id` is the manager's by default, `port` 0 a free one. The predictors answer predictions and jobs.

        `tokens_file` has the bearer tokens that are asked for (as `INFERD_HTTP_TOKENS_FILE`); `insecure_http` allows a
        host that other machines reach without any. `allowed_hosts` are names under which a server without tokens may
        be asked, beside those of loopback. Raises `ServerError` where a route cannot be bound.
        """
        self.model_manager = manager_of(model_manager, tenant_id)
        self.tenant_id: str = self.model_manager.tenant_id
        self.host, self.port = host, port
        self._tokens = None if tokens_file is None else TokensFile(Path(tokens_file))
        self._guarded = self._tokens is not None or insecure_http
        self._hosts = hosts_under(host, allowed_hosts)
        self.realtime_predictor = realtime_predictor or RealtimePredictor(self.model_manager)
        self.batch_predictor = batch_predictor or BatchPredictor(self.model_manager)
        self.app = OwnRoutes()
        self._state = threading.Lock()
        self._running: _Running | None = None
        self._setup_routes()

    def __enter__(self) -> Self:
        self.start_in_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_server()

    def _setup_routes(self) -> None:
        """Adds a team's own routes to `app`: override it."""

    @property
    def url(self) -> str:
        """Where the server listens; `ServerError` while it does not."""
        running = self._running
        if running is None or running.url is None:
            raise ServerError("the server has not started: call start_server() or start_in_thread()")
        return running.url

    def start_server(self) -> None:
        """Serves until Ctrl-C, SIGTERM or `stop_server`.

        `ServerError` for a port that is taken, a host that is not this machine's or that nothing guards, a file of
        tokens that cannot be used, and where it serves already.
        """
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            raise ServerError("start_server() blocks, and an event loop runs here: call start_in_thread() instead")
        running = self._begin()
        try:
            asyncio.run(self._serve(running, signals=True))
        finally:
            self._running = None

    def start_in_thread(self) -> str:
        """Serves in a thread of its own until `stop_server`, or the program's end: the URL once it listens."""
        running = self._begin()
        running.thread = threading.Thread(target=self._run_in_thread, args=(running,), name="inferd-http", daemon=True)
        running.thread.start()
        if not running.settled.wait(START_TIMEOUT_S):
            raise ServerError(f"the server did not start within {START_TIMEOUT_S:g} s")
        if running.error is not None:
            raise running.error
        assert running.url is not None
        return running.url

    def stop_server(self) -> None:
        """Ends the server once it has answered what it took; nothing where none runs. Any thread may call it."""
        running = self._running
        if running is None:
            return
        running.ask_to_stop()
        if running.thread is not None and running.thread is not threading.current_thread():
            running.thread.join()

    def _begin(self) -> _Running:
        check_address(self.host, self.port, guarded=self._guarded)
        with self._state:
            if self._running is not None:
                raise ServerError(f"the server has started already, on {self._running.url or self.host}")
            self._running = _Running()
            return self._running

    def _run_in_thread(self, running: _Running) -> None:
        try:
            asyncio.run(self._serve(running, signals=False))
        except BaseException as error:  # noqa: BLE001  # it is raised where the thread was started
            running.error = error
        finally:
            self._running = None
            running.settled.set()

    async def _serve(self, running: _Running, *, signals: bool) -> None:
        predictions = LocalPredictions(self.realtime_predictor)
        server = ScriptServer(self._make_app(predictions), self.host, self.port)
        await server.start()
        running.listen(server.url)
        if signals:
            _stop_on_signals(running)
        log.info("server_listening", url=server.url, tenant=self.tenant_id)
        try:
            await running.stop_asked()
        finally:
            await server.stop()
            predictions.close()

    def _make_app(self, predictions: LocalPredictions) -> web.Application:
        app = create_app(
            access=Access((self.tenant_id,), self._tokens, self._hosts), admission=Admission(), limits=AppLimits()
        )
        self.app.add_to(app)
        add_predictions(app, predictions)
        add_models(app, LocalModels(self.model_manager), Uploads(self.model_manager.store / UPLOADS))
        add_jobs(app, LocalJobs(self.batch_predictor), limits=replace(DEFAULT_LIMITS, jobs_bytes_max=JOB_BYTES_MAX))
        app.add_routes([web.get(path, _healthy) for path in ("/health", "/livez", "/readyz")])
        add_openapi(app)
        return app


class _Running:
    """A server between its start and its end."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None
        self.settled = threading.Event()
        """It listens, or has failed to."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._asked = False

    def listen(self, url: str) -> None:
        """Notes that it listens, on the event loop that this is called from."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.url = url
        if self._asked:
            self._stop.set()
        self.settled.set()

    def ask_to_stop(self) -> None:
        """From any thread, and from signal handlers."""
        self._asked = True
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stop.set)

    async def stop_asked(self) -> None:
        assert self._stop is not None
        await self._stop.wait()


async def _healthy(_request: web.Request) -> web.Response:
    return json_response({"status": "healthy"})


def _stop_on_signals(running: _Running) -> None:
    """Where this is the main thread, which alone gets signals."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, running.ask_to_stop)

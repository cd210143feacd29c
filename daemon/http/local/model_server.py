"""`ModelServer`: serves models in a script, with the routes and errors of a worker, and with user routes.

A worker that is configured with a subclass (`INFERD_SERVER`) adds its user routes to its own application; the
server itself is not started there.
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

from inferd.daemon.http.core import (
    Access,
    Admission,
    AppLimits,
    TokensFile,
    allowed_hosts_of,
    create_app,
    json_response,
)
from inferd.daemon.http.local.jobs import LocalJobs
from inferd.daemon.http.local.models import LocalModels
from inferd.daemon.http.local.predictions import LocalPredictions
from inferd.daemon.http.local.script_server import ScriptServer, check_address
from inferd.daemon.http.routes import (
    ROLES_OF_OPERATIONS,
    Uploads,
    add_jobs,
    add_models,
    add_open_inference,
    add_openapi,
    add_predictions,
    add_whoami,
)
from inferd.daemon.http.user_routes import UserRoutes
from inferd.schemas.errors import ServerError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.serving import BatchPredictor, ModelManager, RealtimePredictor, manager_of

UPLOADS = "~uploads"
"""Directory in the model store; `~` cannot occur in the name of a tenant."""
START_TIMEOUT_S = 30.0
JOB_BYTES_MAX = 256 * 1_048_576
"""Limit of the rows of one job, which are held in memory."""
log = structlog.get_logger(__name__)


class ModelServer:
    """Serves the models of a `ModelManager`: `POST /predict/{model_id}`, `/models…`, `/jobs…`, `/health`.

    Override `_setup_routes` to add routes to `app`. They are added to the built-in routes; a route with the path and
    method of a built-in one replaces it.
    """

    def __init__(  # noqa: PLR0913  (users' keyword arguments)
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
        """`tenant_id` defaults to the manager's; `port` 0 picks a free one. The predictors serve predictions and jobs.

        `tokens_file` has the accepted bearer tokens (as `INFERD_HTTP_TOKENS_FILE`); `insecure_http` allows a host that
        other machines can reach without tokens. `allowed_hosts`: `Host` headers that a server without tokens accepts
        besides those of loopback. Raises `ServerError` if the parameters of a user route cannot be bound.
        """
        self.model_manager = manager_of(model_manager, tenant_id)
        self.tenant_id: str = self.model_manager.tenant_id
        self.host, self.port = host, port
        self._tokens = None if tokens_file is None else TokensFile(Path(tokens_file))
        self._protected = self._tokens is not None or insecure_http
        self._hosts = allowed_hosts_of(host, allowed_hosts)
        self.realtime_predictor = realtime_predictor or RealtimePredictor(self.model_manager)
        self.batch_predictor = batch_predictor or BatchPredictor(self.model_manager)
        self.app = UserRoutes(self.tenant_id)
        self._state = threading.Lock()
        self._running: _RunningServer | None = None
        self._setup_routes()

    def __enter__(self) -> Self:
        self.start_in_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_server()

    def _setup_routes(self) -> None:
        """Override to add user routes to `app`."""

    @property
    def url(self) -> str:
        """The URL of the running server; raises `ServerError` if it is not running."""
        running = self._running
        if running is None or running.url is None:
            raise ServerError("the server has not started: call start_server() or start_in_thread()")
        return running.url

    def start_server(self) -> None:
        """Serves until Ctrl-C, SIGTERM or `stop_server`.

        Raises `ServerError` if the host or port cannot be used, if the host can be reached from other machines without
        tokens, and if the server is already running.
        """
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            raise ServerError("start_server() would block the running event loop: call start_in_thread() instead")
        running = self._begin()
        try:
            asyncio.run(self._serve(running, signals=True))
        finally:
            self._running = None

    def start_in_thread(self) -> str:
        """Serves in a thread until `stop_server` or the end of the program; returns the URL once it listens."""
        running = self._begin()
        running.thread = threading.Thread(target=self._run_in_thread, args=(running,), name="inferd-http", daemon=True)
        running.thread.start()
        if not running.started.wait(START_TIMEOUT_S):
            raise ServerError(f"the server did not start within {START_TIMEOUT_S:g} s")
        if running.error is not None:
            raise running.error
        assert running.url is not None
        return running.url

    def stop_server(self) -> None:
        """Stops the server after it has answered the accepted requests; does nothing if it is not running.

        Thread-safe.
        """
        running = self._running
        if running is None:
            return
        running.request_stop()
        if running.thread is not None and running.thread is not threading.current_thread():
            running.thread.join()

    def _begin(self) -> _RunningServer:
        check_address(self.host, self.port, protected=self._protected)
        with self._state:
            if self._running is not None:
                raise ServerError(f"the server is already running on {self._running.url or self.host}")
            self._running = _RunningServer()
            return self._running

    def _run_in_thread(self, running: _RunningServer) -> None:
        try:
            asyncio.run(self._serve(running, signals=False))
        except BaseException as error:  # noqa: BLE001  # start_in_thread raises it
            running.error = error
        finally:
            self._running = None
            running.started.set()

    async def _serve(self, running: _RunningServer, *, signals: bool) -> None:
        predictions = LocalPredictions(self.realtime_predictor)
        server = ScriptServer(self._make_app(predictions), self.host, self.port)
        await server.start()
        running.listen(server.url)
        if signals:
            _stop_on_signals(running)
        log.info("server_listening", url=server.url, tenant=self.tenant_id)
        try:
            await running.wait_for_stop()
        finally:
            await server.stop()
            predictions.close()

    def _make_app(self, predictions: LocalPredictions) -> web.Application:
        app = create_app(
            access=Access((self.tenant_id,), self._tokens, self._hosts),
            admission=Admission(),
            limits=AppLimits(),
            roles=ROLES_OF_OPERATIONS,
        )
        self.app.add_to(app)
        add_predictions(app, predictions)
        add_models(app, LocalModels(self.model_manager), Uploads(self.model_manager.store / UPLOADS))
        add_jobs(app, LocalJobs(self.batch_predictor), limits=replace(DEFAULT_LIMITS, jobs_bytes_max=JOB_BYTES_MAX))
        app.add_routes([web.get(path, _healthy) for path in ("/health", "/livez", "/readyz")])
        add_open_inference(app, _healthy, DEFAULT_LIMITS)
        add_whoami(app)
        add_openapi(app)
        return app


class _RunningServer:
    """A server from its start to its end."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None
        self.started = threading.Event()
        """Set once it listens or has failed to start."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stop_requested = False

    def listen(self, url: str) -> None:
        """Records the URL; called on the server's event loop once it listens."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.url = url
        if self._stop_requested:
            self._stop.set()
        self.started.set()

    def request_stop(self) -> None:
        """Thread-safe; may be called from signal handlers."""
        self._stop_requested = True
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stop.set)

    async def wait_for_stop(self) -> None:
        assert self._stop is not None
        await self._stop.wait()


async def _healthy(_request: web.Request) -> web.Response:
    return json_response({"status": "healthy"})


def _stop_on_signals(running: _RunningServer) -> None:
    """Stops on SIGINT and SIGTERM, if this is the main thread: no other thread receives signals."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, running.request_stop)

"""The worker process, from start to exit code.

Start: logs, HTTP (which reports what the worker waits for), the broker, the streams. Stop, on SIGTERM or SIGINT: HTTP
refuses new requests, the streams finish, commit and leave the group within a deadline, then HTTP closes. Exit codes:
0 graceful stop, 1 failed, 2 invalid settings or topics, 70 the deadline passed, 71 no progress, 72 the event loop was
blocked, 130 and 143 a second signal.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from inferd.daemon import cluster
from inferd.daemon.custom_classes import load_custom
from inferd.daemon.http.core import ADMISSION
from inferd.daemon.http.routes import Predictions
from inferd.daemon.http.worker import (
    Backends,
    ClusterModels,
    ClusterMonitoring,
    ClusterOperating,
    ClusterRollouts,
    ClusterRoutes,
    JobStreams,
    StreamsJobs,
    StreamsPredictions,
    http_server_of,
    worker_app,
)
from inferd.daemon.settings import Settings, SettingsError, worker_warnings
from inferd.daemon.supervision import (
    EXIT_DRAIN_TIMEOUT,
    EXIT_ZOMBIE,
    StopSignals,
    Watchdog,
    end_within,
    leave,
)
from inferd.daemon.telemetry import StatusBoard, configure_logs
from inferd.daemon.version import inferd_version
from inferd.schemas.connection import BrokerUnreachableError, KafkaConnection
from inferd.schemas.errors import ServerError
from inferd.schemas.routes import Route
from inferd.streams.kafka import TopicsError
from inferd.streams.settings import StreamSettings
from inferd.streams.telemetry import StreamsSnapshot

if TYPE_CHECKING:
    from inferd.streams.serving import UserCode

EXIT_STOPPED, EXIT_FAILED, EXIT_SETTINGS = 0, 1, 2
PROBE_TIMEOUT_S = 5.0
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.2, 5.0
ABANDON_TIMEOUT_S = 2.0
STOP_GRACE_S = 0.5
CLOSE_TIMEOUT_S = 3.0
TICK_S = 1.0
T = TypeVar("T")
log = structlog.get_logger(__name__)


class Streams(Predictions, JobStreams, Protocol):
    """The streams; implemented by `inferd.streams.app.Streams`."""

    async def start(self) -> None:
        """Starts the streams; returns once they run. Raises `ServerError`."""

    async def stop(self, timeout_s: float) -> bool:
        """Finishes, commits and leaves the group; False if the deadline passed."""

    def snapshot(self) -> StreamsSnapshot:
        """The current state, also before the start."""

    def routes_of(self, tenant: str) -> Collection[Route]:
        """The routes of a tenant."""


class MakeStreams(Protocol):
    """Constructs the streams. `on_fatal(reason, exit_code)` ends the process; `custom` holds the user's classes."""

    def __call__(
        self, settings: StreamSettings, on_fatal: Callable[[str, int], None], custom: UserCode | None, /
    ) -> Streams: ...


def load_streams() -> MakeStreams:
    """The constructor of the real streams; the import takes a second or two."""
    from inferd.streams.app import Streams as KafkaStreams

    return KafkaStreams


def _nothing(_url: str) -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Replaceable parts and callbacks of a worker, for tests and `inferd up`."""

    load_streams: Callable[[], MakeStreams] = load_streams
    on_listening: Callable[[str], None] = _nothing
    """Receives the URL of the HTTP server."""
    on_started: Callable[[str], None] = _nothing
    """Receives the same URL once the streams run. Models may still be loading."""
    leave: Callable[[int, str], object] = leave


def run_worker(settings: Settings, parts: Parts | None = None) -> int:
    """Runs a worker until it is stopped; its exit code.

    Raises `ServerError` if this machine prevents the start: the port is in use, or uvloop is missing.
    """
    log_counts = configure_logs(settings.log_format, settings.log_level, settings.worker_id)
    faulthandler.enable()
    code = EXIT_FAILED
    runner = asyncio.Runner(loop_factory=loop_factory(settings))
    with StopSignals() as signals:
        try:
            code = runner.run(WorkerProcess(settings, signals, parts or Parts(), log_counts).run())
            log.info("worker_stopped", exit_code=code)
        finally:
            timer = end_within(CLOSE_TIMEOUT_S, code)
            runner.close()
            timer.cancel()
    return code


def loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop factory for `INFERD_UVLOOP`; raises `SettingsError` if uvloop is required and missing."""
    if settings.uvloop == "off":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        if settings.uvloop == "on":
            raise SettingsError(["INFERD_UVLOOP=on is not allowed: the package uvloop is not installed"]) from None
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class WorkerProcess:
    """One worker on the running event loop."""

    def __init__(
        self, settings: Settings, signals: StopSignals, parts: Parts, log_counts: Callable[[], None] = lambda: None
    ) -> None:
        self.board = StatusBoard(settings)
        self._predictions, self._jobs = StreamsPredictions(), StreamsJobs()
        own = load_custom(settings)
        self._custom = own.custom
        self._models = ClusterModels(settings, self.board.snapshot)
        routes = ClusterRoutes(settings, self._models, self.board.snapshot)
        backends = Backends(
            self._predictions, self._models, routes, ClusterRollouts(self._models),
            ClusterMonitoring(self._models, settings.group), ClusterOperating(self._models), self._jobs,
        )  # fmt: skip
        app = worker_app(settings, self.board, backends, self._own_url, own.routes, self._routes_of)
        self._admission = app[ADMISSION]
        self.http = http_server_of(app, settings)
        self._settings, self._signals = settings, signals
        self._parts, self._log_counts = parts, log_counts
        self._watchdog = Watchdog(settings.session_timeout_s, self._leave_as_zombie, self._note_lag)
        self._streams: Streams | None = None
        self._was_ready, self._ready_at_s = False, 0.0

    def _routes_of(self, tenant: str) -> Collection[Route]:
        """The routes of a tenant; none while there are no streams."""
        return [] if self._streams is None else self._streams.routes_of(tenant)

    def _own_url(self) -> str:
        """The URL that this worker advertises to other workers."""
        return self._settings.http_advertised_url or self.http.tls_url or self.http.url

    async def run(self) -> int:
        """Runs until a stop signal, or until the streams fail to start; the exit code."""
        await self.http.start()
        tls = {"tls_url": self.http.tls_url} if self.http.tls_url else {}
        log.info("worker_listening", url=self.http.url, **tls, version=inferd_version())
        for warning in worker_warnings(self._settings):
            log.warning("settings_warning", detail=warning)
        self._parts.on_listening(self.http.url)
        ticking = asyncio.create_task(self._tick())
        self._watchdog.start()
        try:
            return await self._until_stopped()
        finally:
            ticking.cancel()
            self._watchdog.stop()
            self.board.enter("stopped", "stopped")
            await self.http.stop()
            await self._models.close()

    async def _until_stopped(self) -> int:
        starting = asyncio.create_task(self._start())
        asked = asyncio.create_task(self._signals.wait())
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and (code := _failure(starting)) is not None:
            asked.cancel()
            await self._abandon()
            return code
        return await self._drain(starting, await asked)

    async def _start(self) -> None:
        self.board.enter("waiting", "loading the streams")
        make_streams = await asyncio.to_thread(self._parts.load_streams)
        for pause_s in backoff():
            await self._wait_for_broker()
            self._streams = self._make(make_streams)
            self._follow(self._streams)
            self.board.enter("starting", "starting the streams")
            self._watchdog.arm()
            try:
                await self._streams.start()
                break
            except Exception as error:
                if not is_connection_error(error):
                    raise
                log.warning("streams_start_failed", reason=str(error), again_in_s=pause_s)
            await self._abandon()
            await asyncio.sleep(pause_s)
        settle_memory()
        self.board.enter("running", "")
        self._note_readiness()
        self._parts.on_started(self.http.url)

    def _make(self, make_streams: MakeStreams) -> Streams:
        try:
            settings = self._settings.streams(self._own_url())
            return make_streams(settings, self._on_fatal, self._custom)
        except ServerError as error:
            # The broker is not involved yet: the settings are invalid.
            raise SettingsError([error.message]) from error

    async def _wait_for_broker(self) -> None:
        connection = self._settings.connection()
        started = asyncio.get_running_loop().time()
        self.board.enter("waiting", f"waiting for the broker {connection.bootstrap_servers}")
        for pause_s in backoff():
            reason = await _why_unreachable(connection)
            if reason is None:
                break
            self.board.enter("waiting", f"waiting for the broker: {reason}")
            log.warning("waiting_for_broker", reason=reason)
            await asyncio.sleep(pause_s)
        waited_s = asyncio.get_running_loop().time() - started
        log.info("broker_reached", broker=connection.bootstrap_servers, waited_s=round(waited_s, 1))

    async def _drain(self, starting: asyncio.Task[None], signal_name: str) -> int:
        timeout_s = self._settings.drain_timeout_s
        deadline = asyncio.get_running_loop().time() + timeout_s
        self.board.enter("draining", f"stopping: {signal_name} was received")
        log.info("worker_draining", signal=signal_name, timeout_s=timeout_s)
        starting.cancel()
        await asyncio.wait({starting}, timeout=timeout_s)
        left_s = max(deadline - asyncio.get_running_loop().time(), 0.0)
        try:
            # The streams finish all requests that they have taken, including those over HTTP.
            stopped, _ = await asyncio.gather(self._stop_streams(left_s), self._admission.wait_idle(left_s))
            if stopped:
                return EXIT_STOPPED
        except Exception:  # the process exits now: log the error
            log.exception("streams_stop_failed")
            return EXIT_FAILED
        log.warning("stop_hangs", waiting=waiting_tasks())
        self._parts.leave(EXIT_DRAIN_TIMEOUT, f"the stop took longer than INFERD_DRAIN_TIMEOUT_S={timeout_s:g}")
        return EXIT_DRAIN_TIMEOUT

    async def _stop_streams(self, timeout_s: float) -> bool:
        """Whether the streams, if any, stopped within `timeout_s`; waits at most `STOP_GRACE_S` longer."""
        if self._streams is None:
            return True
        stopping = asyncio.create_task(self._streams.stop(timeout_s))
        done, _ = await asyncio.wait({stopping}, timeout=timeout_s + STOP_GRACE_S)
        return bool(done) and stopping.result()

    async def _abandon(self) -> None:
        """Stops streams whose start failed."""
        try:
            await self._stop_streams(ABANDON_TIMEOUT_S)
        except Exception:  # they never ran, so nothing is lost
            log.exception("streams_stop_failed")
        self._streams = None
        self._follow(None)

    def _follow(self, streams: Streams | None) -> None:
        self.board.attach(streams)
        self._predictions.attach(streams)
        self._jobs.attach(streams)

    async def _tick(self) -> None:
        while True:
            try:
                self.board.sample()
                self._log_counts()
                self._note_readiness()
            except Exception:  # telemetry must not end the worker
                log.exception("tick_failed")
            await asyncio.sleep(TICK_S)

    def _note_readiness(self) -> None:
        reasons = self.board.unready(self.board.snapshot())
        if not reasons and not self._was_ready:
            log.info("worker_ready", uptime_s=round(self.board.uptime_s, 1))
            self._was_ready, self._ready_at_s = True, self.board.uptime_s
        elif reasons and self._was_ready and self._signals.name is None:
            log.warning("worker_unready", reasons=reasons, after_s=round(self.board.uptime_s - self._ready_at_s, 1))
            self._was_ready = False

    def _note_lag(self, seconds: float) -> None:
        self.board.event_loop_lag_s = seconds

    def _on_fatal(self, reason: str, exit_code: int) -> None:
        self._parts.leave(exit_code, reason)

    def _leave_as_zombie(self, blocked_s: float) -> None:
        timeout_s = self._settings.session_timeout_s
        reason = f"the event loop was blocked for {blocked_s:.1f} s, longer than INFERD_SESSION_TIMEOUT_S={timeout_s:g}"
        self._parts.leave(EXIT_ZOMBIE, reason)


def backoff() -> Iterator[float]:
    """Endless pauses in seconds, doubling from `BACKOFF_S_MIN` to `BACKOFF_S_MAX`."""
    return (min(BACKOFF_S_MIN * 2**tries, BACKOFF_S_MAX) for tries in itertools.count())


def is_connection_error(error: BaseException | None) -> bool:
    """Whether `error` or one of its causes means that a broker does not answer, or not yet as it should."""
    from aiokafka.errors import KafkaError, KafkaTimeoutError

    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | KafkaTimeoutError):
            return True
        if isinstance(error, KafkaError) and error.retriable:
            return True
        error = error.__cause__
    return False


def settle_memory() -> None:
    """Moves the objects of the start to the garbage collector's permanent generation: they are never freed."""
    gc.collect()
    gc.freeze()


def waiting_tasks() -> list[str]:
    """One line per task of the event loop: its coroutine, and the line that it waits at."""
    lines = []
    for task in asyncio.all_tasks():
        frames = task.get_stack(limit=1)
        place = f"{frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else "?"
        lines.append(f"{getattr(task.get_coro(), '__qualname__', '?')} at {place}")
    return sorted(lines)


def _failure(starting: asyncio.Task[None]) -> int | None:
    """Exit code of a failed start; None if it succeeded."""
    error = starting.exception()
    if error is None:
        return None
    if isinstance(error, ServerError):
        log.error("worker_failed", reason=error.message)
        lasting = isinstance(error, SettingsError) or (isinstance(error, TopicsError) and error.lasting)
        return EXIT_SETTINGS if lasting else EXIT_FAILED
    log.error("worker_failed", exc_info=error)
    return EXIT_FAILED


async def _why_unreachable(connection: KafkaConnection) -> str | None:
    try:
        await cluster.reach(connection, PROBE_TIMEOUT_S)
    except BrokerUnreachableError as error:
        return error.message
    return None

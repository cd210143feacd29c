"""A server in Java as a child process: what the embedded broker and the embedded schema registry share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from inferd.daemon.broker.errors import BrokerError, BrokerStartError
from inferd.daemon.broker.jvm import WatchedProcess
from inferd.daemon.broker.log_excerpt import likely_cause, log_tail_of

logger = logging.getLogger(__name__)


class EmbeddedServer:
    """Stop, kill and wait for one server; also a context manager. Not thread-safe."""

    what: ClassVar[str]
    """Its name in messages."""
    poll_s: ClassVar[float]
    """The interval of questions whether it answers."""

    def __init__(self, start_timeout_s: float, stop_timeout_s: float) -> None:
        self._start_timeout_s, self._stop_timeout_s = start_timeout_s, stop_timeout_s
        self._process: WatchedProcess | None = None

    @property
    def log_path(self) -> Path:
        """The log file of the server."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id; None if it is not running."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start the server and return once it answers. Raises BrokerError."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the server: SIGTERM, then SIGKILL after the timeout."""
        if self._process is not None and self.running:
            self._terminate(self._process, self._stop_timeout_s)
        self._reset()

    def kill(self) -> None:
        """Kill the server (SIGKILL), as a crash does. What it has stored stays."""
        if self._process is not None:
            self._process.kill()
        self._reset()

    def wait(self, timeout_s: float) -> int | None:
        """Exit code if the server ends within `timeout_s`, else None. Raises BrokerError if it was never started."""
        if self._process is None:
            raise BrokerError(f"{self.what} was not started: call start() first")
        return self._process.wait(timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _terminate(self, process: WatchedProcess, timeout_s: float) -> bool:
        """Sends SIGTERM. Returns whether the process ended before it had to be killed."""
        process.terminate()
        if process.wait(timeout_s) is not None:
            return True
        logger.warning("%s did not stop within %.0f s, killing it", self.what, timeout_s)
        process.kill()
        return False

    def _reset(self) -> None:
        self._process = None

    def _wait_until(
        self, answers: Callable[[], bool], process: WatchedProcess, failed: Callable[[int | None], BrokerError]
    ) -> None:
        """Returns once the server answers. If it ends before, or does not answer in time, it is killed, and what
        `failed` makes of its exit code (None: none) is raised."""
        deadline = time.monotonic() + self._start_timeout_s
        while not answers():
            code = process.poll()
            if code is not None or time.monotonic() >= deadline:
                process.kill()
                raise failed(code)
            time.sleep(self.poll_s)

    def _start_failed(self, code: int | None, output: str) -> BrokerStartError:
        if code is None:
            failure = f"did not answer within {self._start_timeout_s:g} s"
        else:
            failure = f"ended with exit code {code} while it was starting"
        return BrokerStartError(
            f"{self.what} {failure}: {likely_cause(output)}; its log is {self.log_path}", log_tail_of(output), code
        )

"""Runs a worker as a separate process, as users do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inferd.schemas.errors import ServerError

COMMAND = (sys.executable, "-c", "from inferd.daemon.cli import main; main()", "worker", "--output", "json")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 5.0
POLL_S = 0.1
ERROR_LEVELS = ('"level":"error"', '"level":"critical"')


class WorkerProcess:
    """`inferd worker` with these settings; a context manager that stops it gracefully."""

    def __init__(self, settings: Mapping[str, str], log_path: Path) -> None:
        self.url = ""
        self.exit_code: int | None = None
        self._settings = settings
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait_until_running()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def status(self) -> dict[str, Any]:
        """The worker's `/status`."""
        with urllib.request.urlopen(f"{self.url}/status", timeout=5) as response:  # noqa: S310  (loopback, http)
            status: dict[str, Any] = json.load(response)
        return status

    def settled_status(self) -> dict[str, Any]:
        """`/status` once all requests are processed and committed, or after a timeout."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while (status := self.status())["lag"] and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return status

    def check(self) -> None:
        """Raises `ServerError`, with the last error of its log, if it has exited."""
        if self._process is not None and self._process.poll() is not None:
            raise self._failed(f"exited unexpectedly with code {self._process.returncode}")

    def stop(self) -> int | None:
        """Sends SIGTERM, and SIGKILL after a timeout; returns the exit code."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.exit_code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self.exit_code

    def _start(self) -> None:
        with self._log_path.open("wb") as log:
            # In its own session it does not receive Ctrl-C: the demo stops it gracefully.
            self._process = subprocess.Popen(
                COMMAND,
                env={**os.environ, **self._settings},
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT_S, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        if not line:
            raise self._failed("exited before its HTTP server started")
        self.url = json.loads(line)["url"]

    def _wait_until_running(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_running():
            if self._process is None or self._process.poll() is not None:
                raise self._failed("exited while starting")
            if time.monotonic() > deadline:
                raise self._failed(f"did not start within {START_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)

    def _is_running(self) -> bool:
        try:
            return bool(self.status()["phase"] == "running")
        except (OSError, ValueError, KeyError):
            return False

    def _failed(self, what: str) -> ServerError:
        lines = self._log_path.read_text(errors="replace").splitlines()
        errors = [line for line in lines if any(level in line for level in ERROR_LEVELS)]
        return ServerError(f"the worker {what}. Its log: {(errors or lines or ['(empty)'])[-1]}")

"""A worker as a process of its own, as users run it."""

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
GRAVE = ('"level":"error"', '"level":"critical"')


class WorkerProcess:
    """`inferd worker` with these settings; a context manager that stops it in order."""

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
        """What `/status` says."""
        with urllib.request.urlopen(f"{self.url}/status", timeout=5) as answer:  # noqa: S310  (loopback, http)
            status: dict[str, Any] = json.load(answer)
        return status

    def settled_status(self) -> dict[str, Any]:
        """`/status` once everything is answered and committed; as it is after some seconds where that does not come."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while (status := self.status())["lag"] and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return status

    def check(self) -> None:
        """`ServerError` with the end of its log where it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise self._failed(f"ended by itself with exit code {self._process.returncode}")

    def stop(self) -> int | None:
        """SIGTERM, and SIGKILL where it does not end in time; its exit code."""
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
            # A session of its own: Ctrl-C goes to the demo alone, which then stops everything in order.
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
            raise self._failed("ended before it listened")
        self.url = json.loads(line)["url"]

    def _wait_until_running(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_running():
            if self._process is None or self._process.poll() is not None:
                raise self._failed("ended while it was starting")
            if time.monotonic() > deadline:
                raise self._failed(f"did not run within {START_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)

    def _is_running(self) -> bool:
        try:
            return bool(self.status()["phase"] == "running")
        except (OSError, ValueError, KeyError):
            return False

    def _failed(self, what: str) -> ServerError:
        lines = self._log_path.read_text(errors="replace").splitlines()
        grave = [line for line in lines if any(level in line for level in GRAVE)]
        return ServerError(f"the worker {what}. Its log says: {(grave or lines or ['nothing'])[-1]}")

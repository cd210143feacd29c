"""The process of a peer: started with a log file, sampled for CPU time, stopped gracefully."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from bench.errors import BenchError
from bench.measures import CpuSample

SAMPLE_INTERVAL_S = 0.05
STOP_TIMEOUT_S = 20.0
LOG_TAIL_CHARS = 3_000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class PeerProcess:
    """A running peer."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log

    def check_alive(self) -> None:
        """Raises BenchError with the end of the log if the process has exited."""
        if (code := self._process.poll()) is not None:
            raise BenchError(f"{self.name} exited with code {code}; the end of {self._log}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_TAIL_CHARS:]

    @property
    def exit_code(self) -> int | None:
        """None while it runs; the negative number of the signal that killed it."""
        return self._process.poll()

    def stop(self) -> int:
        """Sends SIGTERM, and SIGKILL after a timeout; returns the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(STOP_TIMEOUT_S)


@contextmanager
def running(name: str, command: Sequence[str], environment: Mapping[str, str], work_dir: Path) -> Iterator[PeerProcess]:
    """The process of `command`, stopped at the end of the context."""
    work_dir.mkdir(parents=True, exist_ok=True)
    log = work_dir / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    peer = PeerProcess(name, process, log)
    try:
        yield peer
    finally:
        peer.stop()


class CpuSampler:
    """Samples the CPU time of a process and its running children within the context."""

    def __init__(self, pid: int) -> None:
        self._pids = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        self._samples: list[CpuSample] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_done, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    @property
    def samples(self) -> list[CpuSample]:
        return list(self._samples)

    def _sample_until_done(self) -> None:
        while True:
            self._samples.append(CpuSample(time.time(), sum(map(cpu_s, self._pids))))
            if self._done.wait(SAMPLE_INTERVAL_S):
                return


def cpu_s(pid: int) -> float:
    """User and system seconds of a process; 0 if it has exited."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # The name in parentheses may contain spaces; the 12th and 13th fields after it are utime and stime.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def peak_memory_mb(pid: int) -> float:
    """Peak resident memory of a process in MB; 0 if it has exited."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1_000 for line in lines if line.startswith("VmHWM")), 0.0)

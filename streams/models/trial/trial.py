"""Tests models in a disposable process, since a bad model can make its library abort, segfault, hang or exhaust memory.

`try_models` runs `inferd.streams.models.trial.process` for many models, so that good ones share one start. If the
process ends early, the current model has failed, and another process continues with the rest. It blocks: call it in a
thread.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO

import msgspec

from inferd.schemas.errors import ServerError
from inferd.schemas.models import Manifest
from inferd.streams.inference import DEFAULT_TRIAL_LIMITS, TrialLimits, kernels_in_use
from inferd.streams.models.trial.process import (
    LOADS,
    UNFINISHED_STATUS,
    CaseFile,
    Plan,
    Verdict,
)

_CHILD = ("-m", "inferd.streams.models.trial.process")
_LINE_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class TrialCase:
    """A model (bytes or a file), and the manifest it must match, if any."""

    model: bytes | Path
    manifest: Manifest | None = None


def try_models(
    cases: Sequence[TrialCase],
    limits: TrialLimits = DEFAULT_TRIAL_LIMITS,
    *,
    measure: bool = False,
    child: Sequence[str] = _CHILD,
) -> list[Verdict]:
    """Tests the cases; returns one verdict per case, in order. `child`: Python arguments of another trial process.

    `measure`: also measure the memory that each model takes, which needs manifests.

    Raises `ServerError` if the process cannot start, which is not the fault of a model.
    """
    verdicts: list[Verdict] = []
    with ExitStack() as stack:
        files = [_case_file(case, stack) for case in cases]
        while len(verdicts) < len(files):
            verdicts += _try_some(files[len(verdicts) :], limits, child, measure=measure)
    return verdicts


def _case_file(case: TrialCase, stack: ExitStack) -> _Case:
    """The model as a file for the trial process; bytes are written to an unnamed file, which cannot be left behind."""
    if isinstance(case.model, Path):
        return _Case(CaseFile(str(case.model.resolve()), case.manifest))
    file = stack.enter_context(_nameless_file(case.model))
    return _Case(CaseFile(_path_of(file), case.manifest), file)


@dataclass(frozen=True, slots=True)
class _Case:
    """A case, and the open unnamed file of its model, if any."""

    file: CaseFile
    content: IO[bytes] | None = None


def _nameless_file(content: bytes) -> IO[bytes]:
    file = TemporaryFile(prefix="inferd-trial-")  # noqa: SIM115  # the caller's to close
    file.write(content)
    file.flush()
    return file


def _path_of(file: IO[bytes]) -> str:
    return f"/dev/fd/{file.fileno()}"


def _try_some(cases: Sequence[_Case], limits: TrialLimits, child: Sequence[str], *, measure: bool) -> list[Verdict]:
    """The verdicts of one process: for all cases, or up to and including the one that ended it."""
    verdicts: list[Verdict] = []
    count = len(cases)
    plan = Plan(os.getpid(), limits, [case.file for case in cases], kernels_in_use(), measure)
    contents = [case.content for case in cases if case.content is not None]
    with (
        _nameless_file(msgspec.json.encode(plan)) as plan_file,
        _Process([plan_file, *contents], child, measure=measure) as process,
    ):
        if process.line(limits.start_s) is None:
            raise ServerError(f"models cannot be tried: the trial process {process.end(limits)}")
        while len(verdicts) < count:
            line = process.line(limits.wall_s * (LOADS if measure else 1))
            if line is None:
                # If the previous model exhausted the memory, it has its verdict already.
                if not verdicts or process.status() != UNFINISHED_STATUS:
                    verdicts.append(Verdict(False, process.end(limits)))
                break
            verdicts.append(msgspec.json.decode(line, type=Verdict))
    return verdicts


class _Process:
    """A trial process: it inherits no environment, files or sockets, and ends with the context."""

    def __init__(self, files: Sequence[IO[bytes]], child: Sequence[str], *, measure: bool) -> None:
        """`files`: open files for it, the plan first."""
        for file in files:
            file.seek(0)
        # Without `site`, and with this process's path, it starts in half the time and finds the same packages.
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-P", "-B", *child, _path_of(files[0])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(measure=measure),
            pass_fds=[file.fileno() for file in files],
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._buffer = b""
        self._fault: str | None = None

    def __enter__(self) -> _Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()

    def line(self, timeout_s: float) -> bytes | None:
        """The next line of its output; None if it ends, prints nothing for `timeout_s`, or prints too much."""
        deadline = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        while b"\n" not in self._buffer and len(self._buffer) <= _LINE_BYTES_MAX:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1_000):
                self._fault = f"did not finish in {timeout_s:g} s"
                return None
            part = os.read(self._output.fileno(), _LINE_BYTES_MAX)
            if not part:
                return None
            self._buffer += part
        line, separator, self._buffer = self._buffer.partition(b"\n")
        if not separator:
            self._fault = "printed an invalid verdict"
            return None
        return line

    def status(self) -> int | None:
        """Its exit status; None if it was ended for a fault."""
        return self._wait() if self._fault is None else None

    def end(self, limits: TrialLimits) -> str:
        """Why it printed no further line."""
        if self._fault is not None:
            return self._fault
        status = self._wait()
        if status == -signal.SIGXCPU:
            return f"used more than {limits.cpu_s:g} s of processor time"
        if status < 0:
            return _SIGNALS.get(-status, f"was ended by signal {-status}")
        return f"ended with exit status {status}"

    def _wait(self) -> int:
        # Its output is closed; do not wait for a process that continues without one.
        try:
            return self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


_SIGNALS: dict[int, str] = {
    signal.SIGABRT: "aborted (SIGABRT)",
    signal.SIGSEGV: "crashed (SIGSEGV)",
    signal.SIGBUS: "crashed (SIGBUS)",
    signal.SIGFPE: "crashed (SIGFPE)",
    signal.SIGILL: "crashed (SIGILL)",
    signal.SIGKILL: "was killed (SIGKILL): the machine may be out of memory",
}


def _environment(*, measure: bool) -> dict[str, str]:
    root = str(Path(__file__).absolute().parents[4])
    environment = {
        "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if measure:
        environment["PYTHONMALLOC"] = "malloc"  # so that objects of Python are counted
    # Search paths for the libraries of model formats.
    if path := os.environ.get("LD_LIBRARY_PATH"):
        environment["LD_LIBRARY_PATH"] = path
    return environment

"""Trying models in a disposable process, because a bad one makes its library abort, segfault, hang or eat all memory.

`try_models` runs `inferd.streams.models.trial.process` over many models, so that good ones share one start; where that
process ends before its time, the model it was at has failed, and another process goes on with the rest. It blocks: call
it in a thread.
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
    UNFINISHED_STATUS,
    CaseFile,
    Plan,
    Verdict,
)

_CHILD = ("-m", "inferd.streams.models.trial.process")
_LINE_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class TrialCase:
    """A model (its bytes, or the file that holds them), and the manifest it must agree with, if there is one."""

    model: bytes | Path
    manifest: Manifest | None = None


def try_models(
    cases: Sequence[TrialCase], limits: TrialLimits = DEFAULT_TRIAL_LIMITS, *, child: Sequence[str] = _CHILD
) -> list[Verdict]:
    """One verdict a case, in order. `child`: arguments of Python for another trial process.

    `ServerError` where the process does not even start, which is no model's fault.
    """
    verdicts: list[Verdict] = []
    with ExitStack() as stack:
        files = [_case_file(case, stack) for case in cases]
        while len(verdicts) < len(files):
            verdicts += _try_some(files[len(verdicts) :], limits, child)
    return verdicts


def _case_file(case: TrialCase, stack: ExitStack) -> _Case:
    """The model where the trial process finds it: bytes in a file without a name, of which nothing can be left."""
    if isinstance(case.model, Path):
        return _Case(CaseFile(str(case.model.resolve()), case.manifest))
    file = stack.enter_context(_nameless_file(case.model))
    return _Case(CaseFile(_path_of(file), case.manifest), file)


@dataclass(frozen=True, slots=True)
class _Case:
    """A case, and the open file that holds its model where no other does."""

    file: CaseFile
    content: IO[bytes] | None = None


def _nameless_file(content: bytes) -> IO[bytes]:
    file = TemporaryFile(prefix="inferd-trial-")  # noqa: SIM115  # the caller's to close
    file.write(content)
    file.flush()
    return file


def _path_of(file: IO[bytes]) -> str:
    return f"/dev/fd/{file.fileno()}"


def _try_some(cases: Sequence[_Case], limits: TrialLimits, child: Sequence[str]) -> list[Verdict]:
    """The verdicts of one process: on all cases, or up to and with the one that it did not survive."""
    verdicts: list[Verdict] = []
    count = len(cases)
    plan = Plan(os.getpid(), limits, [case.file for case in cases], kernels_in_use())
    contents = [case.content for case in cases if case.content is not None]
    with _nameless_file(msgspec.json.encode(plan)) as plan_file, _Process([plan_file, *contents], child) as process:
        if process.line(limits.start_s) is None:
            raise ServerError(f"models cannot be tried: the trial process {process.end(limits)}")
        while len(verdicts) < count:
            line = process.line(limits.wall_s)
            if line is None:
                # Where memory ran out over the model before, that model has its verdict.
                if not verdicts or process.status() != UNFINISHED_STATUS:
                    verdicts.append(Verdict(False, process.end(limits)))
                break
            verdicts.append(msgspec.json.decode(line, type=Verdict))
    return verdicts


class _Process:
    """A trial process: no environment, files or sockets of ours, and no way to outlive the `with`."""

    def __init__(self, files: Sequence[IO[bytes]], child: Sequence[str]) -> None:
        """`files` are what it may read: its plan first."""
        for file in files:
            file.seek(0)
        # Without `site`, and with the path of this process, the start takes half the time and finds the same packages.
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-P", "-B", *child, _path_of(files[0])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(),
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
        """The next line it prints; None where it ends, is silent for `timeout_s`, or prints on and on."""
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
            self._fault = "printed what is no verdict"
            return None
        return line

    def status(self) -> int | None:
        """Its exit status; None where it did not end by itself."""
        return self._wait() if self._fault is None else None

    def end(self, limits: TrialLimits) -> str:
        """Why there is no further line from it."""
        if self._fault is not None:
            return self._fault
        status = self._wait()
        if status == -signal.SIGXCPU:
            return f"used more than {limits.cpu_s:g} s of processor time"
        if status < 0:
            return _SIGNALS.get(-status, f"was ended by signal {-status}")
        return f"ended with exit status {status}"

    def _wait(self) -> int:
        # Its output is closed; a process that goes on without one is not waited for.
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


def _environment() -> dict[str, str]:
    root = str(Path(__file__).absolute().parents[4])
    environment = {
        "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    # Where libraries of model formats may have to be found.
    if path := os.environ.get("LD_LIBRARY_PATH"):
        environment["LD_LIBRARY_PATH"] = path
    return environment

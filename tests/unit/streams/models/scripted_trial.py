"""A trial process whose "models" are commands, which do to the process what a bad model could do."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from inferd.schemas.limits import Limits
from inferd.streams.models.trial import process as trial_process


def spin() -> None:
    while True:
        pass


def write_a_file() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    Path("file").write_text("x")


def show_environment() -> None:
    """Fails with the process's environment in place of a reason."""
    descriptors = [int(path.name) for path in Path("/proc/self/fd").iterdir() if not is_library(path)]
    limits = [line for line in Path("/proc/self/limits").read_text().splitlines() if "core" in line]
    stdin = str(Path("/proc/self/fd/0").readlink())
    raise OSError(0, json.dumps([dict(os.environ), descriptors, stdin, str(Path.cwd()), limits]))


def is_library(descriptor: Path) -> bool:
    """libffi keeps its own file open (static trampolines) if ctypes uses the system's libffi."""
    return ".so" in os.path.realpath(descriptor)


def show_priority() -> None:
    standing = [os.getpriority(os.PRIO_PROCESS, 0), int(Path("/proc/self/oom_score_adj").read_text())]
    raise OSError(0, json.dumps(standing))


HANGING_NAME = "hanging"


def set_name_and_hang() -> None:
    # Not with a file: a trial cannot write any.
    ctypes.CDLL(None).prctl(15, HANGING_NAME.encode())
    time.sleep(600)


def start_thread() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


COMMANDS: dict[str, Callable[[], object]] = {
    "good": lambda: None,
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(600),
    "spin": spin,
    "allocate": lambda: bytearray(8 * 2**30),
    "exit": lambda: os._exit(3),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "print": lambda: os.write(1, b"[LightGBM] [Warning] not a verdict\n"),
    "write a file": write_a_file,
    "show environment": show_environment,
    "show priority": show_priority,
    "fork": os.fork,
    "start a program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "exec a program": lambda: os.execv("/bin/true", ["true"]),
    "open a socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "open a pair of sockets": socket.socketpair,
    "start a thread": start_thread,
    "set name and hang": set_name_and_hang,
}


def run_command(case: trial_process.CaseFile, limits: Limits) -> trial_process.Verdict:
    COMMANDS[Path(case.path).read_text()]()
    return trial_process.Verdict(True, None, 7)


if __name__ == "__main__":
    if sys.argv[1] == "broken":
        sys.exit("cannot start")
    trial_process.try_model = run_command
    sys.exit(trial_process.main(sys.argv[1:]))

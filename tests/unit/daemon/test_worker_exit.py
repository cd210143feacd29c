"""Signals and exit codes of a real worker process with fake streams."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
DEADLINE_S = 20.0
FAST = {
    "INFERD_HTTP_PORT": "0",
    "INFERD_SESSION_TIMEOUT_S": "1",
    "INFERD_HEARTBEAT_INTERVAL_S": "0.3",
    "INFERD_REVOKE_TIMEOUT_S": "0.1",
    "INFERD_DRAIN_TIMEOUT_S": "0.5",
}


class Child:
    """A process whose output is read while it runs."""

    def __init__(self, arguments: list[str], environ: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=inherited | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._told = threading.Condition()
        self._lines: dict[str, list[str]] = {"out": [], "err": []}
        streams = {"out": self.process.stdout, "err": self.process.stderr}
        self._readers = [threading.Thread(target=self._read, args=item, daemon=True) for item in streams.items()]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: Iterator[str]) -> None:
        for line in stream:
            with self._told:
                self._lines[name].append(line)
                self._told.notify_all()

    def until(self, said: str, name: str = "out") -> None:
        with self._told:
            found = self._told.wait_for(lambda: any(said in line for line in self._lines[name]), DEADLINE_S)
        assert found, f"{said!r} was not said: {self._lines}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def code(self) -> int:
        code = self.process.wait(DEADLINE_S)
        for reader in self._readers:
            reader.join(DEADLINE_S)
        return code

    @property
    def err(self) -> str:
        return "".join(self._lines["err"])

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.code()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()


@pytest.fixture
def children() -> Iterator[Callable[..., Child]]:
    started: list[Child] = []

    def start(*arguments: str, **environ: str) -> Child:
        child = Child(list(arguments), FAST | environ)
        started.append(child)
        return child

    yield start
    for child in started:
        child.end()


@pytest.fixture
def worker(children: Callable[..., Child]) -> Callable[..., Child]:
    def start(behaviour: str, **environ: str) -> Child:
        return children("-m", "tests.unit.daemon.worker_child", behaviour, **environ)

    return start


SIGNALLED_WHILE_LOADING = """
import builtins, os, signal, sys
import_module = builtins.__import__
def load(name, *more, **options):
    if name == "inferd.daemon.process":
        os.kill(os.getpid(), signal.SIGTERM)
    return import_module(name, *more, **options)
builtins.__import__ = load
sys.argv = ["inferd", "worker", "--http-port", "0", "--broker", "127.0.0.1:1"]
from inferd.daemon.cli import main
main()
"""


def test_a_signal_is_handled_while_modules_load(children: Callable[..., Child]) -> None:
    child = children("-c", SIGNALLED_WHILE_LOADING)
    assert (child.code(), child.err) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_it_gracefully(worker: Callable[..., Child], number: signal.Signals) -> None:
    child = worker("work")
    child.until("started")
    child.signal(number)
    child.until("stopping")
    assert child.code() == 0


def test_a_signal_stops_it_while_it_waits_for_the_broker(worker: Callable[..., Child]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        child = worker("wait", INFERD_BROKER=f"127.0.0.1:{nobody.getsockname()[1]}")
        child.until("waiting_for_broker", "err")
        child.signal(signal.SIGTERM)
        assert child.code() == 0


@pytest.mark.parametrize(
    ("behaviour", "code", "said"),
    [
        ("refused", 2, "exactly_once is not offered"),
        ("mismatch", 1, "has 3 partitions, not 4"),
        ("bug", 1, "ZeroDivisionError"),
        ("fatal", 71, "a lane stalled"),
        ("hang", 72, "was blocked"),
    ],
)
def test_faults_exit_with_their_code(worker: Callable[..., Child], behaviour: str, code: int, said: str) -> None:
    child = worker(behaviour)
    assert child.code() == code
    assert said in child.err


def test_a_loop_blocked_while_holding_the_gil_exits(worker: Callable[..., Child]) -> None:
    child = worker("hang_holding_the_lock")
    child.until("started")
    started = time.monotonic()
    assert child.code() == 1
    assert time.monotonic() - started < 10
    assert "Timeout" in child.err


@pytest.mark.parametrize("behaviour", ["slow_stop", "hung_stop"])
def test_a_stop_past_the_deadline_exits_with_70(worker: Callable[..., Child], behaviour: str) -> None:
    child = worker(behaviour)
    child.until("started")
    child.signal(signal.SIGTERM)
    assert child.code() == 70
    assert "INFERD_DRAIN_TIMEOUT_S=0.5" in child.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_exits_immediately(worker: Callable[..., Child], number: signal.Signals, code: int) -> None:
    child = worker("hung_stop", INFERD_DRAIN_TIMEOUT_S="600")
    child.until("started")
    child.signal(signal.SIGTERM)
    child.until("stopping")
    deadline = time.monotonic() + DEADLINE_S
    # Signals in quick succession count as one, so the signal is repeated until it takes effect.
    while child.process.poll() is None:
        assert time.monotonic() < deadline
        child.signal(number)
        threading.Event().wait(0.05)
    assert child.code() == code


def test_a_zombie_exits_when_it_resumes(worker: Callable[..., Child]) -> None:
    child = worker("work")
    child.until("started")
    child.signal(signal.SIGSTOP)
    threading.Event().wait(1.5)
    child.signal(signal.SIGCONT)
    assert child.code() == 72


def test_invalid_settings_are_one_line_each(children: Callable[..., Child]) -> None:
    child = children("-m", "inferd.daemon.cli", "worker", "--rows-max", "0", INFERD_HTTP_PORT="x", INFERD_BROKR="y")
    assert child.code() == 2
    assert sorted(child.err.splitlines()) == [
        "inferd: --rows-max=0 is not allowed: it must be a whole number from 1 to 10,000,000",
        "inferd: INFERD_BROKR is not a setting: did you mean INFERD_BROKER?",
        "inferd: INFERD_HTTP_PORT=x is not allowed: it must be a whole number from 0 to 65,535",
    ]


def test_a_taken_port_is_one_line(children: Callable[..., Child]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        child = children("-m", "inferd.daemon.cli", "worker", INFERD_HTTP_PORT=port)
        assert child.code() == 1
    assert f"inferd: INFERD_HTTP_PORT={port} cannot be used" in child.err
    assert "Traceback" not in child.err

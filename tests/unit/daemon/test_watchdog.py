"""The watchdog, the stop signals, and the supervisor of the embedded broker."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from inferd.daemon.broker.errors import BrokerStartError
from inferd.daemon.supervision.broker_supervisor import RESTARTS_MAX, SupervisedBroker
from inferd.daemon.supervision.stop_signals import SIGNALS, StopSignals
from inferd.daemon.supervision.watchdog import Watchdog

DEADLINE_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Calls:
    """Records the notifications of the watchdog."""

    def __init__(self) -> None:
        self.blocked_s: list[float] = []
        self.lags_s: list[float] = []
        self.zombie = threading.Event()

    def on_zombie(self, seconds: float) -> None:
        self.blocked_s.append(seconds)
        self.zombie.set()


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watchdog(calls: Calls, clock: Clock) -> Iterator[Watchdog]:
    watchdog = Watchdog(10.0, calls.on_zombie, calls.lags_s.append, clock=clock)
    yield watchdog
    watchdog.stop()


async def test_a_running_loop_is_not_reported(watchdog: Watchdog, calls: Calls, clock: Clock) -> None:
    watchdog.start()
    watchdog.arm()
    for _ in range(100):
        clock.now += 9.9
        watchdog.beat()
    assert calls.blocked_s == []


async def test_a_stopped_process_exits_when_it_resumes(watchdog: Watchdog, calls: Calls, clock: Clock) -> None:
    watchdog.start()
    watchdog.arm()
    clock.now += 10.1
    watchdog.beat()
    assert calls.blocked_s[0] == pytest.approx(10.1)


async def test_it_is_inactive_until_the_group_is_joined(watchdog: Watchdog, calls: Calls, clock: Clock) -> None:
    watchdog.start()
    clock.now += 60
    watchdog.beat()
    assert calls.blocked_s == []
    watchdog.arm()
    watchdog.arm()
    clock.now += 9
    watchdog.beat()
    assert calls.blocked_s == []


async def test_the_lag_is_the_delay_of_a_heartbeat(watchdog: Watchdog, calls: Calls, clock: Clock) -> None:
    watchdog.start()
    clock.now += 1.0
    watchdog.beat()
    clock.now += 1.25
    watchdog.beat()
    assert calls.lags_s == pytest.approx([0.0, 0.25])


async def test_the_thread_detects_a_blocked_loop(calls: Calls) -> None:
    watchdog = Watchdog(0.2, calls.on_zombie)
    watchdog.start()
    watchdog.arm()
    try:
        # A blocking wait: the event loop is blocked.
        hangs = calls.zombie.wait
        assert hangs(DEADLINE_S)
    finally:
        watchdog.stop()
    assert calls.blocked_s[0] > 0.2


async def test_heartbeats_are_scheduled(calls: Calls) -> None:
    beaten = asyncio.Event()
    watchdog = Watchdog(0.5, calls.on_zombie, lambda _seconds: beaten.set())
    watchdog.start()
    await asyncio.wait_for(beaten.wait(), DEADLINE_S)
    watchdog.stop()


class ExitCodes(list[int]):
    """Collects exit codes instead of ending the process."""


async def test_the_first_signal_requests_a_stop_and_the_second_exits() -> None:
    ends, clock = ExitCodes(), Clock()
    signals = StopSignals(ends.append, clock)
    waiting = asyncio.create_task(signals.wait())
    await asyncio.sleep(0)
    signals.receive(signal.SIGTERM)
    assert await asyncio.wait_for(waiting, DEADLINE_S) == "SIGTERM"
    assert ends == []
    clock.now += 1
    signals.receive(signal.SIGINT)
    signals.receive(signal.SIGTERM)
    assert ends == [130, 143]


async def test_signals_in_quick_succession_are_one_request() -> None:
    ends, clock = ExitCodes(), Clock()
    signals = StopSignals(ends.append, clock)
    signals.receive(signal.SIGINT)
    clock.now += 0.1
    signals.receive(signal.SIGTERM)
    assert ends == []
    assert await signals.wait() == "SIGINT"


async def test_a_real_signal_arrives_while_the_loop_waits() -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with StopSignals(ExitCodes().append) as signals:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        assert await asyncio.wait_for(signals.wait(), DEADLINE_S) == "SIGTERM"
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_a_hangup_is_ignored_under_nohup(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals(ExitCodes().append):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class FakeBroker:
    """Exits unexpectedly a given number of times."""

    def __init__(self, deaths: int = 0, fails_to_restart: bool = False) -> None:
        self.deaths, self.fails_to_restart = deaths, fails_to_restart
        self.calls: list[str] = []
        self.alive = threading.Event()

    def start(self) -> None:
        if self.calls and self.fails_to_restart:
            raise BrokerStartError("the broker ended while it was starting")
        self.calls.append("start")
        self.alive.set()

    def stop(self) -> None:
        self.calls.append("stop")

    def wait(self, timeout_s: float) -> int | None:
        if not self.deaths:
            return None
        self.deaths -= 1
        return 137


def wait_until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_an_exited_broker_is_restarted_and_stopped_once() -> None:
    broker, lost = FakeBroker(deaths=2), list[str]()
    with SupervisedBroker(broker, lost.append, poll_s=0.001):
        wait_until(lambda: broker.calls.count("start") == 3)
    assert broker.calls == ["start", "start", "start", "stop"]
    assert lost == []


def test_a_broker_that_cannot_be_restarted_is_lost() -> None:
    lost = list[str]()
    with SupervisedBroker(FakeBroker(deaths=1, fails_to_restart=True), lost.append, poll_s=0.001):
        wait_until(lambda: lost)
    assert lost == ["the broker ended while it was starting"]


def test_a_broker_that_keeps_exiting_is_given_up() -> None:
    broker, lost = FakeBroker(deaths=10**6), list[str]()
    with SupervisedBroker(broker, lost.append, poll_s=0.001):
        wait_until(lambda: lost)
    assert "exit code 137" in lost[0]
    assert broker.calls.count("start") == 1 + RESTARTS_MAX

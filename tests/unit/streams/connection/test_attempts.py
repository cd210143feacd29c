"""When a connection to an unreachable broker is retried, with a fake clock."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.streams.connection.attempts import (
    FAILURES_MAX,
    FORGET_S,
    JITTER,
    PAUSE_S_MAX,
    PAUSE_S_MIN,
    BrokerTarget,
    ConnectionAttempts,
)

HERE = BrokerTarget("kafka", 9092, (("kafka", 9092),), "PLAINTEXT", None, ())
REFUSED = ConnectionRefusedError()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    callers=st.integers(1, 60), each_s=st.floats(0.005, 0.5), takes_s=st.sampled_from([0.0, 0.003]), seed=st.integers()
)
def test_attempts_are_limited_however_many_clients_connect(
    callers: int, each_s: float, takes_s: float, seed: int
) -> None:
    clock, made = Clock(), []
    attempts = ConnectionAttempts(clock, random.Random(seed).random)
    attempts.failed(HERE, REFUSED)
    while clock.now < 130:
        for _ in range(callers):
            if attempts.claim(HERE) == 0:
                made.append(clock.now)
                clock.now += takes_s
                attempts.failed(HERE, REFUSED)
        clock.now += each_s
    assert len(made) <= 30 / (PAUSE_S_MAX * (1 - JITTER)) + 6
    assert made[-1] - made[-2] <= PAUSE_S_MAX * (1 + JITTER) + each_s + callers * takes_s, "but they go on"


def test_who_is_allowed_an_attempt_makes_the_others_wait() -> None:
    clock = Clock()
    attempts = ConnectionAttempts(clock, lambda: 0.5)
    attempts.failed(HERE, REFUSED)
    clock.now += PAUSE_S_MIN
    assert [attempts.claim(HERE) == 0 for _ in range(3)] == [True, False, False]


def test_the_pause_doubles_however_short_the_jitter_makes_it() -> None:
    clock = Clock()
    attempts = ConnectionAttempts(clock, lambda: 0.0)
    pauses = []
    for _ in range(6):
        attempts.failed(HERE, REFUSED)
        pauses.append(wait := attempts.claim(HERE))
        clock.now += wait
        assert attempts.claim(HERE) == 0
    assert pauses == pytest.approx([(1 - JITTER) * min(PAUSE_S_MIN * 2**n, PAUSE_S_MAX) for n in range(6)])


def test_attempts_that_fail_together_count_once() -> None:
    attempts = ConnectionAttempts(Clock(), lambda: 0.5)
    assert [attempts.failed(HERE, REFUSED) for _ in range(10)] == [True, *[False] * 9]
    failure = attempts.failure(HERE)
    assert failure is not None
    assert failure.pause_s == PAUSE_S_MIN


def test_a_success_resets_the_delay_and_other_credentials_are_another_target() -> None:
    attempts = ConnectionAttempts(Clock())
    attempts.failed(HERE, REFUSED)
    assert attempts.claim(HERE) > 0
    assert attempts.claim(HERE._replace(username="bob")) == 0
    assert attempts.succeeded(HERE)
    assert not attempts.succeeded(HERE)
    assert attempts.claim(HERE) == 0


def test_the_latest_failure_is_reported_until_it_is_old() -> None:
    clock = Clock()
    attempts = ConnectionAttempts(clock)
    there = HERE._replace(host="elsewhere")
    attempts.failed(HERE, REFUSED)
    clock.now += 1
    attempts.failed(there, REFUSED)
    assert (attempts.latest(lambda _: True) or [None])[0] == there
    assert (attempts.latest(lambda target: target == HERE) or [None])[0] == HERE
    clock.now += FORGET_S + 1
    assert attempts.latest(lambda _: True) is None
    assert attempts.claim(HERE) == 0


def test_memory_is_bounded() -> None:
    attempts = ConnectionAttempts(Clock())
    for port in range(FAILURES_MAX + 10):
        attempts.failed(HERE._replace(port=port), REFUSED)
    assert attempts.failure(HERE._replace(port=9)) is None
    assert attempts.failure(HERE._replace(port=10)) is not None

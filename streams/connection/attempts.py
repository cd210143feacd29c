"""Attempts to connect to brokers that failed: when to retry, and why they failed.

The delay after a failure doubles from `PAUSE_S_MIN` to `PAUSE_S_MAX`, as in Kafka's own clients
(`reconnect.backoff.ms`, `reconnect.backoff.max.ms`), with jitter. All clients of the process share it: a broker gets
about one attempt per second, however many producers and consumers have lost it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 1.0
JITTER = 0.2
FORGET_S = 30.0
"""A failure that is older counts no more: nothing has tried to connect since, for example because the broker moved."""
FAILURES_MAX = 1_000


Servers = tuple[tuple[str, int], ...]


class BrokerTarget(NamedTuple):
    """An address, its cluster, and our credentials: other credentials may be accepted."""

    host: str
    port: int
    bootstrap: Servers
    """The bootstrap servers of the cluster."""
    security_protocol: str
    username: str | None
    ssl_files: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failed attempt."""

    error: BaseException
    at: float
    pause_s: float
    """Before jitter."""
    until: float
    """No attempt is made before."""


class ConnectionAttempts:
    """Failures by target. `clock` returns the time, `chance` a random number from 0 to 1."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._chance = clock, chance
        self._failures: dict[BrokerTarget, Failure] = {}

    def claim(self, target: BrokerTarget) -> float:
        """Seconds to wait before an attempt; 0 allows one attempt now, and makes others wait for its outcome."""
        failure = self.failure(target)
        if failure is None:
            return 0.0
        now = self._clock()
        if now < failure.until:
            return failure.until - now
        self._failures[target] = Failure(failure.error, failure.at, failure.pause_s, self._end_of(failure.pause_s))
        return 0.0

    def failed(self, target: BrokerTarget, error: BaseException) -> bool:
        """Records a failure; returns whether it is the first of consecutive ones."""
        previous, now = self.failure(target), self._clock()
        pause_s = PAUSE_S_MIN
        if previous is not None:
            # Attempts that started together fail together: they count as one. The jitter may shorten the pause.
            together = now < previous.at + previous.pause_s * (1 - JITTER)
            pause_s = previous.pause_s if together else min(2 * previous.pause_s, PAUSE_S_MAX)
        self._failures.pop(target, None)
        self._failures[target] = Failure(error, now, pause_s, self._end_of(pause_s))
        if len(self._failures) > FAILURES_MAX:
            del self._failures[next(iter(self._failures))]
        return previous is None

    def succeeded(self, target: BrokerTarget) -> bool:
        """Clears the failures of a target; returns whether there were any."""
        return self._failures.pop(target, None) is not None

    def failure(self, target: BrokerTarget) -> Failure | None:
        """The last failure of a target since it was last reached."""
        failure = self._failures.get(target)
        return None if failure is None or self._clock() - failure.at > FORGET_S else failure

    def latest(self, fits: Callable[[BrokerTarget], bool]) -> tuple[BrokerTarget, Failure] | None:
        """The latest failure of all matching targets."""
        found = [
            (target, failure) for target in list(self._failures) if fits(target) and (failure := self.failure(target))
        ]
        return max(found, key=lambda each: each[1].at, default=None)

    def _end_of(self, pause_s: float) -> float:
        return self._clock() + pause_s * (1 + JITTER * (2 * self._chance() - 1))

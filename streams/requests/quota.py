"""Quotas of a tenant: requests and bytes a second, by token buckets.

They hold for all workers together: each has the share of the tenant's request partitions that it owns, without asking
the others. A request over HTTP beyond the quota is refused: its caller waits, and can retry. A record of Kafka is
delayed: it stays in its topic, and the lag grows. Refusing it would turn a burst into results with errors, which most
producers cannot send again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from inferd.schemas.errors import QuotaExceededError
from inferd.streams.inference import Record

R = TypeVar("R", bound=Record)
BURST_S = 1.0
"""Seconds of the quota that may be used at once."""
USED_OVER_S = 10


class TokenBucket:
    """Allows `rate` a second on average; 0 allows everything.

    What is larger than the whole bucket passes when the bucket is full, and is paid for later.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._tokens, self._filled_at = self._full, now

    @property
    def _full(self) -> float:
        return max(1.0, self.rate * BURST_S)

    def change(self, now: float, rate: float) -> None:
        """Continues with another rate. What it holds is reduced to the new size, and never increased."""
        self._fill(now)
        self.rate = rate
        self._tokens = min(self._tokens, self._full)

    def has(self, now: float, amount: float) -> bool:
        """Whether `amount` may pass now."""
        if not self.rate:
            return True
        self._fill(now)
        return self._tokens >= min(amount, self._full)

    def take(self, amount: float) -> None:
        """Takes what passes."""
        if self.rate:
            self._tokens -= amount

    def wait_s(self, amount: float) -> float:
        """How long until `amount` may pass, as of the last `has`."""
        return 0.0 if not self.rate else max(0.0, (min(amount, self._full) - self._tokens) / self.rate)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._full, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now


class _Used:
    """Requests and bytes that passed in the last ten seconds."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=USED_OVER_S + 1)

    def add(self, now: float, n_bytes: int) -> None:
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            _, requests, total = self._seconds.pop()
            self._seconds.append((second, requests + 1, total + n_bytes))
        else:
            self._seconds.append((second, 1, n_bytes))

    def per_s(self, now: float) -> tuple[float, float]:
        """Requests and bytes a second, over the last whole seconds."""
        last = int(now)
        found = [each for each in self._seconds if last - USED_OVER_S <= each[0] < last]
        return sum(each[1] for each in found) / USED_OVER_S, sum(each[2] for each in found) / USED_OVER_S


class Quota:
    """The part of a tenant's quota that this worker may use."""

    def __init__(
        self, requests_per_s: float = 0.0, bytes_per_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Those of all workers together; 0: unlimited."""
        self.requests_per_s, self.bytes_per_s = requests_per_s, bytes_per_s
        self._clock = clock
        self._requests, self._bytes = TokenBucket(requests_per_s, clock()), TokenBucket(bytes_per_s, clock())
        self._used = _Used()
        self.limited = requests_per_s > 0 or bytes_per_s > 0
        self.share_of_worker: Callable[[], float] = lambda: 1.0
        """The share of this worker now, above 0 and at most 1."""
        self.share = 1.0
        """As of the last request."""
        self.delays = 0
        """How often records of Kafka were left for later."""
        self.refused = 0
        """Requests over HTTP."""

    def within(self, records: Sequence[R]) -> Sequence[R]:
        """The leading records that may be scored now; the others are delayed."""
        self._follow_share()
        for count, record in enumerate(records):
            if not self._pass(len(record.value or b"")):
                self.delays += 1
                return records[:count]
        return records

    def check(self, n_bytes: int) -> None:
        """Raises `QuotaExceededError` if a request over HTTP may not be scored now."""
        if not self.limited:
            return
        self._follow_share()
        if not self._pass(n_bytes):
            self.refused += 1
            wait_s = max(self._requests.wait_s(1), self._bytes.wait_s(n_bytes))
            raise QuotaExceededError(
                f"the tenant's quota ({_words(self.requests_per_s, self.bytes_per_s)} a second, of which this worker"
                f" has {self.share:.0%}) is used up: retry in {wait_s:.1f} s"
            )

    def used_per_s(self) -> tuple[float, float]:
        """Requests and bytes a second that passed here in the last ten seconds."""
        return self._used.per_s(self._clock())

    def _follow_share(self) -> None:
        if (share := self.share_of_worker()) != self.share:
            self.share, now = share, self._clock()
            self._requests.change(now, self.requests_per_s * share)
            self._bytes.change(now, self.bytes_per_s * share)

    def _pass(self, n_bytes: int) -> bool:
        now = self._clock()
        if not (self._requests.has(now, 1) and self._bytes.has(now, n_bytes)):
            return False
        self._requests.take(1)
        self._bytes.take(n_bytes)
        self._used.add(now, n_bytes)
        return True


def share_of(owned: int, partitions: int) -> float:
    """The share of a worker that owns so many of a tenant's request partitions. One that owns none has that of one:
    it may answer requests over HTTP."""
    return min(1.0, max(1, owned) / max(1, partitions))


def _words(requests: float, n_bytes: float) -> str:
    parts = [f"{requests:g} requests"] * bool(requests) + [f"{n_bytes:g} bytes"] * bool(n_bytes)
    return ", ".join(parts)

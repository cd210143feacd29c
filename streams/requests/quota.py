"""Quotas of a tenant: requests and bytes a second, by token buckets.

A request over HTTP beyond the quota is refused: its caller waits, and can retry. A record of Kafka is delayed: it stays
in its topic, and the lag grows. Refusing it would turn a burst into results with errors, which most producers cannot
send again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from inferd.schemas.errors import QuotaExceededError
from inferd.streams.inference import Record

R = TypeVar("R", bound=Record)
BURST_S = 1.0
"""Seconds of the quota that may be used at once."""


class TokenBucket:
    """Allows `rate` a second on average; 0 allows everything.

    What is larger than the whole bucket passes when the bucket is full, and is paid for later.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._full = max(1.0, rate * BURST_S)
        self._tokens, self._filled_at = self._full, now

    def has(self, now: float, amount: float) -> bool:
        """Whether `amount` may pass now."""
        if not self.rate:
            return True
        self._tokens = min(self._full, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        return self._tokens >= min(amount, self._full)

    def take(self, amount: float) -> None:
        """Takes what passes."""
        if self.rate:
            self._tokens -= amount

    def wait_s(self, amount: float) -> float:
        """How long until `amount` may pass, as of the last `has`."""
        return 0.0 if not self.rate else max(0.0, (min(amount, self._full) - self._tokens) / self.rate)


class Quota:
    """The quota of a tenant on this worker."""

    def __init__(
        self, requests_per_s: float = 0.0, bytes_per_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """0: unlimited."""
        self._clock = clock
        self._requests, self._bytes = TokenBucket(requests_per_s, clock()), TokenBucket(bytes_per_s, clock())
        self.limited = requests_per_s > 0 or bytes_per_s > 0
        self.delays = 0
        """How often records of Kafka were left for later."""
        self.refused = 0
        """Requests over HTTP."""

    def within(self, records: Sequence[R]) -> Sequence[R]:
        """The leading records that may be scored now; the others are delayed."""
        for count, record in enumerate(records):
            if not self._pass(len(record.value or b"")):
                self.delays += 1
                return records[:count]
        return records

    def check(self, n_bytes: int) -> None:
        """Raises `QuotaExceededError` if a request over HTTP may not be scored now."""
        if self.limited and not self._pass(n_bytes):
            self.refused += 1
            wait_s = max(self._requests.wait_s(1), self._bytes.wait_s(n_bytes))
            raise QuotaExceededError(
                f"the tenant's quota ({_words(self._requests.rate, self._bytes.rate)} a second and worker) is used up:"
                f" retry in {wait_s:.1f} s"
            )

    def _pass(self, n_bytes: int) -> bool:
        now = self._clock()
        if not (self._requests.has(now, 1) and self._bytes.has(now, n_bytes)):
            return False
        self._requests.take(1)
        self._bytes.take(n_bytes)
        return True


def _words(requests: float, n_bytes: float) -> str:
    parts = [f"{requests:g} requests"] * bool(requests) + [f"{n_bytes:g} bytes"] * bool(n_bytes)
    return ", ".join(parts)

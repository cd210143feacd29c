"""Turns of workers on the event loop: one micro-batch at a time; the worker that has used the least time is next."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Coroutine, Generator, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, TypeVar

from inferd.streams.lane.processor import Kind

T = TypeVar("T")
CONTENDED_S = 1.0
"""An urgent worker counts as competing for this long after its last turn."""
PAUSE_S_MAX = 1.0


@dataclass(slots=True, eq=False)
class Share:
    """The event loop time of one worker."""

    weight: float = 1.0
    """A worker with twice the weight gets twice the time."""
    urgent: bool = False
    """Whether a caller waits for its results: other workers then take short turns."""
    used_s: float = 0.0
    """Seconds, divided by the weight."""


class Turns:
    """Grants turns. The event loop runs sockets and timers between two turns."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Share, asyncio.Future[None]]] = []
        self._numbers = count()
        self._least_s = 0.0
        """Time used by the worker of the last turn: an idle worker cannot save up time below it."""
        self._last_turn: dict[Share, float] = {}
        self._granted = False
        """Whether a turn has been granted in this iteration."""

    async def take(self, share: Share) -> None:
        """Returns when it is the turn of this share."""
        share.used_s = max(share.used_s, self._least_s)
        if not self._granted:
            self._grant(share)
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (share.used_s, next(self._numbers), share, turn))
        await turn

    def contended(self, share: Share) -> bool:
        """Whether other urgent workers have had a turn recently."""
        now = time.monotonic()
        return any(now - at < CONTENDED_S for each, at in self._last_turn.items() if each is not share)

    def _grant(self, share: Share) -> None:
        self._granted = True
        self._least_s = max(self._least_s, share.used_s)
        if share.urgent:
            self._last_turn[share] = time.monotonic()
        # One iteration after the worker's step: until then it may wait again and compete for the next turn.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._next)

    def _next(self) -> None:
        self._granted = False
        while self._waiting and not self._granted:
            _, _, share, turn = heapq.heappop(self._waiting)
            if not turn.done():  # the worker was cancelled
                turn.set_result(None)
                self._grant(share)


class JobsShare:
    """Limits the chunks of all jobs together to their share of time while there are requests."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._at_work = 0
        self._requests = 0
        """Number of processed micro-batches of requests."""
        self._requests_seen: dict[Share, int] = {}
        """That number after the last chunks of each worker."""

    @contextlib.contextmanager
    def at_work(self, kind: Kind) -> Iterator[None]:
        """Marks a worker of this kind as having records to process."""
        self._at_work += kind == "chunks"
        try:
            yield
        finally:
            self._at_work -= kind == "chunks"

    def pause_s(self, kind: Kind, share: Share, worked_s: float) -> float:
        """How long a worker must pause after working for `worked_s`."""
        self._requests += kind == "requests"
        if kind != "chunks" or self._requests_seen.get(share, 0) == self._requests:
            return 0.0
        self._requests_seen[share] = self._requests
        return min(worked_s * (max(1, self._at_work) / self.share - 1), PAUSE_S_MAX)


@dataclass(slots=True)
class Timed(Generic[T]):
    """Awaits a coroutine and charges the time that it holds the event loop to a share; waiting is free."""

    coroutine: Coroutine[Any, Any, T]
    share: Share

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self.coroutine.__await__()
        step, argument = steps.send, None
        while True:
            started = time.perf_counter()
            try:
                waits_for = step(argument)
            except StopIteration as done:
                result: T = done.value
                return result
            finally:
                self.share.used_s += (time.perf_counter() - started) / self.share.weight
            try:
                argument = yield waits_for
                step = steps.send
            except BaseException as error:  # noqa: BLE001  # Cancellations are passed on, too.
                step, argument = steps.throw, error

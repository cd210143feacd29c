"""Prediction requests over HTTP: scored in the same micro-batches as records from Kafka, answered by a future."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from inferd.schemas.errors import ModelServingError, QuotaExceededError

PUT_BACK_S = 0.2


class HttpAnswer(NamedTuple):
    """An encoded result, and the headers that say which alias chose its version."""

    value: bytes
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class HttpRequest:
    """An encoded request and the future of its answer or typed error."""

    offset: int
    timestamp: int
    """Unix milliseconds."""
    value: bytes
    headers: Sequence[tuple[str, bytes | None]]
    key: bytes | None = None
    answer: asyncio.Future[HttpAnswer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class HttpRequests:
    """The HTTP requests of one tenant: those that wait for the next micro-batch, oldest first, and those in it."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting: deque[HttpRequest] = deque()
        self._taken: list[HttpRequest] = []
        self._put_back: list[HttpRequest] = []
        self.wake: Callable[[], None] = lambda: None
        """Called when requests that were put back may be taken again."""
        self._waiting_max = waiting_max
        self._asked = 0

    @property
    def unanswered(self) -> int:
        """Requests that wait or are being scored, without those that were put back."""
        return len(self._waiting) + sum(not request.answer.done() for request in self._taken)

    def ask(self, value: bytes, headers: Sequence[tuple[str, bytes | None]], now_ms: int) -> HttpRequest:
        """Queue a request; `QuotaExceededError` if the queue is full."""
        if (waiting := len(self._waiting) + len(self._put_back)) >= self._waiting_max:
            raise QuotaExceededError(f"{waiting} requests are waiting: retry later, or ask another worker")
        request = HttpRequest(self._asked, now_ms, value, headers)
        self._asked += 1
        self._waiting.append(request)
        return request

    def take(self, records_max: int) -> list[HttpRequest]:
        """Take the oldest requests whose callers still wait."""
        taken: list[HttpRequest] = []
        while self._waiting and len(taken) < records_max:
            request = self._waiting.popleft()
            if not request.answer.done():
                taken.append(request)
        self._taken = taken
        return taken

    def put_back(self, requests: Collection[HttpRequest]) -> None:
        """Returns the requests that were taken last to the queue: they are taken again after `resume`, or after a
        delay."""
        if requests:
            self._taken = [request for request in self._taken if request not in requests]
            self._put_back += sorted(requests, key=lambda request: request.offset)
            asyncio.get_running_loop().call_later(PUT_BACK_S, self.resume)

    def resume(self) -> None:
        """Makes requests that were put back available again, ahead of later ones."""
        if self._put_back:
            self._waiting.extendleft(reversed(self._put_back))
            self._put_back = []
            self.wake()

    def fail_all(self, error: ModelServingError) -> None:
        """Fail all requests, waiting or in a batch, with `error`."""
        for request in (*self._taken, *self._put_back, *self._waiting):
            if not request.answer.done():
                request.answer.set_exception(error)
        self._taken, self._put_back = [], []
        self._waiting.clear()

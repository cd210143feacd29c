"""Requests that did not come through Kafka: scored with what waits in the lane, and answered where they were asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from inferd.schemas.errors import ModelServingError, QuotaExceededError


@dataclass(frozen=True, slots=True, eq=False)
class DirectRequest:
    """A request as it would be on the wire, and the future of its result, or of its typed error."""

    offset: int
    timestamp: int
    """Unix milliseconds."""
    value: bytes
    headers: Sequence[tuple[str, bytes | None]]
    key: bytes | None = None
    answer: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class DirectRequests:
    """Those of one tenant that wait for the next micro-batch, oldest first, and those that are in one."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting: deque[DirectRequest] = deque()
        self._taken: list[DirectRequest] = []
        self._waiting_max = waiting_max
        self._asked = 0

    @property
    def unanswered(self) -> int:
        """How many wait, or are being scored."""
        return len(self._waiting) + sum(not request.answer.done() for request in self._taken)

    def ask(self, value: bytes, headers: Sequence[tuple[str, bytes | None]], now_ms: int) -> DirectRequest:
        """Queues a request; `QuotaExceededError` where too many wait already."""
        if len(self._waiting) >= self._waiting_max:
            raise QuotaExceededError(f"{len(self._waiting)} requests wait already: ask again later, or another worker")
        request = DirectRequest(self._asked, now_ms, value, headers)
        self._asked += 1
        self._waiting.append(request)
        return request

    def take(self, records_max: int) -> list[DirectRequest]:
        """The oldest that somebody still waits for."""
        taken: list[DirectRequest] = []
        while self._waiting and len(taken) < records_max:
            request = self._waiting.popleft()
            if not request.answer.done():
                taken.append(request)
        self._taken = taken
        return taken

    def give_up(self, error: ModelServingError) -> None:
        """Nobody will score these any more: whoever waits for one gets `error`."""
        for request in (*self._taken, *self._waiting):
            if not request.answer.done():
                request.answer.set_exception(error)
        self._taken = []
        self._waiting.clear()

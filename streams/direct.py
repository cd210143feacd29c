"""Requests that did not come through Kafka: scored with what waits in the lane, and answered where they were asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.errors import QuotaExceededError

DIRECT_PARTITION = -1
"""Stands where a fetched record has its partition."""


@dataclass(frozen=True, slots=True, eq=False)
class DirectRequest:
    """A request as it would be on the wire, and the future of its result."""

    offset: int
    timestamp: int
    """Unix milliseconds."""
    value: bytes
    headers: Sequence[tuple[str, bytes | None]]
    key: bytes | None = None
    answer: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class DirectRequests:
    """Those of one tenant that wait for the next micro-batch, oldest first."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting: deque[DirectRequest] = deque()
        self._waiting_max = waiting_max
        self._asked = 0

    def __len__(self) -> int:
        return len(self._waiting)

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
        return taken

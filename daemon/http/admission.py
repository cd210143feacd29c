"""How many requests are worked on at once, and none that is new once the worker drains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from daemon.http.errors import DrainingError, Respond
from schemas.errors import QuotaExceededError

WATCHING_PATHS = frozenset({"/", "/livez", "/readyz", "/health", "/status", "/metrics", "/openapi.json"})
"""What is answered however busy the worker is, and also while it drains."""


def _never() -> str | None:
    return None


class Admission:
    """Lets at most `concurrency_max` requests in, and none once `closing` gives a reason."""

    def __init__(self, concurrency_max: int = 256, closing: Callable[[], str | None] = _never) -> None:
        self.running = 0
        self._concurrency_max, self._closing = concurrency_max, closing
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """One request; `DrainingError` while draining, `QuotaExceededError` where too many are worked on."""
        if (reason := self._closing()) is not None:
            raise DrainingError(reason)
        if self.running >= self._concurrency_max:
            raise QuotaExceededError(
                f"{self.running} HTTP requests are being answered, and INFERD_HTTP_CONCURRENCY_MAX allows no more;"
                " come again in a moment, or ask another worker"
            )
        self.running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.running -= 1
            if not self.running:
                self._idle.set()

    async def finished(self, timeout_s: float) -> bool:
        """Waits for the requests that were let in; False where the time was over first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


ADMISSION = web.AppKey("admission", Admission)


@web.middleware
async def admitted(request: web.Request, handler: Respond) -> web.StreamResponse:
    """Refuses what is too much, and, while the worker drains, everything that is new."""
    if request.path in WATCHING_PATHS:
        return await handler(request)
    with request.app[ADMISSION].one():
        return await handler(request)

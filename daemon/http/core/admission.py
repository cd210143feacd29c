"""Limits concurrent requests, and refuses new ones while the worker drains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from inferd.daemon.http.core.access import charged_tenant
from inferd.daemon.http.core.errors import DrainingError, Respond
from inferd.daemon.http.core.peers import PEER_PATH
from inferd.daemon.http.core.shares import Shares

WATCHING_PATHS = frozenset({"/", "/livez", "/readyz", "/health", "/status", "/metrics", "/openapi.json", PEER_PATH})
"""Routes that are answered under any load, and while the worker drains."""
FULL = (
    "so many HTTP requests of this tenant are being answered that INFERD_HTTP_CONCURRENCY_MAX leaves it no slot for"
    " another one; retry in a moment, or ask another worker"
)


def _never() -> str | None:
    return None


class Admission:
    """Admits at most `concurrency_max` requests, in fair shares; none once `closing` returns a reason."""

    def __init__(
        self, concurrency_max: int = 256, closing: Callable[[], str | None] = _never, tenants: int = 1
    ) -> None:
        self._shares, self._closing = Shares(concurrency_max, tenants), closing
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Requests admitted and not yet answered."""
        return self._shares.taken

    @contextmanager
    def one(self, tenant: str) -> Iterator[None]:
        """Admits a tenant's request. Raises `DrainingError` while draining, `QuotaExceededError` beyond its share."""
        if (reason := self._closing()) is not None:
            raise DrainingError(reason)
        try:
            with self._shares.one(tenant, FULL):
                self._idle.clear()
                yield
        finally:
            if not self.running:
                self._idle.set()

    async def finished(self, timeout_s: float) -> bool:
        """Waits until all admitted requests are answered; False on timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


ADMISSION = web.AppKey("admission", Admission)


@web.middleware
async def admitted(request: web.Request, handler: Respond) -> web.StreamResponse:
    """Refuses requests beyond the limit, and all new ones while the worker drains."""
    if request.path in WATCHING_PATHS:
        return await handler(request)
    with request.app[ADMISSION].one(charged_tenant(request)):
        return await handler(request)

"""Limits concurrent requests, and refuses new ones while the worker drains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from inferd.daemon.http.core.access import charged_tenant, is_public
from inferd.daemon.http.core.errors import DrainingError, Respond
from inferd.daemon.http.core.shares import Shares

UNLIMITED_PATHS = frozenset(
    ("/status", "/history", "/cluster", "/cluster/history", "/metrics", "/whoami", "/openapi.json", "/asyncapi.json")
)
"""Routes that are answered under any load, and while the worker drains, as public ones are."""
FULL = (
    "this tenant has used its share of INFERD_HTTP_CONCURRENCY_MAX concurrent HTTP requests; retry in a moment, or"
    " use another worker"
)


class Admission:
    """Admits at most `concurrency_max` requests, in fair shares; none once `draining` returns a reason."""

    def __init__(
        self, concurrency_max: int = 256, draining: Callable[[], str | None] = lambda: None, tenants: int = 1
    ) -> None:
        self._shares, self._draining = Shares(concurrency_max, tenants), draining
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Requests admitted and not yet answered."""
        return self._shares.taken

    @contextmanager
    def admit(self, tenant: str) -> Iterator[None]:
        """Admits a tenant's request. Raises `DrainingError` while draining, `QuotaExceededError` beyond its share."""
        if (reason := self._draining()) is not None:
            raise DrainingError(reason)
        try:
            with self._shares.slot(tenant, FULL):
                self._idle.clear()
                yield
        finally:
            if not self.running:
                self._idle.set()

    async def wait_idle(self, timeout_s: float) -> bool:
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
    if request.path in UNLIMITED_PATHS or is_public(request.path):
        return await handler(request)
    with request.app[ADMISSION].admit(charged_tenant(request)):
        return await handler(request)

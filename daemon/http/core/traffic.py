"""Counts and durations of HTTP requests by route, since the process started."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter, defaultdict

from aiohttp import web

from inferd.daemon.http.core.errors import ClientClosedError, Respond
from inferd.streams.telemetry import LatencySnapshot

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
OTHER = "other"
"""Label of unknown routes and methods, so that clients cannot create labels."""


class Traffic:
    """Responses by method, route and status."""

    def __init__(self) -> None:
        self.responses: Counter[tuple[str, str, str]] = Counter()
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS_S) + 1))
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one response."""
        self.responses[method if method in METHODS else OTHER, route, str(status)] += 1
        self._counts[route][bisect_left(BOUNDS_S, seconds)] += 1
        self._seconds[route] += seconds

    def latencies(self) -> dict[str, LatencySnapshot]:
        """Request durations by route."""
        return {
            route: LatencySnapshot(BOUNDS_S, tuple(counts), self._seconds[route])
            for route, counts in self._counts.items()
        }


TRAFFIC = web.AppKey("traffic", Traffic)


@web.middleware
async def counted(request: web.Request, handler: Respond) -> web.StreamResponse:
    """Counts every response; a cancelled request counts as closed by the client."""
    started, status = time.perf_counter(), 500
    try:
        response = await handler(request)
        status = response.status
    except asyncio.CancelledError:
        status = ClientClosedError.http_status
        raise
    finally:
        resource = request.match_info.route.resource
        route = OTHER if resource is None else resource.canonical
        request.app[TRAFFIC].count(request.method, route, status, time.perf_counter() - started)
    return response

"""Connections: requests that aiohttp itself rejects get a JSON error too."""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from inferd.daemon.http.core.errors import error_response
from inferd.daemon.printable import printable

LINE_BYTES_MAX = 8_190
HEADER_BYTES_MAX = 8_190
HEADERS_MAX = 64
LINGER_S = 2.0
"""How long the rest of a rejected body is read, so that the client receives the response."""
log = structlog.get_logger(__name__)


class Connection(web.RequestHandler):
    """One connection; `idle_timeout_s` limits the wait for a request, and for the end of its headers."""

    __slots__ = ()

    def __init__(self, server: web.Server, idle_timeout_s: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=idle_timeout_s,
            access_log=None,  # type: ignore[arg-type]  # None is how it is turned off
            max_line_size=LINE_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            lingering_time=LINGER_S,
            auto_decompress=False,  # the caller is not authenticated yet; `bodies` decompresses
        )

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends a response; an error that aiohttp made before any middleware ran is turned into JSON."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = error_response(resp.status, "malformed", f"the request was rejected: {_first_line(resp.text)}")
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response to a request that aiohttp rejects or fails on; closes the connection."""
        if status >= 500:
            log.error("http_connection_failed", exc_info=exc)
            response = error_response(500, "internal", "the request failed inside inferd; the worker's log says why")
        elif isinstance(exc, LineTooLong):
            response = error_response(431, "too_large", "the request line or a header is too long")
        else:
            response = error_response(status, "malformed", f"this is not a valid HTTP request: {_first_line(message)}")
        response.force_close()
        return response


def _first_line(message: str | None) -> str:
    lines = (message or "").splitlines()
    return printable(lines[0], 200) if lines else "it cannot be parsed"

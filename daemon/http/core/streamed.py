"""Streamed responses: sent completely, or aborted so that the client sees that the body is incomplete."""

from __future__ import annotations

from collections.abc import AsyncIterator

import structlog
from aiohttp import web

log = structlog.get_logger(__name__)


async def send_streamed(
    request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Sends `pieces` as the body of `response`, at the client's pace.

    An error before the first piece is raised and becomes an error response. A later error aborts the connection, so
    that the client sees an incomplete body.
    """
    first = await anext(pieces, b"")
    try:
        await response.prepare(request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
    except Exception as error:  # noqa: BLE001  # whatever it was, the client must see that the body is incomplete
        if request.transport is not None and not request.transport.is_closing():
            log.warning("http_response_aborted", path=request.path, reason=str(error) or type(error).__name__)
            request.transport.abort()
    return response

"""Answers that are sent as they are made: whole, or cut off so that nobody takes a part for the whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

import structlog
from aiohttp import web

log = structlog.get_logger(__name__)


async def send_streamed(
    request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Sends `pieces` as the body of `response`, waiting where the client is slow.

    What is wrong before the first piece is raised, while there still is a status to tell it with; later the connection
    is cut, which leaves the body without its end.
    """
    first = await anext(pieces, b"")
    try:
        await response.prepare(request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
    except Exception as error:  # noqa: BLE001  # whatever it was, the client must see that the body is not whole
        if request.transport is not None and not request.transport.is_closing():
            log.warning("http_answer_cut", path=request.path, reason=str(error) or type(error).__name__)
            request.transport.abort()
    return response

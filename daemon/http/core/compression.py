"""Compresses large JSON answers to GET requests, for clients that accept gzip.

Answers to predictions are left as they are: clients accept gzip by default, and time matters more.
"""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

COMPRESSED_FROM_BYTES = 8_192
IN_A_THREAD_FROM_BYTES = 131_072
"""Compression of more would delay other requests by some milliseconds."""


@web.middleware
async def compressed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's response, which is compressed when it is sent."""
    response = await handler(request)
    if (
        request.method == hdrs.METH_GET
        and isinstance(response, web.Response)
        and response.content_type == "application/json"
        and isinstance(response.body, bytes)
        and len(response.body) >= COMPRESSED_FROM_BYTES
    ):
        response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
        if accepts_gzip(request.headers.getall(hdrs.ACCEPT_ENCODING, [])):
            response.enable_compression(web.ContentCoding.gzip)
            response._zlib_executor_size = IN_A_THREAD_FROM_BYTES  # noqa: SLF001  (an option of the constructor only)
    return response


def accepts_gzip(headers: list[str]) -> bool:
    """Whether `accept-encoding` names gzip, other than with a weight of 0 (RFC 9110)."""
    for part in ",".join(headers).lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "").removeprefix("q=").strip("0.") != "" or not weight
    return False

"""Bodies of requests: their type, and their bytes within bounds of size and time, compressed or not.

aiohttp expands gzip and deflate piece by piece as they are read, so that the size is bounded before it is allocated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from daemon.http.errors import RequestTimeoutError
from daemon.printable import printable
from schemas.errors import InvalidHeaderError, MalformedError, TooLargeError, UnsupportedContentTypeError
from schemas.headers import CONTENT_TYPES, Encoding, parse_content_type

CONTENT_ENCODINGS = ("", "identity", "gzip", "deflate")
T = TypeVar("T")
BROKEN = (web.RequestPayloadError, HttpProcessingError, RuntimeError, ValueError)
"""What aiohttp raises for bodies that are cut off, do not expand, or are no forms."""
BYTES_PER_S_MIN = 65_536
"""How fast a body must come once the time for its start is over."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bounds of one body."""

    bytes_max: int
    """Expanded, where it is compressed."""
    timeout_s: float
    """For all of it, and a second more for each `BYTES_PER_S_MIN` that came."""
    each_read: bool = False
    """The time is for each read instead: of a body that is worked on as it comes, whose client may have to wait."""


def encoding_of(request: web.Request) -> Encoding:
    """The encoding that the content-type names; `UnsupportedContentTypeError` where it is none or none of ours."""
    given = request.headers.getall(hdrs.CONTENT_TYPE, [])
    if len(given) > 1:
        raise InvalidHeaderError("header content-type: it comes twice")
    if not given:
        raise UnsupportedContentTypeError(f"header content-type is missing; there are {', '.join(CONTENT_TYPES)}")
    known = CONTENT_TYPES.get(given[0])
    return known or parse_content_type(given[0].encode("utf-8", "surrogateescape"))


async def read_body(request: web.Request, limits: BodyLimits) -> bytes:
    """The whole body; raises what `Intake` does."""
    intake, content = Intake(request, limits), request.content
    if content.is_eof() and content.exception() is None:  # small ones have come with their headers
        body = content.read_nowait()
        intake.count(body)
        return body
    pieces = []
    while piece := await intake.within(content.readany()):
        intake.count(piece)
        pieces.append(piece)
    return b"".join(pieces)


class Intake:
    """Holds what is read of a body to its bounds.

    Raises `TooLargeError` as soon as it is, `RequestTimeoutError` where it comes too slowly, `MalformedError` where it
    is not what its headers say, `UnsupportedContentTypeError` where it is compressed in a way that is not known here.
    """

    def __init__(self, request: web.Request, limits: BodyLimits) -> None:
        _check_content_encoding(request)
        if request.content_length is not None and request.content_length > limits.bytes_max:
            raise _too_large(limits.bytes_max)
        self._bytes_max, self._size = limits.bytes_max, 0
        self._timeout_s, self._each_read = limits.timeout_s, limits.each_read
        self._deadline = asyncio.get_running_loop().time() + limits.timeout_s

    def count(self, piece: bytes) -> None:
        """Another piece was read."""
        self._size += len(piece)
        if self._size > self._bytes_max:
            raise _too_large(self._bytes_max)

    async def within(self, read: Awaitable[T]) -> T:
        """What `read` gives, if it comes in time."""
        try:
            async with asyncio.timeout_at(self._until()):
                return await read
        except TimeoutError:
            raise RequestTimeoutError(
                "the body came too slowly: it is to be there within INFERD_HTTP_READ_TIMEOUT_S, or to bring"
                f" {BYTES_PER_S_MIN} bytes a second"
            ) from None
        except BROKEN as error:
            raise MalformedError(f"body: it is not what its headers say: {_reason(error)}") from None

    def _until(self) -> float:
        if self._each_read:
            return asyncio.get_running_loop().time() + self._timeout_s
        return self._deadline + self._size / BYTES_PER_S_MIN


def _check_content_encoding(request: web.Request) -> None:
    named = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if named not in CONTENT_ENCODINGS:
        raise UnsupportedContentTypeError(f"header content-encoding: {named[:80]!r}; there are gzip and deflate")


def _too_large(bytes_max: int) -> TooLargeError:
    return TooLargeError(f"body: it has more than the {bytes_max} bytes that are allowed")


def _reason(error: BaseException) -> str:
    return printable(str(error.__cause__ or error), 200) or "it is broken off"

"""Bodies of requests: their type, and their bytes within bounds of size and time, compressed or not.

Nothing is read or expanded before a route asks for it, which is after the caller's token was checked.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import ClientError, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from inferd.daemon.http.core.errors import ClientClosedError, RequestTimeoutError, is_closed
from inferd.daemon.http.core.expansion import CODINGS, IDENTITY, Expansion
from inferd.daemon.printable import printable
from inferd.schemas.errors import (
    InvalidHeaderError,
    MalformedError,
    TooLargeError,
    UnsupportedContentTypeError,
)
from inferd.schemas.headers import CONTENT_TYPES, Encoding, parse_content_type

T = TypeVar("T")
BROKEN = (web.RequestPayloadError, HttpProcessingError, ClientError, OSError, RuntimeError, ValueError)
"""What aiohttp raises for bodies that are cut off, are not chunked as they say, or are no forms."""
BYTES_PER_S_MIN = 65_536


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bounds of one body."""

    bytes_max: int
    """As received, and expanded where it is compressed."""
    timeout_s: float
    """How long the client may keep the server waiting, and a second more for each `bytes_per_s_min` received."""
    bytes_per_s_min: int = BYTES_PER_S_MIN


def encoding_of(request: web.Request) -> Encoding:
    """The encoding that the content-type names; `UnsupportedContentTypeError` where it is none or none of ours."""
    given = request.headers.getall(hdrs.CONTENT_TYPE, [])
    if len(given) > 1:
        raise InvalidHeaderError("header content-type: it comes twice")
    if not given:
        raise UnsupportedContentTypeError(f"header content-type is missing; there are {', '.join(CONTENT_TYPES)}")
    known = CONTENT_TYPES.get(given[0])
    return known or parse_content_type(given[0].encode("utf-8", "surrogateescape"))


def content_coding(request: web.Request) -> str:
    """The coding that the body is compressed with, `identity` for none.

    `UnsupportedContentTypeError` for one that is not known here, and for several, which would be nested.
    """
    given = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, []))
    named = [coding for part in given.split(",") if (coding := part.strip().lower())]
    coding = named[0] if named else IDENTITY
    if len(named) > 1 or coding not in CODINGS:
        raise UnsupportedContentTypeError(
            f"header content-encoding: {printable(given, 80)!r}; a body is compressed once, with gzip or deflate"
        )
    return coding


async def read_body(request: web.Request, limits: BodyLimits) -> bytes:
    """The whole body; raises what `Intake` does."""
    intake, content = Intake(request, limits), request.content
    if not intake.compressed and content.is_eof() and content.exception() is None:
        body = content.read_nowait()  # small ones have come with their headers
        intake.count(body)
        return body
    return b"".join([piece async for piece in intake.pieces()])


class Intake:
    """Holds what is read of a body to its bounds.

    Raises `TooLargeError` as soon as it is, `RequestTimeoutError` where the client is too slow, `MalformedError` where
    the body is not what its headers say, `UnsupportedContentTypeError` where its coding is not known here,
    `ClientClosedError` where the client hung up.
    """

    def __init__(self, request: web.Request, limits: BodyLimits) -> None:
        coding = content_coding(request)
        if request.content_length is not None and request.content_length > limits.bytes_max:
            raise _too_large(limits.bytes_max)
        self.compressed = coding != IDENTITY
        self._expansion = Expansion(coding)
        self._request, self._limits = request, limits
        self._size = self._received = 0
        self._waited_s = 0.0

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, expanded."""
        read = self._request.content.readany
        while piece := await self.within(read()):
            self.receive(piece)
            if not self.compressed:
                self.count(piece)
                yield piece
                continue
            async for expanded in self._expanded(piece):
                self.count(expanded)
                yield expanded
        if self.compressed:
            self._finish()

    def count(self, piece: bytes) -> None:
        """Another piece was read, or made by expanding what was read."""
        self._size += len(piece)
        if self._size > self._limits.bytes_max:
            raise _too_large(self._limits.bytes_max)

    def receive(self, piece: bytes) -> None:
        """Another piece came from the client: it has more time, and no more bytes than the limit."""
        self._received += len(piece)
        if self._received > self._limits.bytes_max:
            raise _too_large(self._limits.bytes_max)

    async def within(self, read: Awaitable[T]) -> T:
        """What `read` gives, if it comes in time; only the time that is spent here counts, not the server's own."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        allowed_s = self._limits.timeout_s + self._received / self._limits.bytes_per_s_min
        try:
            async with asyncio.timeout_at(started + allowed_s - self._waited_s):
                return await read
        except TimeoutError:
            raise RequestTimeoutError(
                "the body came too slowly: it must be complete within INFERD_HTTP_READ_TIMEOUT_S, or bring"
                f" {self._limits.bytes_per_s_min} bytes a second (INFERD_HTTP_READ_BYTES_PER_S_MIN)"
            ) from None
        except BROKEN as error:
            if is_closed(self._request):
                raise ClientClosedError("the client closed the connection before the body was complete") from None
            raise _broken(error) from None
        finally:
            self._waited_s += loop.time() - started

    async def _expanded(self, piece: bytes) -> AsyncIterator[bytes]:
        try:
            async for step in self._expansion.expand(piece):
                yield step
        except zlib.error as error:
            raise _broken(error) from None

    def _finish(self) -> None:
        try:
            self._expansion.finish()
        except zlib.error as error:
            raise _broken(error) from None


def _too_large(bytes_max: int) -> TooLargeError:
    return TooLargeError(f"body: it has more than the {bytes_max} bytes that are allowed")


def _broken(error: BaseException) -> MalformedError:
    reason = printable(str(error.__cause__ or error), 200) or "it is broken off"
    return MalformedError(f"body: it is not what its headers say: {reason}")

"""Reads request bodies, compressed or not, within limits of size and time.

A body is read only when its route asks for it, that is, after authentication.
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
from inferd.schemas.codecs import Codec, codec_of, content_types
from inferd.schemas.errors import (
    InvalidHeaderError,
    MalformedError,
    TooLargeError,
    UnsupportedContentTypeError,
)
from inferd.schemas.headers import parse_content_type

T = TypeVar("T")
BODY_ERRORS = (web.RequestPayloadError, HttpProcessingError, ClientError, OSError, RuntimeError, ValueError)
"""Raised by aiohttp for bodies that are truncated, wrongly chunked, or no valid form."""
BYTES_PER_S_MIN = 65_536


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Limits of one body."""

    bytes_max: int
    """Applies to the bytes received and, for a compressed body, also to the decompressed bytes."""
    timeout_s: float
    """Time spent waiting for the client; each `bytes_per_s_min` bytes received add a second."""
    bytes_per_s_min: int = BYTES_PER_S_MIN


def codec_of_request(request: web.Request) -> Codec:
    """The codec named by the content-type; raises `UnsupportedContentTypeError` if it is missing or unsupported."""
    given = request.headers.getall(hdrs.CONTENT_TYPE, [])
    if len(given) > 1:
        raise InvalidHeaderError("header content-type: it is given more than once")
    if not given:
        raise UnsupportedContentTypeError(f"header content-type is missing; supported: {', '.join(content_types())}")
    return codec_of(given[0]) or parse_content_type(given[0].encode("utf-8", "surrogateescape"))


def content_coding(request: web.Request) -> str:
    """The content coding of the body; `identity` if it is not compressed.

    Raises `UnsupportedContentTypeError` for an unknown coding, and for several (nested) codings.
    """
    given = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, []))
    named = [coding for part in given.split(",") if (coding := part.strip().lower())]
    coding = named[0] if named else IDENTITY
    if len(named) > 1 or coding not in CODINGS:
        raise UnsupportedContentTypeError(
            f"header content-encoding: {printable(given, 80)!r} is not supported; use gzip or deflate, once"
        )
    return coding


async def read_body(request: web.Request, limits: BodyLimits) -> bytes:
    """The whole body; raises the errors of `BodyReader`."""
    reader, content = BodyReader(request, limits), request.content
    if not reader.compressed and content.is_eof() and content.exception() is None:
        body = content.read_nowait()  # a small body arrives together with the headers
        reader.count(body)
        return body
    return b"".join([piece async for piece in reader.pieces()])


class BodyReader:
    """Reads a body piece by piece and enforces its limits.

    Raises `TooLargeError` once the limit is exceeded, `RequestTimeoutError` if the client is too slow,
    `MalformedError` if the body contradicts its headers, `UnsupportedContentTypeError` for an unknown content coding,
    and `ClientClosedError` if the client closed the connection.
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
        """The body as it arrives, decompressed."""
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
        """Counts the (decompressed) bytes of a piece against the limit."""
        self._size += len(piece)
        if self._size > self._limits.bytes_max:
            raise _too_large(self._limits.bytes_max)

    def receive(self, piece: bytes) -> None:
        """Counts bytes received from the client: against the limit, and as time earned."""
        self._received += len(piece)
        if self._received > self._limits.bytes_max:
            raise _too_large(self._limits.bytes_max)

    async def within(self, read: Awaitable[T]) -> T:
        """Awaits `read` within the time limit. Only time spent here counts, not time in which the server is busy."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        allowed_s = self._limits.timeout_s + self._received / self._limits.bytes_per_s_min
        try:
            async with asyncio.timeout_at(started + allowed_s - self._waited_s):
                return await read
        except TimeoutError:
            raise RequestTimeoutError(
                "the body arrived too slowly: send it within INFERD_HTTP_READ_TIMEOUT_S, or at"
                f" {self._limits.bytes_per_s_min} bytes per second (INFERD_HTTP_READ_BYTES_PER_S_MIN)"
            ) from None
        except BODY_ERRORS as error:
            if is_closed(self._request):
                raise ClientClosedError("the client closed the connection before the body was complete") from None
            raise _malformed(error) from None
        finally:
            self._waited_s += loop.time() - started

    async def _expanded(self, piece: bytes) -> AsyncIterator[bytes]:
        try:
            async for step in self._expansion.expand(piece):
                yield step
        except zlib.error as error:
            raise _malformed(error) from None

    def _finish(self) -> None:
        try:
            self._expansion.finish()
        except zlib.error as error:
            raise _malformed(error) from None


def _too_large(bytes_max: int) -> TooLargeError:
    return TooLargeError(f"body: it exceeds the limit of {bytes_max} bytes")


def _malformed(error: BaseException) -> MalformedError:
    reason = printable(str(error.__cause__ or error), 200) or "it is truncated"
    return MalformedError(f"body: it does not match its headers: {reason}")

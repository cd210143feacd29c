"""Decompresses bodies (RFC 9110, content codings) in bounded steps, in a thread pool.

The event loop never decompresses; the caller checks its size limit after each step.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

IDENTITY: Final = "identity"
CODINGS: Final = (IDENTITY, "gzip", "x-gzip", "deflate")
STEP_BYTES = 262_144
"""Most bytes that one step produces."""
_GZIP_WBITS, _ZLIB_METHOD = zlib.MAX_WBITS + 16, 8
_THREADS = ThreadPoolExecutor(2, thread_name_prefix="inferd-expand")


class Expansion:
    """Decompresses one body of a coding other than `identity`; raises `zlib.error` for invalid data."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding.endswith("gzip")
        self._member: zlib._Decompress | None = None
        self._rest = b""

    async def expand(self, piece: bytes) -> AsyncIterator[bytes]:
        """The decompressed bytes of `piece`, in steps of at most `STEP_BYTES`."""
        self._rest = piece
        step = piece
        while self._rest or len(step) == STEP_BYTES:
            step = await asyncio.get_running_loop().run_in_executor(_THREADS, self._step)
            if step:
                yield step

    def finish(self) -> None:
        """Ends the body; raises `zlib.error` if it is truncated."""
        if self._member is not None and not self._member.eof:
            raise zlib.error("it is truncated")

    def _step(self) -> bytes:
        step = b""
        while self._rest and not step:
            if self._member is None or self._member.eof:
                self._member = self._begin()
            step = self._member.decompress(self._rest, STEP_BYTES)
            self._rest = self._member.unused_data or self._member.unconsumed_tail
        return step or self._pending()

    def _pending(self) -> bytes:
        """Output that the decompressor still holds after a full step."""
        return b"" if self._member is None or self._member.eof else self._member.decompress(b"", STEP_BYTES)

    def _begin(self) -> zlib._Decompress:
        """A gzip body may have several members. A deflate body is one stream, with a zlib header or, from some
        clients, without."""
        if self._gzip:
            return zlib.decompressobj(_GZIP_WBITS)
        if self._member is not None:
            raise zlib.error("it has trailing bytes")
        return zlib.decompressobj(zlib.MAX_WBITS if self._rest[0] & 0x0F == _ZLIB_METHOD else -zlib.MAX_WBITS)

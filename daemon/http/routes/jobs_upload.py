"""Rows of a job as NDJSON: lines become messages as they come, so that a body of any size takes bounded memory.

What goes into which message depends on the lines alone: the same upload again makes the same messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import msgspec
from aiohttp import web

from inferd.daemon.http.core import LIMITS, Intake
from inferd.schemas.errors import (
    InvalidValueError,
    MalformedError,
    TooDeepError,
    TooLargeError,
)
from inferd.schemas.limits import Limits
from inferd.schemas.strict import (
    BYTE_ORDER_MARK,
    DECODE_ERRORS,
    NESTING_MAX,
    check_nesting,
    nested_deeper,
    printable,
    rows_of_line,
)

ROWS_BYTES_MAX = 900_000
"""Of one message: with what is around them they stay below Kafka's default `max.message.bytes`."""
AROUND_BYTES = 1_024
"""What is around the rows of a message, at most."""
BLOCK_ROWS = 1_024
"""A chunk has as many rows by default: messages of whole blocks are cut without remains."""
_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_row = msgspec.json.Decoder(msgspec.Raw).decode


class LinePacker:
    """Lines -> `rows` messages (JSON); the rows travel as they were written, and are looked into when scored."""

    def __init__(self, limits: Limits, block_rows: int = BLOCK_ROWS) -> None:
        self._bytes_max = max(1, min(ROWS_BYTES_MAX, limits.message_bytes_max - AROUND_BYTES))
        self._rows_max = limits.job_message_rows_max
        self._block_rows = block_rows
        self._lines: list[bytes] = []
        self._numbers: list[int] = []
        """Of the lines in the body, from 1."""
        self._size = 0
        self._line = 0
        self._seq = 0

    def add(self, line: bytes) -> Iterator[bytes]:
        """The message that another line makes full: a row, or an array of rows. Empty lines are passed over.

        `InvalidValueError` naming the line that is no JSON array or object, `TooLargeError` for one that finds no room.
        """
        self._line += 1
        text = line.removeprefix(BYTE_ORDER_MARK).strip() if self._line == 1 else line.strip()
        if not text:
            return
        self._check_room(len(text))
        for row in self._rows_of(text):
            yield from self._add(row)

    def _rows_of(self, text: bytes) -> list[bytes]:
        try:
            return rows_of_line(text)
        except MalformedError as error:
            raise InvalidValueError(f"line {self._line}: {error.message}") from None
        except TooDeepError as error:
            raise TooDeepError(f"line {self._line}: {error.message}") from None

    def _add(self, row: bytes) -> Iterator[bytes]:
        while self._lines and (self._size + len(row) + 1 > self._bytes_max or len(self._lines) == self._rows_max):
            yield self._message(self._whole_blocks())
        self._lines.append(row)
        self._numbers.append(self._line)
        self._size += len(row) + 1

    def wait_for(self, begun: bytes) -> None:
        """`TooLargeError` where a line that has only begun finds no room already."""
        self._check_room(len(begun), 1)

    def finish(self) -> Iterator[bytes]:
        """The last message, where rows are left."""
        if self._lines:
            yield self._message(len(self._lines))

    def _check_room(self, size: int, further: int = 0) -> None:
        if size > self._bytes_max:
            raise TooLargeError(f"line {self._line + further}: a row of more than {self._bytes_max} bytes")

    def _whole_blocks(self) -> int:
        count = len(self._lines)
        return count - count % self._block_rows or count

    def _message(self, count: int) -> bytes:
        lines, self._lines = self._lines[:count], self._lines[count:]
        numbers, self._numbers = self._numbers[:count], self._numbers[count:]
        self._size = sum(map(len, self._lines)) + len(self._lines)
        batch = b"[" + b",".join(lines) + b"]"
        _check_lines(batch, lines, numbers)
        seq, self._seq = self._seq, self._seq + 1
        return b'{"type":"rows","seq":%d,"input_batch":%b}' % (seq, batch)


def body_pieces(request: web.Request, bytes_max: int) -> AsyncIterator[bytes]:
    """The body as it comes; raises what `Intake` does. What the worker makes the client wait counts for nothing."""
    return Intake(request, request.app[LIMITS].of_bytes(bytes_max)).pieces()


async def row_messages(pieces: AsyncIterator[bytes], packer: LinePacker) -> AsyncIterator[bytes]:
    """The messages of a body; raises what `packer` does."""
    begun = b""
    async for piece in pieces:
        *lines, begun = (begun + piece).split(b"\n")
        for line in lines:
            for message in packer.add(line):
                yield message
        packer.wait_for(begun)
    for message in (*packer.add(begun), *packer.finish()):
        yield message


def _check_lines(batch: bytes, lines: list[bytes], numbers: list[int]) -> None:
    """All at once first; one by one, to say which, where that fails."""
    try:
        whole = list(map(bytes, _rows(batch))) == lines
    except DECODE_ERRORS:
        whole = False
    if whole and all(line[0] in b"[{" for line in lines) and not nested_deeper(batch, "json", NESTING_MAX):
        return
    for line, number in zip(lines, numbers, strict=True):
        _check_line(line, number)


def _check_line(line: bytes, number: int) -> None:
    check_nesting(line, "json", f"line {number}")
    try:
        _row(line)
    except DECODE_ERRORS as error:
        raise InvalidValueError(f"line {number} is no JSON: {printable(str(error))}") from None
    if line[0] not in b"[{":
        raise InvalidValueError(f"line {number}: expected a row, which is a JSON array or object")

"""Packs NDJSON rows of an upload into job messages as they arrive; memory is bounded for a body of any size.

The packing depends on the lines alone: a repeated upload makes the same messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import msgspec
from aiohttp import web

from inferd.daemon.http.core import LIMITS, BodyReader
from inferd.schemas.codecs import (
    BYTE_ORDER_MARK,
    DECODE_ERRORS,
    JSON,
    NESTING_MAX,
    check_nesting,
    printable,
    rows_of_line,
)
from inferd.schemas.errors import (
    InvalidValueError,
    MalformedError,
    TooDeepError,
    TooLargeError,
)
from inferd.schemas.limits import Limits

ROWS_BYTES_MAX = 900_000
"""Rows of one message: with the envelope it stays below Kafka's default `max.message.bytes`."""
ENVELOPE_BYTES = 1_024
"""Most bytes of a message besides its rows."""
BLOCK_ROWS = 1_024
"""The default rows per chunk: messages of whole blocks are cut into chunks without remainders."""
_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_row = msgspec.json.Decoder(msgspec.Raw).decode


class LinePacker:
    """Packs lines into `rows` messages (JSON). Rows keep their bytes and are validated when they are scored."""

    def __init__(self, limits: Limits, block_rows: int = BLOCK_ROWS) -> None:
        self._bytes_max = max(1, min(ROWS_BYTES_MAX, limits.message_bytes_max - ENVELOPE_BYTES))
        self._rows_max = limits.job_message_rows_max
        self._block_rows = block_rows
        self._lines: list[bytes] = []
        self._numbers: list[int] = []
        """Line number of each row, from 1."""
        self._size = 0
        self._line_number = 0
        self._seq = 0

    def add(self, line: bytes) -> Iterator[bytes]:
        """Adds a line (a row, or an array of rows); yields the messages that it fills. Empty lines are ignored.

        Raises `InvalidValueError`, naming the line, if it is not a JSON array or object, and `TooLargeError` for a row
        that exceeds the size of a message.
        """
        self._line_number += 1
        text = line.removeprefix(BYTE_ORDER_MARK).strip() if self._line_number == 1 else line.strip()
        if not text:
            return
        self._check_size(len(text), self._line_number)
        for row in self._rows_of(text):
            yield from self._add(row)

    def _rows_of(self, text: bytes) -> list[bytes]:
        try:
            return rows_of_line(text)
        except MalformedError as error:
            raise InvalidValueError(f"line {self._line_number}: {error.message}") from None
        except TooDeepError as error:
            raise TooDeepError(f"line {self._line_number}: {error.message}") from None

    def _add(self, row: bytes) -> Iterator[bytes]:
        while self._lines and (self._size + len(row) + 1 > self._bytes_max or len(self._lines) == self._rows_max):
            yield self._message(self._whole_blocks())
        self._lines.append(row)
        self._numbers.append(self._line_number)
        self._size += len(row) + 1

    def check_partial(self, line: bytes) -> None:
        """Raises `TooLargeError` if an incomplete line is already too long."""
        self._check_size(len(line), self._line_number + 1)

    def finish(self) -> Iterator[bytes]:
        """The last message, if rows are left."""
        if self._lines:
            yield self._message(len(self._lines))

    def _check_size(self, size: int, line_number: int) -> None:
        if size > self._bytes_max:
            raise TooLargeError(f"line {line_number}: a row of more than {self._bytes_max} bytes")

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
    """The body as it arrives; raises the errors of `BodyReader`. Time in which the worker is busy does not count."""
    return BodyReader(request, request.app[LIMITS].of_bytes(bytes_max)).pieces()


async def row_messages(pieces: AsyncIterator[bytes], packer: LinePacker) -> AsyncIterator[bytes]:
    """The messages of a body; raises the errors of `packer`."""
    partial = b""
    async for piece in pieces:
        *lines, partial = (partial + piece).split(b"\n")
        for line in lines:
            for message in packer.add(line):
                yield message
        packer.check_partial(partial)
    for message in (*packer.add(partial), *packer.finish()):
        yield message


def _check_lines(batch: bytes, lines: list[bytes], numbers: list[int]) -> None:
    """Checks all lines at once; if that fails, one by one, to name the invalid one."""
    try:
        valid = list(map(bytes, _rows(batch))) == lines
    except DECODE_ERRORS:
        valid = False
    if valid and all(line[0] in b"[{" for line in lines) and not JSON.nested_deeper(batch, NESTING_MAX):
        return
    for line, number in zip(lines, numbers, strict=True):
        _check_line(line, number)


def _check_line(line: bytes, number: int) -> None:
    check_nesting(line, JSON, f"line {number}")
    try:
        _row(line)
    except DECODE_ERRORS as error:
        raise InvalidValueError(f"line {number} is not valid JSON: {printable(str(error))}") from None
    if line[0] not in b"[{":
        raise InvalidValueError(f"line {number}: expected a row (a JSON array or object)")

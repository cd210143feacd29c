"""Packs rows into messages of a job.

The messages are a function of the rows, so that submitting the same rows again produces the same messages, which
workers ignore as repeats.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from inferd.schemas.codecs import MSGPACK, Codec, array_header
from inferd.schemas.errors import InvalidValueError, TooLargeError
from inferd.schemas.limits import LARGEST_JOB_LIMITS
from inferd.schemas.requests import (
    frame_blocks,
    is_frame,
    is_row,
    plain_scalar,
    to_list,
    wire_input,
)

MESSAGE_BYTES_MAX = 900_000
"""Encoded rows per message. With the other fields a message stays below Kafka's default `max.message.bytes`."""
BLOCK_ROWS = 1_024
"""Rows per encoded block. Equal to the default rows of a chunk, so that messages split into whole chunks."""


@dataclass(frozen=True, slots=True)
class PackedRows:
    """The rows of one message, encoded: `data` is its `input_batch`."""

    count: int
    data: bytes
    codec: Codec = MSGPACK


@dataclass(frozen=True, slots=True)
class _Block:
    """Encoded rows without the brackets or the header of their array."""

    count: int
    body: bytes


class Packer:
    """Packs items of rows into messages.

    An item is a row (list, tuple, dict, one-dimensional array), a list of rows, a two-dimensional array, which is sent
    as a tensor, or `PackedRows`, which become a separate message.
    """

    def __init__(
        self,
        codec: Codec = MSGPACK,
        bytes_max: int = MESSAGE_BYTES_MAX,
        rows_max: int = 100_000,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        self.rows = 0
        """Rows added so far."""
        self._codec = codec
        self._bytes_max = bytes_max
        self._rows_max = rows_max
        self._block_rows = min(block_rows, rows_max)
        self._listed: list[Any] = []
        self._blocks: list[_Block] = []
        self._tensor = _Tensor(codec, bytes_max, rows_max, block_rows)

    def add(self, item: Any) -> Iterator[PackedRows]:
        """Add an item; yields the messages that are full. `InvalidValueError` for an item that is not rows,
        `TooLargeError` for a row that is larger than a message."""
        if isinstance(item, PackedRows):
            yield from self.finish()
            self.rows += item.count
            yield item
        elif self._codec.binary and (tensor := _tensor_of(item)) is not None:
            yield from self._finish_lists()
            if not self._tensor.takes(tensor):
                yield from self._tensor.finish()
            self.rows += tensor["shape"][0]
            yield from self._tensor.add(tensor)
        else:
            yield from self._tensor.finish()
            yield from self._add_rows(_rows_of(item))

    def finish(self) -> Iterator[PackedRows]:
        """The last message, if rows are left."""
        yield from self._tensor.finish()
        yield from self._finish_lists()

    def _add_rows(self, rows: list[Any]) -> Iterator[PackedRows]:
        start = 0
        while start < len(rows):
            taken = rows[start : start + self._block_rows - len(self._listed)]
            start += len(taken)
            self._listed += taken
            self.rows += len(taken)
            if len(self._listed) == self._block_rows:
                yield from self._add_block()

    def _add_block(self) -> Iterator[PackedRows]:
        rows, self._listed = self._listed, []
        for block in self._encoded(rows, self.rows - len(rows)):
            size = sum(len(each.body) + 1 for each in self._blocks) + len(block.body)
            count = sum(each.count for each in self._blocks) + block.count
            if size > self._bytes_max or count > self._rows_max:
                yield from self._message()
            self._blocks.append(block)

    def _encoded(self, rows: list[Any], first: int) -> Iterator[_Block]:
        """Encode rows, halved until each block fits in a message."""
        body = _body(rows, self._codec, first)
        if len(body) <= self._bytes_max:
            yield _Block(len(rows), body)
        elif len(rows) == 1:
            raise TooLargeError(f"row {first}: {len(body)} bytes; at most {self._bytes_max} are allowed in one message")
        else:
            half = len(rows) // 2
            yield from self._encoded(rows[:half], first)
            yield from self._encoded(rows[half:], first + half)

    def _finish_lists(self) -> Iterator[PackedRows]:
        if self._listed:
            yield from self._add_block()
        yield from self._message()

    def _message(self) -> Iterator[PackedRows]:
        blocks, self._blocks = self._blocks, []
        if not blocks:
            return
        count, bodies = sum(block.count for block in blocks), [block.body for block in blocks]
        yield PackedRows(count, self._codec.array(count, self._codec.separator.join(bodies)), self._codec)


class _Tensor:
    """Packs the rows of arrays into tensors with equal numbers of rows."""

    def __init__(self, codec: Codec, bytes_max: int, rows_max: int, block_rows: int) -> None:
        self._codec = codec
        self._bytes_max, self._rows_max, self._block_rows = bytes_max, rows_max, block_rows
        self._like: tuple[str, int] = ("", 0)
        self._stride = 1
        self._data = bytearray()

    def takes(self, tensor: dict[str, Any]) -> bool:
        return not self._data or self._like == (tensor["dtype"], tensor["shape"][1])

    def add(self, tensor: dict[str, Any]) -> Iterator[PackedRows]:
        rows, features = tensor["shape"]
        if not rows:
            return
        self._like, self._stride = (tensor["dtype"], features), max(len(tensor["data"]) // rows, 1)
        self._data += tensor["data"]
        most = self._message_rows() * self._stride
        while len(self._data) >= most:
            yield self._message(most)

    def finish(self) -> Iterator[PackedRows]:
        if self._data:
            yield self._message(len(self._data))

    def _message_rows(self) -> int:
        rows = min(self._bytes_max // self._stride, self._rows_max)
        if not rows:
            raise TooLargeError(f"rows of {self._stride} bytes; at most {self._bytes_max} are allowed in one message")
        return rows - rows % self._block_rows if rows > self._block_rows else rows

    def _message(self, size: int) -> PackedRows:
        data = bytes(self._data[:size])
        del self._data[:size]
        (dtype, features), count = self._like, size // self._stride
        encoded = self._codec.encode({"dtype": dtype, "shape": [count, features], "data": data})
        return PackedRows(count, encoded, self._codec)


def rows_message(seq: int, packed: PackedRows) -> bytes:
    """Encode message `seq` of a job; `TooLargeError` if `seq` exceeds the limit of every job."""
    if seq >= LARGEST_JOB_LIMITS.job_messages_max:
        raise TooLargeError(f"rows: more than {LARGEST_JOB_LIMITS.job_messages_max} messages: submit several jobs")
    fields = {"type": "rows", "seq": seq, "input_batch": msgspec.Raw(packed.data)}
    return packed.codec.encode(fields)


async def packed_rows(rows: Any, codec: Codec) -> AsyncGenerator[PackedRows, None]:
    """Pack rows, or an iterable or async iterable of rows or batches; `InvalidValueError` for anything else."""
    packer = Packer(codec)
    async for item in _items(rows):
        for message in packer.add(item):
            yield message
    for message in packer.finish():
        yield message


async def _items(rows: Any) -> AsyncGenerator[Any, None]:
    if isinstance(rows, AsyncIterable):
        async for item in rows:
            for part in _parts(item):
                yield part
    elif is_frame(rows):
        for block in frame_blocks(rows):
            yield block
    elif (isinstance(rows, list | tuple) and not _are_batches(rows)) or hasattr(rows, "tolist"):
        yield rows
    elif isinstance(rows, Iterable) and not isinstance(rows, str | bytes | dict):
        for item in rows:
            for part in _parts(item):
                yield part
    else:
        raise InvalidValueError(f"rows: {type(rows).__name__}, expected rows or an iterable of rows or batches of rows")


def _parts(item: Any) -> Iterable[Any]:
    return frame_blocks(item) if is_frame(item) else (item,)


def _are_batches(items: list[Any] | tuple[Any, ...]) -> bool:
    first = items[0] if items else None
    if is_frame(first) or getattr(first, "ndim", 1) == 2:
        return True
    return isinstance(first, list | tuple) and bool(first) and is_row(first[0])


def _tensor_of(item: Any) -> dict[str, Any] | None:
    """A two-dimensional array of numbers as a tensor; None for anything else."""
    if isinstance(item, list | tuple | dict) or getattr(item, "ndim", None) != 2:
        return None
    data = wire_input(item, MSGPACK)
    return data if isinstance(data, dict) else None


def _rows_of(item: Any) -> list[Any]:
    rows = to_list(item)
    if isinstance(rows, dict):
        return [rows]
    if not isinstance(rows, list | tuple):
        raise InvalidValueError(f"rows: {type(item).__name__} among them, expected a row, a list of rows or an array")
    return list(rows) if not rows or is_row(rows[0]) else [rows]


def _body(rows: list[Any], codec: Codec, first: int) -> bytes:
    """Encoded rows without brackets or header."""
    if codec is MSGPACK and (data := _fast(rows)) is not None:
        return data[len(array_header(len(rows))) :]
    try:
        wired = wire_input(rows, codec)
    except InvalidValueError as error:
        raise InvalidValueError(f"in rows {first} to {first + len(rows) - 1}: {error.message}") from None
    try:
        return codec.separator.join(map(codec.encode, wired))
    except (OverflowError, ValueError) as error:
        raise InvalidValueError(f"rows {first} to {first + len(rows) - 1} cannot be sent: {error}") from None


def _fast(rows: list[Any]) -> bytes | None:
    """The fast path of encoding rows; None if the slow path must find the error."""
    if not all(map(is_row, rows)):
        return None
    try:
        return _encoder.encode(rows)
    except (TypeError, OverflowError, ValueError, InvalidValueError):
        return None


def _plain(value: Any) -> Any:
    """Convert rows that are arrays or series, and scalars of numpy and pandas."""
    plain = to_list(value) if is_row(value) else plain_scalar(value)
    if plain is value:
        raise TypeError(type(value).__name__)
    return plain


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain, decimal_format="number")

"""The rows of a job message, counted and sliced without decoding their values.

The ends of rows are computed from their length if all are known to have the same; otherwise the decoder finds them. A
tensor is sliced by the bytes per row. An invalid value is found when its row is scored, and fails only that row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, MSGPACK, Codec, Decoders, check_nesting, decode_error
from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.schemas.requests import ITEM_BYTES, TensorRows, decode_input_data

_RAWS = Decoders(list[msgspec.Raw])
_ROWS = "input_batch: expected rows ([[n, …], …] or [{feature: value}, …]) or a tensor"


class RowBatch(msgspec.Struct, frozen=True):
    """Encoded rows that can be sliced. Row i ends at `ends[i]` in `body`, or at (i + 1) x `stride` without `ends`.

    `tensor` is the dtype and the number of features if `body` is the data of a tensor.
    """

    codec: Codec
    """That of the result of `cut`."""
    count: int
    digest: int
    """64-bit hash of the message's `input_batch`, if read by `hashed_row_batch`; else 0."""
    n_bytes: int
    body: bytes
    stride: int = 0
    ends: Sequence[int] = ()
    tensor: tuple[str, int] | None = None

    def cut(self, start: int, stop: int) -> bytes:
        """Rows `start` to `stop` (exclusive) as an encoded array or tensor."""
        if self.tensor is not None:
            dtype, features = self.tensor
            data = self.body[start * self.stride : stop * self.stride]
            return msgspec.msgpack.encode({"dtype": dtype, "shape": [stop - start, features], "data": data})
        return self.codec.array(stop - start, self.body[self._begin(start) : self._end(stop)])

    def pick(self, indexes: Sequence[int]) -> bytes:
        """The rows at `indexes` as an encoded array or tensor."""
        if self.tensor is not None:
            dtype, features = self.tensor
            data = b"".join(self.body[index * self.stride : (index + 1) * self.stride] for index in indexes)
            return msgspec.msgpack.encode({"dtype": dtype, "shape": [len(indexes), features], "data": data})
        rows = self.rows()
        return self.codec.join([rows[index] for index in indexes])

    def rows(self) -> list[bytes]:
        """The encoded rows. Not for tensors."""
        return [self.body[self._begin(row) : self._end(row + 1)] for row in range(self.count)]

    def _begin(self, row: int) -> int:
        """The start of a row in `body`; each row but the first includes the separator in front of it."""
        return self._end(row) + len(self.codec.separator) if row else 0

    def _end(self, rows: int) -> int:
        """The end of the first `rows` rows in `body`."""
        if self.stride:
            return rows * self.stride
        return self.ends[rows - 1] if rows else 0


def row_batch(raw: bytes | msgspec.Raw, codec: Codec, limits: Limits) -> RowBatch:
    """The rows in `raw`, the `input_batch` of a message.

    `MalformedError` if it is neither an array of rows nor a tensor, or its rows cannot be told apart; `TooLargeError`
    for more rows than `job_message_rows_max`; for a tensor the errors of `decode_input_data`.
    """
    data = bytes(raw)
    kind, first = codec.kinds(data)
    if kind == "map":
        return _tensor(data, codec, limits)
    if kind != "array":
        raise MalformedError(_ROWS)
    if (claimed := codec.claimed_length(data)) is not None:
        _check_count(claimed, limits)
        if stride := codec.row_stride(data):
            return RowBatch(codec, claimed, 0, len(data), data[len(data) - claimed * stride :], stride)
    rows = _cut(data, codec, limits)
    _check_count(len(rows), limits)
    if rows and first == "scalar":
        raise MalformedError(_ROWS)
    separator = len(codec.separator)
    ends = list(accumulate(len(row) + separator * (index > 0) for index, row in enumerate(rows)))
    return RowBatch(codec, len(rows), 0, len(data), codec.separator.join(map(bytes, rows)), ends=ends)


def hashed_row_batch(raw: bytes | msgspec.Raw, codec: Codec, limits: Limits) -> RowBatch:
    """Like `row_batch`, with the digest. Scoring does without: hashing takes a third of the time of reading a chunk."""
    digest = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")
    return msgspec.structs.replace(row_batch(raw, codec, limits), digest=digest)


def _cut(data: bytes, codec: Codec, limits: Limits) -> list[msgspec.Raw]:
    check_nesting(data, codec, "input_batch")
    try:
        rows: list[msgspec.Raw] = _RAWS[codec](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, "input_batch", limits.depth_max, depth=1) from None
    return rows


def _tensor(data: bytes, codec: Codec, limits: Limits) -> RowBatch:
    tensor = decode_input_data(data, codec, job_message_limits(limits))
    if not isinstance(tensor, TensorRows):
        raise MalformedError(f"{_ROWS}, got a single row")
    rows, features = tensor.shape
    stride = ITEM_BYTES[tensor.dtype] * features
    return RowBatch(MSGPACK, rows, 0, len(data), tensor.data, stride, tensor=(tensor.dtype, features))


@lru_cache(maxsize=8)
def job_message_limits(limits: Limits) -> Limits:
    """`limits` for decoding the rows of a job message instead of those of a request."""
    return replace(limits, rows_max=limits.job_message_rows_max, values_max=limits.message_bytes_max)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.job_message_rows_max:
        raise TooLargeError(
            f"input_batch: {count} rows; at most {limits.job_message_rows_max} are allowed in one message of a job"
        )

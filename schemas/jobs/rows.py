"""The rows of a job message, counted and sliced without decoding their values.

The ends of rows are computed from their length if all rows have the same number of float64 values; otherwise msgspec
finds them. A tensor is sliced by the bytes per row. An invalid value is found when its row is scored, and fails only
that row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import msgspec

from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.schemas.headers import Encoding
from inferd.schemas.limits import Limits
from inferd.schemas.requests import ITEM_BYTES, TensorRows, decode_input_data
from inferd.schemas.strict import DECODE_ERRORS, check_nesting, decode_error, header

_raws = {
    "msgpack": msgspec.msgpack.Decoder(list[msgspec.Raw]).decode,
    "json": msgspec.json.Decoder(list[msgspec.Raw]).decode,
}
_FLOAT64_MARKER = 0xCB
_FLOAT64_BYTES = 9
_FEATURES_A_ROW = 8
"""Maximum features per row of the batch for the fast path: with fewer, wider rows msgspec is faster."""
_ROWS = "input_batch: expected rows ([[n, …], …] or [{feature: value}, …]) or a tensor"


class RowBatch(msgspec.Struct, frozen=True):
    """Encoded rows that can be sliced. Row i ends at `ends[i]` in `body`, or at (i + 1) x `stride` without `ends`.

    `tensor` is the dtype and the number of features if `body` is the data of a tensor.
    """

    encoding: Encoding
    """Encoding of the result of `cut`."""
    count: int
    digest: int
    """64-bit hash of the message's `input_batch`."""
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
        if self.encoding == "json":
            rows = self.body[self._end(start) + (start > 0) : self._end(stop)] if stop > start else b""
            return b"[" + rows + b"]"
        return array_header(stop - start) + self.body[self._end(start) : self._end(stop)]

    def pick(self, indexes: Sequence[int]) -> bytes:
        """The rows at `indexes` as an encoded array or tensor."""
        if self.tensor is not None:
            dtype, features = self.tensor
            data = b"".join(self.body[index * self.stride : (index + 1) * self.stride] for index in indexes)
            return msgspec.msgpack.encode({"dtype": dtype, "shape": [len(indexes), features], "data": data})
        rows = self.rows()
        return encode_array([rows[index] for index in indexes], self.encoding)

    def rows(self) -> list[bytes]:
        """The encoded rows. Not for tensors."""
        ends = [self._end(row) for row in range(self.count + 1)]
        comma = int(self.encoding == "json")
        return [self.body[begin + comma * (begin > 0) : end] for begin, end in pairwise(ends)]

    def _end(self, rows: int) -> int:
        """The end of the first `rows` rows in `body`."""
        if self.stride:
            return rows * self.stride
        return self.ends[rows - 1] if rows else 0


def array_header(count: int) -> bytes:
    """The shortest MessagePack header of an array of `count` values."""
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2, "big") if count < 65_536 else b"\xdd" + count.to_bytes(4, "big")


def encode_array(rows: Sequence[bytes], encoding: Encoding) -> bytes:
    """An encoded array of encoded values."""
    return b"[" + b",".join(rows) + b"]" if encoding == "json" else array_header(len(rows)) + b"".join(rows)


def row_batch(raw: bytes | msgspec.Raw, encoding: Encoding, limits: Limits) -> RowBatch:
    """The rows in `raw`, the `input_batch` of a message.

    `MalformedError` if it is neither an array of rows nor a tensor, or its rows cannot be told apart; `TooLargeError`
    for more rows than `job_message_rows_max`; for a tensor the errors of `decode_input_data`.
    """
    data = bytes(raw)
    digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
    first = data.lstrip()[:1] if encoding == "json" else b""
    kind = {b"[": "array", b"{": "map"}.get(first, "") if encoding == "json" else header(data)[0]
    if kind == "map":
        return _tensor(data, encoding, digest, limits)
    if kind != "array":
        raise MalformedError(_ROWS)
    return _msgpack_rows(data, digest, limits) if encoding == "msgpack" else _json_rows(data, digest, limits)


def row_stride(data: bytes | memoryview, count: int, body: int) -> int:
    """Bytes per row of the `count` MessagePack rows in `data[body:]` if all are arrays of the same number of float64;
    else 0."""
    kind, features, start = header(data, body)
    lead = start - body
    stride = lead + _FLOAT64_BYTES * features
    if kind != "array" or len(data) - body != count * stride or features > _FEATURES_A_ROW * count:
        return 0
    marks = range(body + lead, body + stride, _FLOAT64_BYTES)
    expected = bytes([_FLOAT64_MARKER]) * count
    same_lead = all(bytes(data[at::stride]) == bytes([data[at]]) * count for at in range(body, start))
    return stride if same_lead and all(bytes(data[at::stride]) == expected for at in marks) else 0


def _msgpack_rows(data: bytes, digest: int, limits: Limits) -> RowBatch:
    _, count, body = header(data)
    _check_count(count, limits)
    if count and (stride := row_stride(data, count, body)):
        return RowBatch("msgpack", count, digest, len(data), data[body:], stride)
    rows = _cut(data, "msgpack", limits)
    if rows and header(bytes(rows[0]))[0] not in ("array", "map"):
        raise MalformedError(_ROWS)
    return RowBatch("msgpack", count, digest, len(data), data[body:], ends=list(accumulate(map(len, rows))))


def _json_rows(data: bytes, digest: int, limits: Limits) -> RowBatch:
    rows = _cut(data, "json", limits)
    _check_count(len(rows), limits)
    if rows and bytes(rows[0])[:1] not in (b"[", b"{"):
        raise MalformedError(_ROWS)
    body = b",".join(map(bytes, rows))
    # Each row but the first includes the comma in front of it.
    ends = list(accumulate((len(row) + (index > 0) for index, row in enumerate(rows))))
    return RowBatch("json", len(rows), digest, len(data), body, ends=ends)


def _cut(data: bytes, encoding: Encoding, limits: Limits) -> list[msgspec.Raw]:
    check_nesting(data, encoding, "input_batch")
    try:
        return _raws[encoding](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, encoding, error, "input_batch", limits.depth_max, depth=1) from None


def _tensor(data: bytes, encoding: Encoding, digest: int, limits: Limits) -> RowBatch:
    tensor = decode_input_data(data, encoding, job_message_limits(limits))
    if not isinstance(tensor, TensorRows):
        raise MalformedError(f"{_ROWS}, got a single row")
    rows, features = tensor.shape
    stride = ITEM_BYTES[tensor.dtype] * features
    return RowBatch("msgpack", rows, digest, len(data), tensor.data, stride, tensor=(tensor.dtype, features))


def job_message_limits(limits: Limits) -> Limits:
    """`limits` for decoding the rows of a job message instead of those of a request."""
    return replace(limits, rows_max=limits.job_message_rows_max, values_max=limits.message_bytes_max)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.job_message_rows_max:
        raise TooLargeError(
            f"input_batch: {count} rows; at most {limits.job_message_rows_max} are allowed in one message of a job"
        )

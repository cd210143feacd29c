"""The rows of a job's message, counted and cut without a look at what they hold.

An array of rows is cut where its rows end: where they are all float64 rows of the same features, by their length, and
else where msgspec says. A tensor is cut by the bytes of a row. What is wrong inside of a row is found when it is
scored, and is the outcome of that row alone.
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
from inferd.schemas.strict import DECODE_ERRORS, check_nesting, header, refusal

_raws = {
    "msgpack": msgspec.msgpack.Decoder(list[msgspec.Raw]).decode,
    "json": msgspec.json.Decoder(list[msgspec.Raw]).decode,
}
_FLOAT64_MARKER = 0xCB
_FLOAT64_BYTES = 9
_FEATURES_A_ROW = 8
"""Of fewer and wider rows msgspec finds the ends sooner."""
_ROWS = "input_batch: expected rows ([[n, …], …] or [{feature: value}, …]) or a tensor"


class RowBatch(msgspec.Struct, frozen=True):
    """Rows that can be cut. The bytes of row i end at `ends[i]` of `body`; at (i + 1) x `stride` where there are none.

    `tensor` has the dtype and the number of features where they are the data of a tensor.
    """

    encoding: Encoding
    """Of what `cut` gives."""
    count: int
    digest: int
    """64 bits of a hash of the bytes that the message had."""
    n_bytes: int
    body: bytes
    stride: int = 0
    ends: Sequence[int] = ()
    tensor: tuple[str, int] | None = None

    def cut(self, start: int, stop: int) -> bytes:
        """Rows `start` to `stop`, as an array or a tensor, in `encoding`."""
        if self.tensor is not None:
            dtype, features = self.tensor
            data = self.body[start * self.stride : stop * self.stride]
            return msgspec.msgpack.encode({"dtype": dtype, "shape": [stop - start, features], "data": data})
        if self.encoding == "json":
            rows = self.body[self._end(start) + (start > 0) : self._end(stop)] if stop > start else b""
            return b"[" + rows + b"]"
        return array_header(stop - start) + self.body[self._end(start) : self._end(stop)]

    def pick(self, places: Sequence[int]) -> bytes:
        """The rows at `places`, as an array or a tensor, in `encoding`."""
        if self.tensor is not None:
            dtype, features = self.tensor
            data = b"".join(self.body[place * self.stride : (place + 1) * self.stride] for place in places)
            return msgspec.msgpack.encode({"dtype": dtype, "shape": [len(places), features], "data": data})
        rows = self.rows()
        return array_of([rows[place] for place in places], self.encoding)

    def rows(self) -> list[bytes]:
        """Each row's own bytes; not of a tensor."""
        ends = [self._end(row) for row in range(self.count + 1)]
        comma = int(self.encoding == "json")
        return [self.body[begin + comma * (begin > 0) : end] for begin, end in pairwise(ends)]

    def _end(self, rows: int) -> int:
        """Where so many rows end."""
        if self.stride:
            return rows * self.stride
        return self.ends[rows - 1] if rows else 0


def array_header(count: int) -> bytes:
    """The MessagePack header of an array of so many values, in its shortest form."""
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2, "big") if count < 65_536 else b"\xdd" + count.to_bytes(4, "big")


def array_of(rows: Sequence[bytes], encoding: Encoding) -> bytes:
    """The array of values of which each is given as bytes."""
    return b"[" + b",".join(rows) + b"]" if encoding == "json" else array_header(len(rows)) + b"".join(rows)


def row_batch(raw: bytes | msgspec.Raw, encoding: Encoding, limits: Limits) -> RowBatch:
    """The rows in `raw`, the `input_batch` of a message.

    `MalformedError` where it is neither an array of rows nor a tensor, and for bytes that cannot be cut;
    `TooLargeError` for more rows than `job_message_rows_max`; for a tensor what `decode_input_data` raises.
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
    """Bytes of each of `count` MessagePack rows that begin at `body` and end with `data`, if all of them are arrays of
    the same number of float64; 0 if they are not."""
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
    # Each row but the first one has its comma in front.
    ends = list(accumulate((len(row) + (place > 0) for place, row in enumerate(rows))))
    return RowBatch("json", len(rows), digest, len(data), body, ends=ends)


def _cut(data: bytes, encoding: Encoding, limits: Limits) -> list[msgspec.Raw]:
    check_nesting(data, encoding, "input_batch")
    try:
        return _raws[encoding](data)
    except DECODE_ERRORS as error:
        raise refusal(data, encoding, error, "input_batch", limits.depth_max, depth=1) from None


def _tensor(data: bytes, encoding: Encoding, digest: int, limits: Limits) -> RowBatch:
    tensor = decode_input_data(data, encoding, of_messages(limits))
    if not isinstance(tensor, TensorRows):
        raise MalformedError(f"{_ROWS}; this is one row")
    rows, features = tensor.shape
    stride = ITEM_BYTES[tensor.dtype] * features
    return RowBatch("msgpack", rows, digest, len(data), tensor.data, stride, tensor=(tensor.dtype, features))


def of_messages(limits: Limits) -> Limits:
    """`limits` for the rows of a job, which are bounded by the bytes and the rows of its messages."""
    return replace(limits, rows_max=limits.job_message_rows_max, values_max=limits.message_bytes_max)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.job_message_rows_max:
        raise TooLargeError(
            f"input_batch: {count} rows, and {limits.job_message_rows_max} are allowed in one message of a job"
        )

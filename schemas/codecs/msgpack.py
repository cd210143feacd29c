"""MessagePack. Its structural check is one bounded pass over the bytes; claimed lengths allocate nothing.

The typed decoders reject nearly every fault themselves; the structural check then names the fault and its byte. It also
finds duplicate keys, which the decoders accept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgpack
import msgspec

from inferd.schemas.codecs.codec import HOLE, Codec, Kind, Layout
from inferd.schemas.codecs.sizes import check_count, check_sizes
from inferd.schemas.errors import (
    InferenceError,
    MalformedError,
    TooDeepError,
    TooLargeError,
)
from inferd.schemas.limits import Limits

ValueType = Literal["scalar", "str", "bin", "array", "map", "ext", "invalid"]
HeaderFormat = tuple[ValueType, int, int]
"""Type, bytes of the length field, and the length (payload bytes, or items) if there is no such field."""


def _formats() -> tuple[HeaderFormat, ...]:
    table: list[HeaderFormat] = [("scalar", 0, 0)] * 256
    table[0x80:0x90] = [("map", 0, n) for n in range(16)]
    table[0x90:0xA0] = [("array", 0, n) for n in range(16)]
    table[0xA0:0xC0] = [("str", 0, n) for n in range(32)]
    table[0xC1] = ("invalid", 0, 0)
    table[0xC4:0xC7] = [("bin", 1, 0), ("bin", 2, 0), ("bin", 4, 0)]
    table[0xC7:0xCA] = [("ext", 1, 0), ("ext", 2, 0), ("ext", 4, 0)]
    table[0xCA:0xD4] = [("scalar", 0, n) for n in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)]
    table[0xD4:0xD9] = [("ext", 0, n) for n in (1, 2, 4, 8, 16)]
    table[0xD9:0xDC] = [("str", 1, 0), ("str", 2, 0), ("str", 4, 0)]
    table[0xDC:0xE0] = [("array", 2, 0), ("array", 4, 0), ("map", 2, 0), ("map", 4, 0)]
    return tuple(table)


HEADER_FORMATS = _formats()
"""By the first byte of a value, https://github.com/msgpack/msgpack/blob/master/spec.md#formats."""
_SCALAR_BYTES = bytes(1 + length if kind == "scalar" else 0 for kind, _, length in HEADER_FORMATS)
"""Size of a scalar by its first byte; 0 for everything else."""
_SKIPPER_LEVELS = 1_024
"""Levels that msgpack's `Unpacker.skip` can descend: a constant in its C code."""
_MAP_16 = 0xDE
_FLOAT64_MARKER = 0xCB
_FLOAT64_BYTES = 9
_FEATURES_A_ROW = 8
"""Maximum features per row of the array for `row_stride`: with fewer, wider rows msgspec is faster."""
_KIND_OF: dict[ValueType, Kind] = {"array": "array", "map": "map"}
_encode = msgspec.msgpack.Encoder().encode
_encode_in_order = msgspec.msgpack.Encoder(order="deterministic").encode
_items = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def _encode_sorted(value: Any) -> bytes:
    """With the shortest header: msgspec gives a struct of more than 15 fields one of 3 bytes, however few are set."""
    data = _encode_in_order(value)
    if data[0] == _MAP_16 and data[1] == 0 and data[2] < 16:
        return bytes((0x80 | data[2],)) + data[3:]
    return data


def header(data: bytes | memoryview, at: int = 0) -> tuple[ValueType, int, int]:
    """Type, length (payload bytes, or items) and start of the body of the value at offset `at`.

    `MalformedError` if the header is truncated.
    """
    if at >= len(data):
        raise MalformedError(f"truncated: a value is missing at byte {at}")
    kind, width, length = HEADER_FORMATS[data[at]]
    body = at + 1 + width
    if body > len(data):
        raise MalformedError(f"truncated: the length of the {kind} at byte {at} is cut off")
    return kind, int.from_bytes(data[at + 1 : body], "big") if width else length, body


def fault_in_msgpack(data: bytes, depth_max: int, depth: int, values_max: int) -> InferenceError | None:
    """The fault in `data`, naming the byte, or None.

    `MalformedError` for bytes that are not one value, bad UTF-8, ext types, duplicate and non-string keys;
    `TooDeepError`; `TooLargeError` after `values_max` values without a fault. `depth` is the number of containers
    around `data`.
    """
    try:
        end = _Scan(data, depth_max, values_max).value(0, depth)
    except InferenceError as fault:
        return fault
    return None if end == len(data) else MalformedError(f"trailing bytes: the value ends at byte {end} of {len(data)}")


class _Scan:
    """A scan of `data`. Each method takes the offset where a value starts and returns the offset where it ends."""

    __slots__ = ("data", "depth_max", "values_max")

    def __init__(self, data: bytes, depth_max: int, values_max: int) -> None:
        self.data = data
        self.depth_max = depth_max
        self.values_max = values_max

    def value(self, at: int, depth: int) -> int:
        """Scan the value at `at` inside `depth` containers; `depth_max` bounds the recursion."""
        kind, length, body = header(self.data, at)
        if kind == "array":
            return self.items(self.enter(kind, at, body, length, depth), length, depth + 1)
        if kind == "map":
            return self.pairs(self.enter(kind, at, body, 2 * length, depth), length, depth + 1)
        if kind == "ext":
            raise MalformedError(f"extension type at byte {at}: extension types, timestamps included, are not accepted")
        if kind == "invalid":
            raise MalformedError(f"byte 0xc1 at byte {at}: MessagePack never uses it")
        end = self.end(kind, at, body, length)
        if kind == "str":
            self.text(at, body, end)
        return end

    def enter(self, kind: str, at: int, body: int, values: int, depth: int) -> int:
        """Check depth and size of a container; returns the offset of its first item."""
        if depth >= self.depth_max:
            raise TooDeepError(f"the {kind} at byte {at} is nested deeper than {self.depth_max} levels")
        self.end(kind, at, body, values)
        return body

    def items(self, at: int, count: int, depth: int) -> int:
        data, size = self.data, len(self.data)
        scanned = min(count, self.values_max)
        self.values_max -= scanned
        for _ in range(scanned):
            skip = _SCALAR_BYTES[data[at]] if at < size else 0
            at = at + skip if skip and at + skip <= size else self.value(at, depth)
        if scanned < count:
            raise TooLargeError("more values than the structural check scans")
        return at

    def pairs(self, at: int, count: int, depth: int) -> int:
        keys: set[str] = set()
        scanned = min(count, self.values_max)
        self.values_max -= scanned
        for _ in range(scanned):
            kind, length, body = header(self.data, at)
            if kind != "str":
                raise MalformedError(f"the map key at byte {at} is not a string ({kind})")
            end = self.end(kind, at, body, length)
            key = self.text(at, body, end)
            if key in keys:
                raise MalformedError(f"the key {key[:80]!r} at byte {at} appears twice in its map")
            keys.add(key)
            at = self.value(end, depth)
        if scanned < count:
            raise TooLargeError("more values than the structural check scans")
        return at

    def end(self, kind: str, at: int, body: int, length: int) -> int:
        """The end of a body of `length` bytes (or items of at least one byte); `MalformedError` if it is truncated."""
        left = len(self.data) - body
        if length > left:
            raise MalformedError(
                f"truncated: the {kind} at byte {at} claims {length} bytes or more, but {left} are left"
            )
        return body + length

    def text(self, at: int, body: int, end: int) -> str:
        """The string in `data[body:end]`."""
        try:
            return self.data[body:end].decode()
        except UnicodeDecodeError as error:
            raise MalformedError(f"the string at byte {at} is not UTF-8: {error.reason}") from None


def _nested_deeper(data: bytes, levels: int) -> bool:
    # Wrapped in `surplus` arrays, data that is nested deeper than `levels` exceeds what `skip` can descend.
    surplus = _SKIPPER_LEVELS - levels
    unpacker = msgpack.Unpacker(max_buffer_size=surplus + len(data))
    unpacker.feed(b"\x91" * surplus)
    unpacker.feed(data)
    try:
        unpacker.skip()
    except msgpack.StackError:
        return True
    except (msgpack.UnpackException, ValueError):
        return False
    return False


def _kinds(data: bytes) -> tuple[Kind, Kind]:
    kind, count, body = header(data)
    first = header(data, body)[0] if kind == "array" and count else "scalar"
    return _KIND_OF.get(kind, "scalar"), _KIND_OF.get(first, "scalar")


def array_header(count: int) -> bytes:
    """The shortest header of an array of `count` values."""
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2, "big") if count < 65_536 else b"\xdd" + count.to_bytes(4, "big")


def _map_header(count: int) -> bytes:
    return bytes([0x80 | count]) if count < 16 else b"\xde" + count.to_bytes(2, "big")


def _array(count: int, items: bytes) -> bytes:
    return array_header(count) + items


def _claimed_length(data: bytes) -> int:
    kind, count, _ = header(data)
    if kind != "array":
        raise ValueError(f"expected an array, got {kind}")
    return count


def _map_pieces(fields: Sequence[tuple[str, Any]]) -> list[bytes]:
    pieces = [_map_header(len(fields))]
    for key, value in fields:
        pieces[-1] += _encode(key)
        if value is HOLE:
            pieces.append(b"")
        else:
            pieces[-1] += _encode(value)
    return pieces


def _repeats_key(data: bytes, keys: int, inner: Iterable[msgspec.Raw | str] = ()) -> bool:
    """The header counts every key; the decoder keeps one of each."""
    if data[0] == 0x80 + keys:
        return False
    kind, count, _ = header(data)
    return kind == "map" and count != keys


def _claimed_keys(data: bytes, layout: Layout, limits: Limits) -> Sequence[int] | None:
    count = header(data)[1]
    if layout in ("row", "named_row"):
        check_count(count, limits.features_max, "features")
        return None if layout == "row" else [count]
    check_count(count, limits.rows_max, "rows")
    if layout == "rows" and len(data) <= min(limits.features_max, limits.values_max):
        return None
    check_sizes(sizes := _claimed_sizes(data), limits)
    return sizes if layout == "named_rows" else None


def _claimed_sizes(data: bytes) -> list[int]:
    """The number of values that each row claims; 0 for an item that is not a row, which the typed decoder rejects."""
    headers = [header(memoryview(item)) for item in _items(data)]
    return [length if kind in ("array", "map") else 0 for kind, length, _ in headers]


def row_stride(data: bytes) -> int:
    """Bytes per row of the array `data` if its rows are arrays of the same number of float64; else 0."""
    _, count, body = header(data)
    if not count:
        return 0
    kind, features, start = header(data, body)
    lead = start - body
    stride = lead + _FLOAT64_BYTES * features
    if kind != "array" or len(data) - body != count * stride or features > _FEATURES_A_ROW * count:
        return 0
    marks = range(body + lead, body + stride, _FLOAT64_BYTES)
    expected = bytes([_FLOAT64_MARKER]) * count
    same_lead = all(bytes(data[at::stride]) == bytes([data[at]]) * count for at in range(body, start))
    return stride if same_lead and all(bytes(data[at::stride]) == expected for at in marks) else 0


MSGPACK = Codec(
    name="msgpack",
    title="MessagePack",
    content_type="application/msgpack",
    binary=True,
    non_finite=True,
    separator=b"",
    number_bytes_max=9,
    encode=_encode,
    encode_sorted=_encode_sorted,
    decoder=lambda type_: msgspec.msgpack.Decoder(type_).decode,
    kinds=_kinds,
    array=_array,
    claimed_length=_claimed_length,
    map_pieces=_map_pieces,
    fault=fault_in_msgpack,
    nested_deeper=_nested_deeper,
    repeats_key=_repeats_key,
    claimed_keys=_claimed_keys,
    check_numbers=lambda data, rows: None,
    wide_integers=False,
    mentions=lambda data, key: key in data,
    resembles=lambda data: 0x80 <= data[0] <= 0x8F,
    row_stride=row_stride,
)

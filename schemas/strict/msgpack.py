"""The structural check of MessagePack: one bounded pass over the bytes. Claimed lengths allocate nothing.

The typed decoders reject nearly every fault themselves; this pass then names the fault and its byte. It also finds
duplicate keys, which the decoders accept.
"""

from __future__ import annotations

from typing import Literal

from inferd.schemas.errors import (
    InferenceError,
    MalformedError,
    TooDeepError,
    TooLargeError,
)

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

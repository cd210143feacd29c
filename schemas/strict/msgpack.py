"""The structural check of MessagePack: one bounded pass over the bytes that allocates nothing for what they claim.

The typed decoders refuse nearly everything by themselves; this pass says what is wrong and where once they have,
and finds what they accept silently (a key that comes twice).
"""

from __future__ import annotations

from typing import Literal

from inferd.schemas.errors import (
    InferenceError,
    MalformedError,
    TooDeepError,
    TooLargeError,
)

Kind = Literal["scalar", "str", "bin", "array", "map", "ext", "invalid"]
Format = tuple[Kind, int, int]
"""Kind, bytes of the length field, and the length (of payload, or in items) where there is no such field."""


def _formats() -> tuple[Format, ...]:
    table: list[Format] = [("scalar", 0, 0)] * 256
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


FORMATS = _formats()
"""What each first byte of a MessagePack value means."""
_SCALAR_BYTES = bytes(1 + length if kind == "scalar" else 0 for kind, _, length in FORMATS)
"""How many bytes a scalar takes, by its first byte; 0 for everything else."""


def header(data: bytes | memoryview, at: int = 0) -> tuple[Kind, int, int]:
    """Kind, length (bytes of payload, or items) and start of the body of the value at `at`.

    `MalformedError` where the bytes end before the header does.
    """
    if at >= len(data):
        raise MalformedError(f"truncated: a value is missing at byte {at}")
    kind, width, length = FORMATS[data[at]]
    body = at + 1 + width
    if body > len(data):
        raise MalformedError(f"truncated: the length of the {kind} at byte {at} is cut off")
    return kind, int.from_bytes(data[at + 1 : body], "big") if width else length, body


def fault_in_msgpack(data: bytes, depth_max: int, depth: int, values_max: int) -> InferenceError | None:
    """What is wrong with `data`, naming the byte, or None.

    `MalformedError` for bytes that are not one value, bad UTF-8, ext types, repeated and non-string keys;
    `TooDeepError`; `TooLargeError` after `values_max` values without a fault. `depth` is the number of containers that
    `data` itself lies in.
    """
    try:
        end = _Scan(data, depth_max, values_max).value(0, depth)
    except InferenceError as fault:
        return fault
    return None if end == len(data) else MalformedError(f"trailing bytes: the value ends at byte {end} of {len(data)}")


class _Scan:
    """A walk over `data`. Each method takes where a value starts, and gives where it ends."""

    __slots__ = ("data", "depth_max", "values_max")

    def __init__(self, data: bytes, depth_max: int, values_max: int) -> None:
        self.data = data
        self.depth_max = depth_max
        self.values_max = values_max

    def value(self, at: int, depth: int) -> int:
        """The value at `at`, inside of `depth` containers; recursion is bounded by `depth_max`."""
        kind, length, body = header(self.data, at)
        if kind == "array":
            return self.items(self.enter(kind, at, body, length, depth), length, depth + 1)
        if kind == "map":
            return self.pairs(self.enter(kind, at, body, 2 * length, depth), length, depth + 1)
        if kind == "ext":
            raise MalformedError(f"an extension type at byte {at}: they are not read, timestamps neither")
        if kind == "invalid":
            raise MalformedError(f"byte 0xc1 at byte {at}: MessagePack never uses it")
        end = self.end(kind, at, body, length)
        if kind == "str":
            self.text(at, body, end)
        return end

    def enter(self, kind: str, at: int, body: int, values: int, depth: int) -> int:
        """The start of a container's items, if it may have so many values and lie so deep."""
        if depth >= self.depth_max:
            raise TooDeepError(f"the {kind} at byte {at} is nested deeper than {self.depth_max} levels")
        self.end(kind, at, body, values)
        return body

    def items(self, at: int, count: int, depth: int) -> int:
        data, size = self.data, len(self.data)
        looked_at = min(count, self.values_max)
        self.values_max -= looked_at
        for _ in range(looked_at):
            skip = _SCALAR_BYTES[data[at]] if at < size else 0
            at = at + skip if skip and at + skip <= size else self.value(at, depth)
        if looked_at < count:
            raise TooLargeError("more values than are looked at to check the structure")
        return at

    def pairs(self, at: int, count: int, depth: int) -> int:
        keys: set[str] = set()
        looked_at = min(count, self.values_max)
        self.values_max -= looked_at
        for _ in range(looked_at):
            kind, length, body = header(self.data, at)
            if kind != "str":
                raise MalformedError(f"the map key at byte {at} is not a string ({kind})")
            end = self.end(kind, at, body, length)
            key = self.text(at, body, end)
            if key in keys:
                raise MalformedError(f"the key {key[:80]!r} at byte {at} comes twice in its map")
            keys.add(key)
            at = self.value(end, depth)
        if looked_at < count:
            raise TooLargeError("more values than are looked at to check the structure")
        return at

    def end(self, kind: str, at: int, body: int, length: int) -> int:
        """Where a body of `length` bytes (or of items, of at least a byte each) ends, if that many are there."""
        left = len(self.data) - body
        if length > left:
            raise MalformedError(
                f"truncated: the {kind} at byte {at} claims {length} bytes or more, and {left} are left"
            )
        return body + length

    def text(self, at: int, body: int, end: int) -> str:
        """The string between `body` and `end`."""
        try:
            return self.data[body:end].decode()
        except UnicodeDecodeError as error:
            raise MalformedError(f"the string at byte {at} is not UTF-8: {error.reason}") from None

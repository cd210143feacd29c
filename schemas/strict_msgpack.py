"""The structural check of MessagePack: one bounded pass over the bytes that allocates nothing for what they claim.

The typed decoders refuse nearly everything by themselves; this pass says what is wrong and where once they have,
and finds what they accept silently (a key that comes twice).
"""

from __future__ import annotations

from typing import Literal

from schemas.errors import InferenceError, MalformedError, TooDeepError

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


def check_msgpack(data: bytes, depth_max: int, depth: int = 0) -> None:
    """Return if `data` is one well-formed value without ext types, repeated or non-string keys, and not too deep.

    `depth` is the number of containers that `data` itself lies in. `MalformedError` or `TooDeepError` name the byte.
    """
    end = _check_value(data, 0, depth, depth_max)
    if end != len(data):
        raise MalformedError(f"trailing bytes: the value ends at byte {end} of {len(data)}")


def fault_in_msgpack(data: bytes, depth_max: int, depth: int = 0) -> InferenceError | None:
    """What `check_msgpack` raises, or None."""
    try:
        check_msgpack(data, depth_max, depth)
    except InferenceError as fault:
        return fault
    return None


def _check_value(data: bytes, at: int, depth: int, depth_max: int) -> int:
    """Where the value at `at` ends. Recursion is bounded by `depth_max`."""
    kind, length, body = header(data, at)
    if kind == "scalar":
        return _end(data, at, kind, body, length)
    if kind in {"array", "map"}:
        if depth >= depth_max:
            raise TooDeepError(f"the {kind} at byte {at} is nested deeper than {depth_max} levels")
        items = length if kind == "array" else 2 * length
        _end(data, at, kind, body, items)
        check = _check_items if kind == "array" else _check_pairs
        return check(data, body, length, depth + 1, depth_max)
    if kind == "str":
        end = _end(data, at, kind, body, length)
        _text(data, at, body, end)
        return end
    if kind == "bin":
        return _end(data, at, kind, body, length)
    what = "an extension type (timestamps too)" if kind == "ext" else "byte 0xc1, which MessagePack never uses,"
    raise MalformedError(f"{what} at byte {at}: only nil, booleans, numbers, strings, bin, arrays and maps are read")


def _check_items(data: bytes, at: int, count: int, depth: int, depth_max: int) -> int:
    for _ in range(count):
        at = _check_value(data, at, depth, depth_max)
    return at


def _check_pairs(data: bytes, at: int, count: int, depth: int, depth_max: int) -> int:
    keys: set[str] = set()
    for _ in range(count):
        kind, length, body = header(data, at)
        if kind != "str":
            raise MalformedError(f"the map key at byte {at} is not a string ({kind})")
        end = _end(data, at, kind, body, length)
        key = _text(data, at, body, end)
        if key in keys:
            raise MalformedError(f"the key {key[:80]!r} at byte {at} comes twice in its map")
        keys.add(key)
        at = _check_value(data, end, depth, depth_max)
    return at


def _end(data: bytes, at: int, kind: str, body: int, length: int) -> int:
    """Where a body of `length` bytes (of at least one byte an item) ends, if that many are there."""
    if body + length > len(data):
        raise MalformedError(
            f"truncated: the {kind} at byte {at} claims at least {length} bytes, and {len(data) - body} are left"
        )
    return body + length


def _text(data: bytes, at: int, body: int, end: int) -> str:
    try:
        return data[body:end].decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"the string at byte {at} is not UTF-8: {error.reason}") from None

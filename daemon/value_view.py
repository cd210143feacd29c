"""Human-readable form of a record's value: decoded JSON or MessagePack, else a hexadecimal dump."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

BYTES_SHOWN_MAX = 4_096
BYTES_DECODED_MAX = 1_048_576
BYTES_A_LINE = 16
Format = Literal["empty", "json", "msgpack", "binary"]
GLYPHS = frozenset((string.ascii_letters + string.digits + string.punctuation + " ").encode())


@dataclass(frozen=True, slots=True)
class ValueView:
    """The format of a value, the decoded value (None if it cannot be decoded), and the lines to print."""

    format: Format
    value: Any
    lines: tuple[str, ...]


def view_of(data: bytes | None) -> ValueView:
    """The view of arbitrary bytes."""
    if not data:
        return ValueView("empty", None, ())
    if len(data) <= BYTES_DECODED_MAX:
        # Try JSON first: most text is also valid MessagePack, since its first byte decodes as a number.
        for format_, decode in (("json", msgspec.json.decode), ("msgpack", msgspec.msgpack.decode)):
            try:
                value = decode(data)
                shown = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
            except (ValueError, TypeError, RecursionError, OverflowError, msgspec.MsgspecError):
                continue
            return ValueView(format_, value, tuple(_cut(shown.split("\n"), len(shown))))  # type: ignore[arg-type]
    return ValueView("binary", None, tuple(_dump(data)))


def _cut(lines: list[str], size: int) -> Iterator[str]:
    used = 0
    for line in lines:
        used += len(line) + 1
        if used > BYTES_SHOWN_MAX:
            yield f"… {size:,} characters in total; --raw prints the whole value"
            return
        yield line


def _dump(data: bytes) -> Iterator[str]:
    for start in range(0, min(len(data), BYTES_SHOWN_MAX), BYTES_A_LINE):
        part = data[start : start + BYTES_A_LINE]
        glyphs = "".join(chr(byte) if byte in GLYPHS else "." for byte in part)
        yield f"{start:08x}  {part.hex(' '):<{3 * BYTES_A_LINE}} {glyphs}"
    if len(data) > BYTES_SHOWN_MAX:
        yield f"… {len(data):,} bytes in total; --raw prints the whole value"

"""Encodes windows for `model-stats` and the table of windows, and decodes them."""

from __future__ import annotations

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, check_size, printable
from inferd.schemas.errors import MalformedError
from inferd.schemas.monitoring.window import WindowStats

WINDOW_BYTES_MAX = 262_144
"""Size of an encoded window: about 5,000 features."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(WindowStats).decode


def encode_window(window: WindowStats) -> bytes:
    """Encodes a window, always in MessagePack. Bins are numbers there, so that a window takes few bytes."""
    return _encode(window)


def decode_window(value: bytes | None) -> WindowStats:
    """Decodes a window; `MalformedError` or `TooLargeError` if it is invalid. Unknown fields are ignored, for forward
    compatibility."""
    data = check_size(value, WINDOW_BYTES_MAX, "window")
    try:
        return _decode(data)
    except DECODE_ERRORS as error:
        raise MalformedError(f"window: {printable(str(error))}") from None

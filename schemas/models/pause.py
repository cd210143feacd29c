"""Pauses: records that wait in their topics. A record on `models` sets a pause, its tombstone ends it."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, MSGPACK, Codec, Decoders, check_size, decode_error
from inferd.schemas.errors import InvalidValueError

Paused = Literal["model", "route"]
PAUSE_REASON_CHARS_MAX = 500
PAUSE_BYTES_MAX = 16_384


class PauseKey(msgspec.Struct, frozen=True, order=True):
    """`!pause/<kind>/<name>` on `models`."""

    kind: Paused
    name: str

    def __str__(self) -> str:
        return f"!pause/{self.kind}/{self.name}"


class Pause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Since when something is paused, and by whom."""

    at: int
    """Unix milliseconds."""
    by: str
    reason: str | None = None


_DECODE = Decoders(Pause)


def encode_pause(pause: Pause, codec: Codec = MSGPACK) -> bytes:
    """Encode a pause; `InvalidValueError` if its reason is too long."""
    if len(pause.reason or "") > PAUSE_REASON_CHARS_MAX:
        raise InvalidValueError(
            f"reason: {len(pause.reason or '')} characters; at most {PAUSE_REASON_CHARS_MAX} are allowed"
        )
    return codec.encode(pause)


def decode_pause(value: bytes | None, codec: Codec = MSGPACK) -> Pause:
    """Decode a pause; `TooLargeError` or `MalformedError` if it is invalid."""
    data = check_size(value, PAUSE_BYTES_MAX, "pause")
    try:
        pause: Pause = _DECODE[codec](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, "pause", 16) from None
    return pause

"""Shared by all strict decoders: the size check, and errors that name the fault and its byte."""

from __future__ import annotations

from inferd.schemas.codecs.codec import CONTENT_TYPE, Codec
from inferd.schemas.codecs.json import JSON, number_beyond_float64
from inferd.schemas.codecs.registry import all_codecs
from inferd.schemas.errors import (
    InferenceError,
    MalformedError,
    TooDeepError,
    TooLargeError,
)

DECODE_ERRORS = (ValueError, RecursionError, OverflowError)
"""The exceptions that msgspec raises for bad bytes. Its own errors and `UnicodeDecodeError` are `ValueError`s.

When `RecursionError` is raised depends on the interpreter, so `depth_fault` alone decides what is too deep.
"""
NESTING_MAX = 500
"""Levels that every decoder can read on every supported Python, whatever the depth of the call stack."""
SCANNED_VALUES_MAX = 50_000
"""Values of a rejected message that are scanned for the fault; takes about 10 ms."""


def check_size(value: bytes | None, bytes_max: int, what: str) -> bytes:
    """Return `value` if it has 1 to `bytes_max` bytes, else raise `MalformedError` or `TooLargeError`."""
    if not value:
        raise MalformedError(f"{what}: the record has {'no' if value is None else 'an empty'} value")
    if len(value) > bytes_max:
        raise TooLargeError(f"{what}: {len(value)} bytes; at most {bytes_max} are allowed")
    return value


def structural_fault(
    data: bytes, codec: Codec, depth_max: int, depth: int = 0, values_max: int = SCANNED_VALUES_MAX
) -> InferenceError | None:
    """The structural fault of `data`, or None; see `Codec.fault`."""
    return codec.fault(data, depth_max, depth, values_max)


def find_fault(data: bytes, codec: Codec, depth_max: int, depth: int = 0) -> InferenceError | None:
    """The structural fault of `data` within the first `SCANNED_VALUES_MAX` values, a nesting fault anywhere, or None.

    The scan is bounded so that one bad request does not delay all others.
    """
    fault = structural_fault(data, codec, depth_max, depth)
    return depth_fault(data, codec, depth_max, depth) if isinstance(fault, TooLargeError) else fault


def depth_fault(data: bytes, codec: Codec, depth_max: int, depth: int = 0) -> TooDeepError | None:
    """`TooDeepError` if `data` is nested too deep, else None; `depth` is the number of containers around `data`."""
    if not codec.nested_deeper(data, depth_max - depth):
        return None
    return TooDeepError(f"containers are nested deeper than {depth_max} levels")


def decode_error(
    data: bytes, codec: Codec, error: Exception, what: str, depth_max: int, depth: int = 0
) -> InferenceError:
    """The typed error for `data` that a decoder rejected with `error`: its structural fault, else a type mismatch."""
    if fault := find_fault(data, codec, depth_max, depth):
        return type(fault)(f"{what}: {fault.message}{_other_format(data, codec)}")
    if codec is JSON and "out of range" in str(error) and (number := number_beyond_float64(data)) is not None:
        return MalformedError(f"{what}: {number.message}")
    return MalformedError(f"{what}: {printable(str(error))}{_other_format(data, codec)}")


def printable(text: str) -> str:
    """`text` with unprintable characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:1_000])


def check_nesting(data: bytes, codec: Codec, what: str, levels: int = NESTING_MAX) -> None:
    """Raise `TooDeepError` if `data` is nested deeper than `levels`."""
    if codec.nested_deeper(data, levels):
        raise TooDeepError(f"{what}: containers are nested deeper than {levels} levels")


def _other_format(data: bytes, codec: Codec) -> str:
    """A hint if the bytes look like another format."""
    for other in all_codecs():
        if other is not codec and other.resembles(data):
            return f"; this looks like {other.title}, which needs the header {CONTENT_TYPE}: {other.content_type}"
    return ""

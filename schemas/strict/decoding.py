"""Shared by all strict decoders: the size check, and errors that name the fault and its byte."""

from __future__ import annotations

from inferd.schemas.errors import (
    InferenceError,
    MalformedError,
    TooDeepError,
    TooLargeError,
)
from inferd.schemas.headers import Encoding
from inferd.schemas.strict.json import fault_in_json
from inferd.schemas.strict.msgpack import fault_in_msgpack
from inferd.schemas.strict.nesting import nested_deeper

DECODE_ERRORS = (ValueError, RecursionError, OverflowError)
"""The exceptions that msgspec raises for bad bytes. Its own errors and `UnicodeDecodeError` are `ValueError`s.

When `RecursionError` is raised depends on the interpreter, so `depth_fault` alone decides what is too deep.
"""
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
    data: bytes, encoding: Encoding, depth_max: int, depth: int = 0, values_max: int = SCANNED_VALUES_MAX
) -> InferenceError | None:
    """The structural fault of `data` (see `fault_in_msgpack` and `fault_in_json`), or None.

    Returns `TooLargeError` if the first `values_max` values have no fault and more follow.
    """
    if encoding == "msgpack":
        return fault_in_msgpack(data, depth_max, depth, values_max)
    return fault_in_json(data, depth_max, depth, values_max)


def find_fault(data: bytes, encoding: Encoding, depth_max: int, depth: int = 0) -> InferenceError | None:
    """The structural fault of `data` within the first `SCANNED_VALUES_MAX` values, a nesting fault anywhere, or None.

    The scan is bounded so that one bad request does not delay all others.
    """
    fault = structural_fault(data, encoding, depth_max, depth)
    return depth_fault(data, encoding, depth_max, depth) if isinstance(fault, TooLargeError) else fault


def depth_fault(data: bytes, encoding: Encoding, depth_max: int, depth: int = 0) -> TooDeepError | None:
    """`TooDeepError` if `data` is nested too deep, else None; `depth` is the number of containers around `data`."""
    if not nested_deeper(data, encoding, depth_max - depth):
        return None
    return TooDeepError(f"containers are nested deeper than {depth_max} levels")


def decode_error(
    data: bytes, encoding: Encoding, error: Exception, what: str, depth_max: int, depth: int = 0
) -> InferenceError:
    """The typed error for `data` that a decoder rejected with `error`: its structural fault, else a type mismatch."""
    if fault := find_fault(data, encoding, depth_max, depth):
        return type(fault)(f"{what}: {fault.message}{_other_encoding(data, encoding)}")
    return MalformedError(f"{what}: {printable(str(error))}{_other_encoding(data, encoding)}")


def printable(text: str) -> str:
    """`text` with unprintable characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:1_000])


def _other_encoding(data: bytes, encoding: Encoding) -> str:
    """A hint if the bytes look like the other encoding."""
    if encoding == "msgpack" and data.lstrip()[:1] == b"{":
        return "; this looks like JSON, which needs the header content-type: application/json"
    if encoding == "json" and 0x80 <= data[0] <= 0x8F:
        return "; this looks like MessagePack, which needs the header content-type: application/msgpack"
    return ""

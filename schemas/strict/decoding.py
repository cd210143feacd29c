"""What every strict decoder shares: the size check, and an error that says what is wrong with bytes and where."""

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
"""Whatever msgspec raises at bad bytes: its own errors and `UnicodeDecodeError` are `ValueError`s.

Interpreters differ in when they raise `RecursionError`: `depth_fault` decides, whether it was raised or not.
"""
SCANNED_VALUES_MAX = 50_000
"""How many values of a refused message are looked at to say what is wrong with it: some 10 ms."""


def check_size(value: bytes | None, bytes_max: int, what: str) -> bytes:
    """`value` if there is one of at most `bytes_max` bytes, else `MalformedError` or `TooLargeError`."""
    if not value:
        raise MalformedError(f"{what}: the record has {'no' if value is None else 'an empty'} value")
    if len(value) > bytes_max:
        raise TooLargeError(f"{what}: {len(value)} bytes, and {bytes_max} are allowed")
    return value


def structural_fault(
    data: bytes, encoding: Encoding, depth_max: int, depth: int = 0, values_max: int = SCANNED_VALUES_MAX
) -> InferenceError | None:
    """What is wrong with `data` whatever its fields mean (see `fault_in_msgpack` and `fault_in_json`), or None.

    A fault behind the first `values_max` values is not found: `TooLargeError` then.
    """
    if encoding == "msgpack":
        return fault_in_msgpack(data, depth_max, depth, values_max)
    return fault_in_json(data, depth_max, depth, values_max)


def known_fault(data: bytes, encoding: Encoding, depth_max: int, depth: int = 0) -> InferenceError | None:
    """The structural fault of `data` if there is one among the values that are looked at, or containers nested too
    deep wherever they are, or None.

    For requests: a better message is not worth holding up all others.
    """
    fault = structural_fault(data, encoding, depth_max, depth)
    return depth_fault(data, encoding, depth_max, depth) if isinstance(fault, TooLargeError) else fault


def depth_fault(data: bytes, encoding: Encoding, depth_max: int, depth: int = 0) -> TooDeepError | None:
    """`TooDeepError` where `data` nests too deep, or None; `depth` is the number of containers that `data` lies in."""
    if not nested_deeper(data, encoding, depth_max - depth):
        return None
    return TooDeepError(f"containers are nested deeper than {depth_max} levels")


def refusal(
    data: bytes, encoding: Encoding, error: Exception, what: str, depth_max: int, depth: int = 0
) -> InferenceError:
    """The typed error for `data`, which a decoder refused with `error`: the structural fault, or else the type's."""
    if fault := known_fault(data, encoding, depth_max, depth):
        return type(fault)(f"{what}: {fault.message}{_other_encoding(data, encoding)}")
    return MalformedError(f"{what}: {printable(str(error))}{_other_encoding(data, encoding)}")


def printable(text: str) -> str:
    """`text` with control characters and whatever else does not print as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:1_000])


def _other_encoding(data: bytes, encoding: Encoding) -> str:
    """A remedy where the bytes look like the encoding that the content-type did not name."""
    if encoding == "msgpack" and data.lstrip()[:1] == b"{":
        return "; it looks like JSON, which needs the header content-type: application/json"
    if encoding == "json" and 0x80 <= data[0] <= 0x8F:
        return "; it looks like MessagePack, whose content-type is application/msgpack"
    return ""

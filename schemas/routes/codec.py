"""Encodes and decodes route records."""

from __future__ import annotations

from inferd.schemas.codecs import (
    DECODE_ERRORS,
    MSGPACK,
    Codec,
    Decoders,
    check_size,
    decode_error,
    structural_fault,
)
from inferd.schemas.errors import InvalidIdError, InvalidValueError, MalformedError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.routes.checks import check_route, check_route_name
from inferd.schemas.routes.route import Route

_DEPTH_MAX = DEFAULT_LIMITS.depth_max
_DECODERS = Decoders(Route)


def decode_route(value: bytes | None, limits: Limits = DEFAULT_LIMITS, codec: Codec = MSGPACK) -> Route:
    """Decode and check a route (see `check_route`).

    `TooLargeError`, `MalformedError` or `TooDeepError` if it is not a route record.
    """
    data = check_size(value, limits.manifest_bytes_max, "route")
    if fault := structural_fault(data, codec, _DEPTH_MAX, values_max=len(data)):
        raise type(fault)(f"route: {fault.message}")
    try:
        route: Route = _DECODERS[codec](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, "route", _DEPTH_MAX) from None
    return check_route(route)


def encode_route(route: Route, codec: Codec = MSGPACK, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Encode a route; equal routes give equal bytes. Raises the errors of `decode_route`."""
    try:
        value = codec.encode_sorted(route)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidValueError(f"route cannot be sent as {codec.name}: {error}") from None
    decode_route(value, limits, codec)
    return value


def parse_route_key(key: bytes | None) -> str:
    """The name in the key of a `routes` record; `MalformedError` if it is none."""
    text = (key or b"").decode("utf-8", "backslashreplace")
    try:
        return check_route_name(text)
    except InvalidIdError:
        raise MalformedError(f"key {text[:80]!r} of a routes record: expected the name of a route") from None

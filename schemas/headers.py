"""Record headers: those of a request that inferd interprets, and those that are propagated to its result."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

import msgspec

from inferd.schemas.codecs import CONTENT_TYPE, MSGPACK, Codec, codec_of, content_types
from inferd.schemas.errors import InferenceError, InvalidHeaderError, UnsupportedContentTypeError
from inferd.schemas.limits import Limits

RawHeaders = tuple[tuple[str, bytes], ...]
PropagatedHeaders = tuple[tuple[str, bytes | None], ...]

REPLY_TO = "reply-to"
DEADLINE = "deadline"
ROW_ERRORS = "row-errors"
CORRELATION_HEADERS = ("correlation-id", "traceparent", "tracestate")
"""Propagated headers that are kept first if not all fit."""
CLOUD_EVENT_PREFIX = "ce_"
CLOUD_EVENT_ID = "ce_id"
RELATED_CLOUD_EVENT_ID = "ce_relatedid"
JSON_LENGTH = "inference-header-content-length"
"""Length of the JSON of an Open Inference Protocol request that binary tensors follow; not propagated."""
OPEN_INFERENCE = "application/vnd.oip.v2+json"
CLOUD_EVENT = "application/cloudevents+json"
PROTOCOL_TYPES = (OPEN_INFERENCE, CLOUD_EVENT)
"""Content types of requests in other protocols; see `inferd.schemas.protocols`."""
ALIAS_REVISION = "inferd-alias-revision"
"""Of a result: the revision of the alias that chose the version."""
VARIANT = "inferd-variant"
"""Of a result: `champion` for the only version of an alias, or the one with the largest share; `canary` for others."""
RESERVED_PREFIXES = ("content-", CLOUD_EVENT_PREFIX, "inferd-", JSON_LENGTH)
"""Request headers that are not propagated: they describe the request's value, or inferd writes them itself."""
PROPAGATED_BYTES_MAX = 16_384
"""Names and values of propagated headers. With key and value the result stays below Kafka's default
`max.message.bytes`."""

FITTING_BYTES = PROPAGATED_BYTES_MAX // 3
"""Headers of no more bytes are all propagated: `ce_relatedid` has 7 bytes more than `ce_id`, and others as many."""
_CACHED_NAME_MAX = 64

DEADLINE_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""
_DEADLINE = re.compile(r"[0-9]{1,15}", re.ASCII)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_CHARSETS = ("utf-8", "utf8", "us-ascii")
_CLOUD_EVENT_BATCH = "application/cloudevents-batch+json"


class RequestHeaders(msgspec.Struct, frozen=True):
    """Parsed headers of a request; `propagated` holds the headers of its result."""

    codec: Codec = MSGPACK
    propagated: PropagatedHeaders = ()
    reply_to: str | None = None
    deadline_ms: int | None = None
    """Unix milliseconds."""
    row_errors: bool = False
    """Report bad rows one by one instead of failing the whole request."""
    protocol: str | None = None
    """One of `PROTOCOL_TYPES`, if the content-type names it; None for a request of ours."""
    attributes: RawHeaders = ()
    """Attributes of a CloudEvent in binary mode: the headers `ce_…`, in lower case without this prefix."""


NO_HEADERS = RequestHeaders()


class _Use(NamedTuple):
    """What is done with a header of this name."""

    name_bytes: int
    propagated_as: str | None
    """Its name in the result; None if it is not propagated."""
    field: str = ""
    parse: Callable[[bytes], Any] | None = None
    """If it is interpreted: the field of `RequestHeaders`, and its parser."""
    attribute: str = ""
    """If it is one of a CloudEvent: its name there."""


@lru_cache(maxsize=1_024)
def _use_of(name: str) -> _Use:
    lower = name.lower()
    size = _size(name, None)
    if (parser := _PARSED.get(lower)) is not None:
        return _Use(size, None, *parser)
    if lower.startswith(CLOUD_EVENT_PREFIX):
        related = RELATED_CLOUD_EVENT_ID if lower == CLOUD_EVENT_ID else None
        return _Use(size, related, attribute=lower.removeprefix(CLOUD_EVENT_PREFIX))
    return _Use(size, None if lower.startswith(RESERVED_PREFIXES) else name)


def parse_headers(headers: Sequence[tuple[str, bytes | None]], limits: Limits) -> RequestHeaders:
    """Parse the headers of a record that is in none of `PROTOCOL_TYPES`; see `parse_request_headers`."""
    parsed = parse_request_headers(headers, limits)
    if parsed.protocol is not None:
        raise _unsupported(parsed.protocol, content_types())
    return parsed


def parse_request_headers(headers: Sequence[tuple[str, bytes | None]], limits: Limits) -> RequestHeaders:
    """Parse the headers of a request and select those that are propagated to its result.

    `content-type`, `reply-to`, `deadline` and `row-errors` are interpreted; their names are case-insensitive, and a
    header without a value is ignored. All others are propagated unchanged, except the reserved ones. Raises
    `InvalidHeaderError` for too many or too large headers, and for an interpreted header that is invalid or repeated
    with different values; `UnsupportedContentTypeError`. Each error names the header.
    """
    if not headers:
        return NO_HEADERS
    if len(headers) > limits.headers_max:
        raise InvalidHeaderError(f"headers: {len(headers)}; at most {limits.headers_max} are allowed")
    if len(headers) == 1 and (alone := _alone(headers[0], limits)) is not None:
        return alone
    fields: dict[str, Any] = {}
    propagated: list[tuple[str, bytes | None]] = []
    size = 0
    for header in headers:
        name, value = header
        use = _use_of(name) if len(name) <= _CACHED_NAME_MAX else _use_of.__wrapped__(name)
        header_size = use.name_bytes + len(value or b"")
        if header_size > limits.header_bytes_max:
            raise _too_large(name, header_size, limits)
        size += header_size
        if use.propagated_as == name:
            propagated.append(header)
        elif value is not None:
            if use.parse is not None:
                _interpret(fields, name, use.field, use.parse(value))
            elif use.attribute:
                _take_attribute(fields, propagated, use, value)
    carried = tuple(propagated if size <= FITTING_BYTES else _fitting(propagated))
    return RequestHeaders(propagated=carried, **_by_field(fields))


def _take_attribute(
    fields: dict[str, Any], propagated: list[tuple[str, bytes | None]], use: _Use, value: bytes
) -> None:
    fields["attributes"] = (*fields.get("attributes", ()), (use.attribute, value))
    if use.propagated_as is not None:
        propagated.append((use.propagated_as, value))


def _by_field(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, with the media type of a protocol in its own."""
    if type(fields.get("codec")) is str:
        fields["protocol"] = fields.pop("codec")
    return fields


def _interpret(fields: dict[str, Any], name: str, field: str, parsed: Any) -> None:
    if fields.setdefault(field, parsed) != parsed:
        raise InvalidHeaderError(f"header {name}: it appears twice with different values")


def _alone(header: tuple[str, bytes | None], limits: Limits) -> RequestHeaders | None:
    """The headers of producers that send only a content-type, written as a codec writes it."""
    name, value = header
    if name != CONTENT_TYPE or value is None or len(CONTENT_TYPE) + len(value) > limits.header_bytes_max:
        return None
    codec = codec_of(value.decode("latin-1"))
    return None if codec is None else _only(codec)


@cache
def _only(codec: Codec) -> RequestHeaders:
    return RequestHeaders(codec)


def salvage_headers(headers: Sequence[tuple[str, bytes | None]], limits: Limits) -> RequestHeaders:
    """The usable part of headers that `parse_headers` rejects, so that the error can still be correlated: the codec if
    or the protocol if it is unambiguous, and the propagated headers except those that are too large."""
    sized = [(name, value) for name, value in headers if _size(name, value) <= limits.header_bytes_max]
    media = {_media_or_none(value) for name, value in sized if name.lower() == CONTENT_TYPE and value} - {None}
    fields = _by_field({"codec": media.pop() if len(media) == 1 else MSGPACK})
    sized = sized[: limits.headers_max]
    attributes = tuple((_use_of.__wrapped__(name).attribute, value) for name, value in sized if value is not None)
    attributes = tuple((name, value) for name, value in attributes if name)
    return RequestHeaders(propagated=_propagated(sized), attributes=attributes, **fields)


def parse_content_type(value: bytes) -> Codec:
    """The codec that a content-type names. Case is ignored; a charset parameter must mean UTF-8.

    `InvalidHeaderError` if it is not UTF-8, `UnsupportedContentTypeError` if there is no such codec.
    """
    return cast(Codec, parse_media_type(value, ()))


def parse_media_type(value: bytes, protocols: Sequence[str] = PROTOCOL_TYPES) -> Codec | str:
    """The codec that a content-type names, or the one of `protocols`; errors as of `parse_content_type`."""
    text = _text(CONTENT_TYPE, value)
    if (codec := codec_of(text)) is not None:
        return codec
    media_type, *parameters = (part.strip().lower() for part in text.split(";"))
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    if media_type == _CLOUD_EVENT_BATCH:
        raise UnsupportedContentTypeError(
            f"header {CONTENT_TYPE}: {media_type}: batches of CloudEvents are not supported: produce a record for each"
            f" event, as {CLOUD_EVENT} or with its attributes in headers"
        )
    found = media_type if media_type in protocols else codec_of(media_type)
    if found is None or any(charset not in _CHARSETS for charset in charsets):
        raise _unsupported(text, (*content_types(), *protocols))
    return found


def _unsupported(given: str, expected: Sequence[str]) -> UnsupportedContentTypeError:
    return UnsupportedContentTypeError(
        f"header {CONTENT_TYPE}: {given[:80]!r}; expected {' or '.join(expected)} (UTF-8)"
    )


def _media_or_none(value: bytes) -> Codec | str | None:
    try:
        return parse_media_type(value)
    except InferenceError:
        return None


def _too_large(name: str, size: int, limits: Limits) -> InvalidHeaderError:
    return InvalidHeaderError(
        f"header {name[:80]!r}: {size} bytes of name and value; at most {limits.header_bytes_max} are allowed"
    )


def _size(name: str, value: bytes | None) -> int:
    return len(name.encode("utf-8", "surrogateescape")) + len(value or b"")


def _propagated(headers: Sequence[tuple[str, bytes | None]]) -> PropagatedHeaders:
    found = [_propagated_header(name, value) for name, value in headers]
    return tuple(_fitting([header for header in found if header is not None]))


def _propagated_header(name: str, value: bytes | None) -> tuple[str, bytes | None] | None:
    """The header of the result for a header of the request; None if it is not propagated."""
    propagated_as = _use_of.__wrapped__(name).propagated_as
    if propagated_as is None or (value is None and propagated_as != name):
        return None
    return propagated_as, value


def _fitting(propagated: Sequence[tuple[str, bytes | None]]) -> Sequence[tuple[str, bytes | None]]:
    """The propagated headers that fit in `PROPAGATED_BYTES_MAX`, in their order; those of `CORRELATION_HEADERS` and the
    CloudEvent id are dropped last."""
    sizes = [_size(name, value) for name, value in propagated]
    if sum(sizes) <= PROPAGATED_BYTES_MAX:
        return propagated
    left, kept = PROPAGATED_BYTES_MAX, set[int]()
    for index in sorted(range(len(propagated)), key=lambda index: propagated[index][0].lower() not in _FIRST):
        if sizes[index] <= left:
            left -= sizes[index]
            kept.add(index)
    return [header for index, header in enumerate(propagated) if index in kept]


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidHeaderError(f"header {name}: not UTF-8: {error.reason}") from None


def _parse_reply_to(value: bytes) -> str:
    topic = _text(REPLY_TO, value)
    if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise InvalidHeaderError(
            f"header {REPLY_TO}: {topic[:80]!r} is not a topic name: expected 1 to 249 of A-Z a-z 0-9 . _ -"
        )
    return topic


def _parse_deadline(value: bytes) -> int:
    text = _text(DEADLINE, value)
    if not _DEADLINE.fullmatch(text) or int(text) > DEADLINE_MS_MAX:
        raise InvalidHeaderError(f"header {DEADLINE}: {text[:80]!r} is not a time in Unix milliseconds (digits only)")
    return int(text)


def _parse_row_errors(value: bytes) -> bool:
    text = _text(ROW_ERRORS, value)
    if text not in ("true", "false"):
        raise InvalidHeaderError(f"header {ROW_ERRORS}: {text[:80]!r} is neither true nor false")
    return text == "true"


_PARSED: dict[str, tuple[str, Callable[[bytes], Any]]] = {
    CONTENT_TYPE: ("codec", parse_media_type),
    REPLY_TO: ("reply_to", _parse_reply_to),
    DEADLINE: ("deadline_ms", _parse_deadline),
    ROW_ERRORS: ("row_errors", _parse_row_errors),
}
_FIRST = {*CORRELATION_HEADERS, RELATED_CLOUD_EVENT_ID}

"""Record headers: those of a request that mean something, and those that its result carries."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from inferd.schemas.errors import InferenceError, InvalidHeaderError, UnsupportedContentTypeError
from inferd.schemas.limits import Limits

RawHeaders = tuple[tuple[str, bytes], ...]
CarriedHeaders = tuple[tuple[str, bytes | None], ...]
Encoding = Literal["msgpack", "json"]

CONTENT_TYPE = "content-type"
CONTENT_TYPES: dict[str, Encoding] = {"application/msgpack": "msgpack", "application/json": "json"}
CONTENT_TYPE_HEADERS: dict[Encoding, tuple[str, bytes]] = {
    encoding: (CONTENT_TYPE, media_type.encode()) for media_type, encoding in CONTENT_TYPES.items()
}
REPLY_TO = "reply-to"
DEADLINE = "deadline"
ROW_ERRORS = "row-errors"
PASSED_THROUGH = ("correlation-id", "traceparent", "tracestate")
"""Of the headers that a result carries, those that have room before any other."""
CLOUD_EVENT_ID = "ce_id"
RELATED_CLOUD_EVENT_ID = "ce_relatedid"
RESERVED_PREFIXES = ("content-", "ce_", "inferd-")
"""Headers of a request that no result carries: they describe the request's value, or are written by inferd itself."""
CARRIED_BYTES_MAX = 16_384
"""Names and values of the request's headers on its result: with key and value it stays below Kafka's default
`max.message.bytes`."""

DEADLINE_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""
_DEADLINE = re.compile(r"[0-9]{1,15}", re.ASCII)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_CHARSETS = ("utf-8", "utf8", "us-ascii")


class RequestHeaders(msgspec.Struct, frozen=True):
    """What the headers of a request mean; `passed_through` is already as the result carries it."""

    encoding: Encoding = "msgpack"
    passed_through: CarriedHeaders = ()
    reply_to: str | None = None
    deadline_ms: int | None = None
    """Unix milliseconds."""
    row_errors: bool = False
    """A bad row of many fails alone."""


NO_HEADERS = RequestHeaders()


def parse_headers(headers: Sequence[tuple[str, bytes | None]], limits: Limits) -> RequestHeaders:
    """What the headers of a request mean, and which of them its result carries.

    `content-type`, `reply-to`, `deadline` and `row-errors` mean something, in any case of letters; without a value they
    do not. All others are carried as they are, but for the reserved ones. `InvalidHeaderError` for too many or too
    large headers, and for a meaningful one that is not what it must be, or comes twice with different values;
    `UnsupportedContentTypeError`. Each error names the header.
    """
    if not headers:
        return NO_HEADERS
    if len(headers) > limits.headers_max:
        raise InvalidHeaderError(f"headers: {len(headers)}, and {limits.headers_max} are allowed")
    fields: dict[str, Any] = {}
    for name, value in headers:
        _check_size(name, value, limits)
        meaning = _PARSED.get(name.lower())
        if meaning is None or value is None:
            continue
        field, parse = meaning
        parsed = parse(value)
        if fields.setdefault(field, parsed) != parsed:
            raise InvalidHeaderError(f"header {name}: it comes twice, with different values")
    return RequestHeaders(passed_through=_carried(headers), **fields)


def readable_headers(headers: Sequence[tuple[str, bytes | None]], limits: Limits) -> RequestHeaders:
    """What can be used of headers that `parse_headers` refuses, so that the answer still finds its reader: the encoding
    where it is clear, and the headers that the result carries, without those that are too large."""
    sized = [(name, value) for name, value in headers if _size(name, value) <= limits.header_bytes_max]
    encodings = {_encoding_or_none(value) for name, value in sized if name.lower() == CONTENT_TYPE and value} - {None}
    encoding: Encoding = "json" if encodings == {"json"} else "msgpack"
    return RequestHeaders(encoding, _carried(sized[: limits.headers_max]))


def parse_content_type(value: bytes) -> Encoding:
    """The encoding that a content-type names, whatever its case and with the charset of UTF-8 or none.

    `InvalidHeaderError` where it is no UTF-8, `UnsupportedContentTypeError` where it is not spoken here.
    """
    media_type, *parameters = (part.strip().lower() for part in _text(CONTENT_TYPE, value).split(";"))
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    if media_type not in CONTENT_TYPES or any(charset not in _CHARSETS for charset in charsets):
        raise UnsupportedContentTypeError(
            f"header {CONTENT_TYPE}: {_text(CONTENT_TYPE, value)[:80]!r}; there are {', '.join(CONTENT_TYPES)} (UTF-8)"
        )
    return CONTENT_TYPES[media_type]


def _encoding_or_none(value: bytes) -> Encoding | None:
    try:
        return parse_content_type(value)
    except InferenceError:
        return None


def _check_size(name: str, value: bytes | None, limits: Limits) -> None:
    size = _size(name, value)
    if size > limits.header_bytes_max:
        raise InvalidHeaderError(
            f"header {name[:80]!r}: {size} bytes of name and value, and {limits.header_bytes_max} are allowed"
        )


def _size(name: str, value: bytes | None) -> int:
    return len(name.encode("utf-8", "surrogateescape")) + len(value or b"")


def _carried(headers: Sequence[tuple[str, bytes | None]]) -> CarriedHeaders:
    """The headers that a result carries, in their order. What finds no room in `CARRIED_BYTES_MAX` is left out; the
    ids of `PASSED_THROUGH` and of a CloudEvent find it first."""
    carried = [found for name, value in headers if (found := _as_carried(name, value)) is not None]
    sizes = [_size(name, value) for name, value in carried]
    if sum(sizes) <= CARRIED_BYTES_MAX:
        return tuple(carried)
    room, kept = CARRIED_BYTES_MAX, set[int]()
    for place in sorted(range(len(carried)), key=lambda place: carried[place][0].lower() not in _FIRST):
        if sizes[place] <= room:
            room -= sizes[place]
            kept.add(place)
    return tuple(header for place, header in enumerate(carried) if place in kept)


def _as_carried(name: str, value: bytes | None) -> tuple[str, bytes | None] | None:
    """A header of a request as its result has it; None where it has not."""
    lower = name.lower()
    if lower == CLOUD_EVENT_ID and value is not None:
        return RELATED_CLOUD_EVENT_ID, value
    return None if lower in _PARSED or lower.startswith(RESERVED_PREFIXES) else (name, value)


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidHeaderError(f"header {name}: not UTF-8: {error.reason}") from None


def _parse_reply_to(value: bytes) -> str:
    topic = _text(REPLY_TO, value)
    if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise InvalidHeaderError(f"header {REPLY_TO}: {topic[:80]!r} is no topic name: 1 to 249 of A-Z a-z 0-9 . _ -")
    return topic


def _parse_deadline(value: bytes) -> int:
    text = _text(DEADLINE, value)
    if not _DEADLINE.fullmatch(text) or int(text) > DEADLINE_MS_MAX:
        raise InvalidHeaderError(f"header {DEADLINE}: {text[:80]!r} is no time in Unix milliseconds, in decimal digits")
    return int(text)


def _parse_row_errors(value: bytes) -> bool:
    text = _text(ROW_ERRORS, value)
    if text not in ("true", "false"):
        raise InvalidHeaderError(f"header {ROW_ERRORS}: {text[:80]!r} is neither true nor false")
    return text == "true"


_PARSED: dict[str, tuple[str, Callable[[bytes], Any]]] = {
    CONTENT_TYPE: ("encoding", parse_content_type),
    REPLY_TO: ("reply_to", _parse_reply_to),
    DEADLINE: ("deadline_ms", _parse_deadline),
    ROW_ERRORS: ("row_errors", _parse_row_errors),
}
_FIRST = {*PASSED_THROUGH, RELATED_CLOUD_EVENT_ID}

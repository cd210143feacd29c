"""Record headers: what a request's say, and what a result's carry on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from schemas.errors import InferenceError, InvalidHeaderError, UnsupportedContentTypeError
from schemas.limits import Limits

RawHeaders = tuple[tuple[str, bytes], ...]
Encoding = Literal["msgpack", "json"]

CONTENT_TYPE = "content-type"
CONTENT_TYPES: dict[str, Encoding] = {"application/msgpack": "msgpack", "application/json": "json"}
REPLY_TO = "reply-to"
DEADLINE = "deadline"
PRIORITY = "priority"
PASSED_THROUGH = ("correlation-id", "traceparent", "tracestate")
CLOUD_EVENT_ID = "ce_id"
RELATED_CLOUD_EVENT_ID = "ce_relatedid"
PRIORITY_DEFAULT = 5

DEADLINE_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""
_DEADLINE = re.compile(r"[0-9]{1,15}", re.ASCII)
_PRIORITY = re.compile(r"[1-9]", re.ASCII)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_CHARSETS = ("utf-8", "utf8", "us-ascii")


class RequestHeaders(msgspec.Struct, frozen=True):
    """What the headers of a request mean; `passed_through` is already as the result carries it."""

    encoding: Encoding = "msgpack"
    passed_through: RawHeaders = ()
    reply_to: str | None = None
    deadline_ms: int | None = None
    """Unix milliseconds."""
    priority: int = PRIORITY_DEFAULT


NO_HEADERS = RequestHeaders()


def parse_headers(headers: Sequence[tuple[str, bytes | None]], limits: Limits) -> RequestHeaders:
    """What the headers of a request mean.

    Only those that the wire names mean something; others are counted and measured alone. A header without a value says
    nothing. `InvalidHeaderError` for too many or too large ones, and for a meaningful one that is repeated, no UTF-8,
    or not what it must be; `UnsupportedContentTypeError`. Each error names the header.
    """
    if not headers:
        return NO_HEADERS
    if len(headers) > limits.headers_max:
        raise InvalidHeaderError(f"headers: {len(headers)}, and {limits.headers_max} are allowed")
    fields: dict[str, Any] = {}
    passed_through: list[tuple[str, bytes]] = []
    seen: set[str] = set()
    for name, value in headers:
        _check_size(name, value, limits)
        if name not in _MEANINGFUL:
            continue
        if name in seen:
            raise InvalidHeaderError(f"header {name}: it comes twice")
        seen.add(name)
        if value is not None:
            _take(name, value, fields, passed_through)
    return RequestHeaders(passed_through=tuple(passed_through), **fields)


def readable_headers(headers: Sequence[tuple[str, bytes | None]], limits: Limits) -> RequestHeaders:
    """What can be used of headers that `parse_headers` refuses, so that the answer still finds its reader.

    Encoding and the headers passed through, of those that are right by themselves and come once; nothing else.
    """
    fields: dict[str, Any] = {}
    passed_through: list[tuple[str, bytes]] = []
    times = Counter(name for name, _ in headers)
    for name, value in headers:
        if value is None or times[name] > 1 or not (name in _PASSED_AS or name == CONTENT_TYPE):
            continue
        try:
            _check_size(name, value, limits)
            _take(name, value, fields, passed_through)
        except InferenceError:
            continue
    return RequestHeaders(passed_through=tuple(passed_through), **fields)


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


def _check_size(name: str, value: bytes | None, limits: Limits) -> None:
    size = len(name.encode("utf-8", "surrogateescape")) + len(value or b"")
    if size > limits.header_bytes_max:
        raise InvalidHeaderError(
            f"header {name[:80]!r}: {size} bytes of name and value, and {limits.header_bytes_max} are allowed"
        )


def _take(name: str, value: bytes, fields: dict[str, Any], passed_through: list[tuple[str, bytes]]) -> None:
    """Add what a meaningful header says to `fields`, or to what is passed through."""
    if (passed_as := _PASSED_AS.get(name)) is not None:
        _text(name, value)
        passed_through.append((passed_as, value))
        return
    field, parse = _PARSED[name]
    fields[field] = parse(value)


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


def _parse_priority(value: bytes) -> int:
    text = _text(PRIORITY, value)
    if not _PRIORITY.fullmatch(text):
        raise InvalidHeaderError(f"header {PRIORITY}: {text[:80]!r} is not one of 1 (high) to 9 (low)")
    return int(text)


_PASSED_AS = {**{name: name for name in PASSED_THROUGH}, CLOUD_EVENT_ID: RELATED_CLOUD_EVENT_ID}
_PARSED: dict[str, tuple[str, Callable[[bytes], Any]]] = {
    CONTENT_TYPE: ("encoding", parse_content_type),
    REPLY_TO: ("reply_to", _parse_reply_to),
    DEADLINE: ("deadline_ms", _parse_deadline),
    PRIORITY: ("priority", _parse_priority),
}
_MEANINGFUL = _PASSED_AS.keys() | _PARSED.keys()

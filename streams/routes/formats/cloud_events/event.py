"""Opens the events of records."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec

from inferd.schemas.cloud_events import (
    Attribute,
    attributes_of_headers,
    decode_event,
    headers_of_attributes,
    is_event,
)
from inferd.schemas.codecs import CONTENT_TYPE
from inferd.schemas.errors import InferenceError, MalformedError, UnsupportedContentTypeError
from inferd.schemas.headers import CLOUD_EVENT, CLOUD_EVENT_PREFIX
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.routes import format_of
from inferd.streams.routes.formats.format import Headers, SourceRecord

_EVENTS = "application/cloudevents"
"""What the content types of events begin with: in another format, or of several events."""
# The broker limits the size of records of others.
_LIMITS = replace(DEFAULT_LIMITS, message_bytes_max=2**31 - 1)


class Data(msgspec.Struct, frozen=True, gc=False):
    """The data of an event: a `SourceRecord` of the data's format."""

    value: bytes | None
    key: bytes | None
    headers: Headers


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event."""

    data: Data
    data_format: str
    attributes: dict[str, Attribute]
    structured: bool
    schema: Any = None
    """What the writer of the data's format needs."""

    def headers(self) -> Headers:
        """The headers that paths lead to: the attributes are among them."""
        return (*self.data.headers, *headers_of_attributes(self.attributes)) if self.structured else self.data.headers


def open_event(record: SourceRecord, data_format: str | None) -> Event | InferenceError:
    """The event of a record. `data_format`: of its data, whatever its content type says."""
    content_type = _content_type(record.headers)
    try:
        if content_type is not None and content_type.startswith(_EVENTS):
            if content_type.partition(";")[0].strip() != CLOUD_EVENT:
                raise UnsupportedContentTypeError(
                    f"CloudEvent: content-type {content_type[:80]!r}: a record is one event, in binary mode or in"
                    f" {CLOUD_EVENT}"
                )
            return _structured(record, data_format)
        return _binary(record, content_type, data_format)
    except InferenceError as error:
        return error


def _meaning(header: str) -> str | None:
    """`CONTENT_TYPE`, or the name of the attribute with its prefix, in lower case; None for other headers."""
    return _meaning_of_short(header) if len(header) <= _CACHED_NAME_MAX else _meaning_of(header)


def _meaning_of(header: str) -> str | None:
    lower = header.lower()
    return lower if lower == CONTENT_TYPE or lower.startswith(CLOUD_EVENT_PREFIX) else None


_CACHED_NAME_MAX = 64
_meaning_of_short = lru_cache(maxsize=1_024)(_meaning_of)


def describes_event(header: str) -> bool:
    """Whether a header is an attribute of an event or the type of its data."""
    return _meaning(header) is not None


def _content_type(headers: Headers) -> str | None:
    for name, value in reversed(headers):
        if value is not None and _meaning(name) == CONTENT_TYPE:
            return value.decode("utf-8", "replace").strip().lower()
    return None


def _structured(record: SourceRecord, data_format: str | None) -> Event:
    event = decode_event(record.value, _LIMITS)
    if event.data is None:
        raise MalformedError("CloudEvent: it has no data")
    named = event.attributes.get("datacontenttype")
    name = data_format or _format_of(named, "json" if event.is_json else "msgpack")
    if event.is_json and name != "json":
        raise MalformedError(f"CloudEvent: data in the format {name} is sent in data_base64")
    return Event(Data(event.data, record.key, record.headers), name, event.attributes, structured=True)


def _binary(record: SourceRecord, content_type: str | None, data_format: str | None) -> Event:
    attributes = [
        (meaning[len(CLOUD_EVENT_PREFIX) :], value)
        for name, value in record.headers
        if value is not None and (meaning := _meaning(name)) is not None and meaning != CONTENT_TYPE
    ]
    if not is_event(name for name, _ in attributes):
        raise MalformedError(
            f"record: no CloudEvent: it has neither headers ce_specversion, … nor the content-type {CLOUD_EVENT}"
        )
    checked = attributes_of_headers(attributes)
    name = data_format or _format_of(content_type, "msgpack")
    return Event(Data(record.value, record.key, record.headers), name, checked, structured=False)


def _format_of(content_type: object, default: str) -> str:
    if content_type is None:
        return default
    name = format_of(str(content_type))
    if name is None:
        raise UnsupportedContentTypeError(
            f"CloudEvent: data of type {str(content_type)[:80]!r}: no format of routes; if it is, name it in the option"
            " 'data' of the route"
        )
    return name

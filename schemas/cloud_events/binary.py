"""Binary mode: attributes are record headers `ce_<name>`, the data is the record's value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from inferd.schemas.cloud_events.attributes import Attribute, check_attributes, text_of
from inferd.schemas.codecs import printable
from inferd.schemas.errors import InvalidHeaderError

PREFIX = "ce_"


def attributes_of_headers(headers: Iterable[tuple[str, bytes]]) -> dict[str, Attribute]:
    """The checked attributes of an event from its headers, whose names have lost their prefix.

    `InvalidHeaderError` for one that is no UTF-8 or is there twice, and for attributes that no event has.
    """
    attributes: dict[str, Attribute] = {}
    for name, value in headers:
        if name in attributes:
            raise InvalidHeaderError(f"CloudEvent: the header {PREFIX}{printable(name[:40])} appears twice")
        try:
            attributes[name] = value.decode()
        except UnicodeDecodeError as error:
            raise InvalidHeaderError(f"header {PREFIX}{printable(name[:40])}: not UTF-8: {error.reason}") from None
    check_attributes(attributes, InvalidHeaderError)
    return attributes


def headers_of_attributes(attributes: Mapping[str, Attribute]) -> tuple[tuple[str, bytes], ...]:
    """The headers for the attributes of an event."""
    return tuple((PREFIX + name, text_of(value).encode()) for name, value in attributes.items())

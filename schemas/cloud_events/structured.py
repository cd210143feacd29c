"""Structured mode: the record's value is a JSON object of the attributes and the data."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from inferd.schemas.cloud_events.attributes import Attribute, check_attributes
from inferd.schemas.codecs import DECODE_ERRORS, JSON, Decoders, check_nesting, check_size, decode_error, printable
from inferd.schemas.errors import MalformedError
from inferd.schemas.limits import Limits

DATA, DATA_BASE64 = "data", "data_base64"
DATA_TYPE = "datacontenttype"
JSON_TYPE = "application/json"
_FIELDS = Decoders(dict[str, msgspec.Raw])
_ATTRIBUTE = Decoders(Attribute | None)
_TEXT = Decoders(str)
_MEMBER = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*"(?:[^"\\]|\\.)*"[ \t\r\n]*:[ \t\r\n]*')
"""What is before the value of a member."""


class StructuredEvent(Struct, frozen=True):
    """An event. `data` is as it stands in the record's value (`is_json`), or what its base64 stands for; None without
    data."""

    attributes: dict[str, Attribute]
    data: bytes | None
    is_json: bool


def decode_event(value: bytes | None, limits: Limits) -> StructuredEvent:
    """Decodes an event; its data is not decoded.

    `MalformedError`, `TooDeepError` or `TooLargeError` if it is none.
    """
    data = check_size(value, limits.message_bytes_max, "CloudEvent")
    try:
        fields: dict[str, msgspec.Raw] = _FIELDS[JSON](data)
        if JSON.repeats_key(data, len(fields), (*fields, *fields.values())):
            raise ValueError("a key appears twice")
    except DECODE_ERRORS as error:
        raise decode_error(data, JSON, error, "CloudEvent", limits.depth_max) from None
    check_nesting(data, JSON, "CloudEvent")
    found = {name: _attribute(name, raw) for name, raw in fields.items() if name not in (DATA, DATA_BASE64)}
    attributes = {name: attribute for name, attribute in found.items() if attribute is not None}
    check_attributes(attributes, MalformedError)
    if DATA in fields and DATA_BASE64 in fields:
        raise MalformedError("CloudEvent: it has both data and data_base64")
    if DATA_BASE64 in fields:
        return StructuredEvent(attributes, _decoded(fields[DATA_BASE64]), is_json=False)
    raw = bytes(fields.get(DATA, b"null"))
    return StructuredEvent(attributes, None if raw == b"null" else raw, is_json=True)


def replace_data(value: bytes, data: bytes) -> bytes:
    """An event that `decode_event` reads, with other data of the same type; every other byte stays.

    `data` is JSON if that of the event is, else it becomes base64.
    """
    fields: dict[str, msgspec.Raw] = _FIELDS[JSON](value)
    at = 0
    for name, raw in fields.items():
        # Names are unique, so that the members are in this order, and each value has these bytes.
        member = _MEMBER.match(value, at)
        assert member is not None
        at = member.end() + len(raw)
        if name in (DATA, DATA_BASE64):
            assert value[member.end() : at] == bytes(raw)
            encoded = data if name == DATA else b'"%b"' % binascii.b2a_base64(data, newline=False)
            return value[: member.end()] + encoded + value[at:]
    raise ValueError("the event has no data")


def encode_event(attributes: Mapping[str, Attribute], data: bytes, data_type: str) -> bytes:
    """Encodes an event; `data` is JSON if its type says so, else it becomes base64."""
    fields: dict[str, Any] = {**attributes, DATA_TYPE: data_type}
    if data_type == JSON_TYPE or data_type.endswith("+json"):
        fields[DATA] = msgspec.Raw(data)
    else:
        fields[DATA_BASE64] = binascii.b2a_base64(data, newline=False).decode()
    return JSON.encode(fields)


def _attribute(name: str, raw: msgspec.Raw) -> Attribute | None:
    try:
        attribute: Attribute | None = _ATTRIBUTE[JSON](raw)
    except DECODE_ERRORS:
        raise MalformedError(
            f"CloudEvent: the attribute {printable(name[:40])} is neither a string, a boolean nor an integer"
        ) from None
    return attribute


def _decoded(raw: msgspec.Raw) -> bytes:
    try:
        return binascii.a2b_base64(_TEXT[JSON](raw), strict_mode=True)
    except DECODE_ERRORS as error:
        raise MalformedError(f"CloudEvent: data_base64 is not base64: {printable(str(error))}") from None

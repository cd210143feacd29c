"""Requests and responses as values of records: a record names its model itself, since it has no path."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from inferd.schemas.codecs import MSGPACK, check_size
from inferd.schemas.errors import InferenceError, InvalidHeaderError, MalformedError
from inferd.schemas.headers import JSON_LENGTH
from inferd.schemas.limits import Limits
from inferd.schemas.open_inference.request import (
    NamedRequest,
    decode_named_request,
    model_reference,
    parse_json_length,
    wire_request,
)
from inferd.schemas.open_inference.response import encode_error, encode_response
from inferd.schemas.requests import ID_PATTERN, Failure, decode_result

NAME_HEADER, VERSION_HEADER = "mlserver-model", "mlserver-version"
"""Headers that name the model of a request which does not, as MLServer reads them from Kafka."""
_OWN_ID = re.compile(ID_PATTERN, re.ASCII)


class RecordRequest(Struct, frozen=True):
    """A request of the protocol as one of ours."""

    value: bytes | InferenceError
    """MessagePack, with the protocol's id if it is a valid id of ours; or why there is none."""
    model_id: str | None
    """The model reference; None if there is none."""
    asked: NamedRequest | None
    """What the answer depends on; None if it could not be decoded."""


def open_record(
    value: bytes | None, headers: Sequence[tuple[str, bytes | None]], limits: Limits, *, binary: bool = True
) -> RecordRequest:
    """Reads a request; `headers` may name its model, and the length of its JSON if binary tensors may follow."""
    asked: NamedRequest | None = None
    model_id: str | None = None
    try:
        asked, rest = decode_record(value, headers if binary else (), limits)
        model_id = _model_of(asked, headers)
        own_id = asked.id if asked.id is not None and _OWN_ID.fullmatch(asked.id) else None
        return RecordRequest(wire_request(asked, rest, model_id, own_id, limits), model_id, asked)
    except InferenceError as error:
        return RecordRequest(error, model_id, asked)


def decode_record(
    value: bytes | None, headers: Sequence[tuple[str, bytes | None]], limits: Limits
) -> tuple[NamedRequest, bytes]:
    """The request in a record, and the bytes of its binary tensors, if `headers` have the length of its JSON.

    `InvalidHeaderError`, and what `decode_request` raises.
    """
    length = _header(headers, JSON_LENGTH)
    body = check_size(value, limits.message_bytes_max, "request")
    return decode_named_request(body, None if length is None else parse_json_length(length), limits)


def encode_answer(
    result: bytes, asked: NamedRequest | None, limits: Limits, *, binary: bool = True
) -> tuple[bytes, int | None]:
    """The response for a MessagePack result of ours, and the length of its JSON if binary tensors follow."""
    found = decode_result(result, MSGPACK, limits)
    if not isinstance(found, Failure):
        return encode_response(found, asked or NamedRequest(inputs=[]), may_be_binary=binary)
    return encode_error(found.code, found.message, asked), None


def _model_of(asked: NamedRequest, headers: Sequence[tuple[str, bytes | None]]) -> str:
    name = asked.model_name or _header(headers, NAME_HEADER)
    if not name:
        raise MalformedError(f"request: no model: name it in model_name, or in the header {NAME_HEADER}")
    version = asked.model_version if asked.model_version is not None else _header(headers, VERSION_HEADER)
    return str(model_reference(name, None if version in (None, "") else str(version)))


def _header(headers: Sequence[tuple[str, bytes | None]], name: str) -> str | None:
    """The value of a header; None without it. `InvalidHeaderError` for several ones."""
    values = {value for key, value in headers if key.lower() == name and value is not None}
    if len(values) > 1:
        raise InvalidHeaderError(f"header {name}: it appears twice with different values")
    return values.pop().decode("utf-8", "replace") if values else None

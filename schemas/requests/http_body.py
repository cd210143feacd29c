"""The body of a prediction over HTTP: a request without its model_id, which the path names."""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.schemas.errors import MalformedError
from inferd.schemas.headers import Encoding
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.strict import DECODE_ERRORS, check_size, decode_error, header, repeats_key

_Fields = dict[str, msgspec.Raw]
_DECODE: dict[Encoding, Any] = {
    "json": msgspec.json.Decoder(_Fields).decode,
    "msgpack": msgspec.msgpack.Decoder(_Fields).decode,
}
_ENCODE: dict[Encoding, Any] = {"json": msgspec.json.Encoder().encode, "msgpack": msgspec.msgpack.Encoder().encode}
_DEPTH_MAX = DEFAULT_LIMITS.depth_max


def request_of_body(body: bytes, encoding: Encoding, model_id: str, default_id: str) -> bytes:
    """The request that `body` is for the model `model_id`; its id is `default_id` unless the body has one.

    The values of the fields are not looked at: they are the same bytes in the request. `MalformedError` or
    `TooDeepError` where the body is no map, has a key twice, or names a model itself.
    """
    try:
        fields: _Fields = _DECODE[encoding](check_size(body, len(body), "body"))
    except DECODE_ERRORS as error:
        raise decode_error(body, encoding, error, "body", _DEPTH_MAX) from None
    if _repeats_key(body, encoding, fields):
        raise decode_error(body, encoding, ValueError("a key comes twice"), "body", _DEPTH_MAX)
    if "model_id" in fields:
        raise MalformedError("body: the path names the model: leave model_id out")
    request: bytes = _ENCODE[encoding]({"id": default_id, "model_id": model_id, **fields})
    return request


def _repeats_key(body: bytes, encoding: Encoding, fields: _Fields) -> bool:
    if encoding == "msgpack":
        return header(body)[1] != len(fields)
    # Each key brings one colon beside those inside keys and values: only other counts are worth reading all of it.
    within = sum(name.count(":") + bytes(value).count(b":") for name, value in fields.items())
    return body.count(b":") - within != len(fields) and repeats_key(body)

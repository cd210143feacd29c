"""The body of a prediction over HTTP: a request without its model_id, which the path names."""

from __future__ import annotations

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, Codec, Decoders, check_size, decode_error
from inferd.schemas.errors import MalformedError
from inferd.schemas.limits import DEFAULT_LIMITS

_FIELDS = Decoders(dict[str, msgspec.Raw])
_DEPTH_MAX = DEFAULT_LIMITS.depth_max


def request_of_body(body: bytes, codec: Codec, model_id: str, default_id: str) -> bytes:
    """The request in `body` for the model `model_id`; its id is `default_id` unless the body has one.

    The values of the fields are not decoded: their bytes are the same in the request. `MalformedError` or
    `TooDeepError` if the body is not a map, has a repeated key, or has a field `model_id`.
    """
    try:
        fields: dict[str, msgspec.Raw] = _FIELDS[codec](check_size(body, len(body), "body"))
    except DECODE_ERRORS as error:
        raise decode_error(body, codec, error, "body", _DEPTH_MAX) from None
    if codec.repeats_key(body, len(fields), (*fields, *fields.values())):
        raise decode_error(body, codec, ValueError("a key appears twice"), "body", _DEPTH_MAX)
    if "model_id" in fields:
        raise MalformedError("body: the path names the model: leave model_id out")
    return codec.encode({"id": default_id, "model_id": model_id, **fields})

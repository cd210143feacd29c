"""Decodes prediction requests and, for clients, encodes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from inferd.schemas.codecs import MSGPACK, Codec, find_fault
from inferd.schemas.errors import (
    InferenceError,
    InvalidIdError,
    InvalidValueError,
    MalformedError,
    TooDeepError,
    TooLargeError,
)
from inferd.schemas.limits import Limits
from inferd.schemas.requests.client_input import wire_input
from inferd.schemas.requests.envelope import check_envelope, check_outputs, decode_envelope
from inferd.schemas.requests.input_data import decode_input_data
from inferd.schemas.requests.request import (
    ModelReference,
    Output,
    PredictionRequest,
    check_id,
)

UNREADABLE = (MalformedError, TooLargeError, TooDeepError, InvalidIdError)
"""Errors after which no field of the request can be trusted, not even its id."""


def decode_request(value: bytes | None, codec: Codec, limits: Limits) -> PredictionRequest:
    """Decode a request.

    Raises the first error in this order, so that the same bytes always get the same error:

    1. `malformed` for no value, `too_large` for bytes over the limit;
    2. `malformed`, `too_deep` for bytes that are not a map of the request's fields, each once and of its type
       (`invalid_value` for too many outputs);
    3. if the id, the model_id or the outputs are invalid: `malformed`, `too_deep` for a structural fault anywhere;
    4. `invalid_id` for the id, then for the model_id, `invalid_value` for the outputs;
    5. the errors of `decode_input_data`.
    """
    envelope = decode_envelope(value, codec, limits)
    try:
        id_, model, outputs = check_envelope(envelope, limits)
    except InferenceError as error:
        if fault := find_fault(value or b"", codec, limits.depth_max):
            raise type(fault)(f"request: {fault.message}") from None
        raise error from None
    return PredictionRequest(model, decode_input_data(envelope.input_data, codec, limits), outputs, id_)


def request_identity(value: bytes | None, codec: Codec, limits: Limits) -> tuple[str | None, str | None]:
    """Id and model_id of a request that can be decoded but not scored, for its error result.

    (None, None) if `decode_request` raises one of `UNREADABLE`. The id is None if the request has none.
    """
    try:
        decode_request(value, codec, limits)
    except UNREADABLE:
        return None, None
    except InferenceError:
        pass
    try:
        envelope = decode_envelope(value, codec, limits)
    except InvalidValueError:  # too many outputs: the envelope was not decoded to its end
        return None, None
    return None if envelope.id is UNSET else envelope.id, envelope.model_id


def encode_request(
    input_data: Any,
    model_id: str,
    *,
    outputs: Sequence[Output] | None = None,
    id: str | None = None,  # noqa: A002  # the wire's own name
    codec: Codec = MSGPACK,
) -> bytes:
    """Encode a request for `input_data` (see `wire_input`), with the fields in wire order.

    `InvalidIdError` for the id or the model_id, `InvalidValueError` for outputs and for values that cannot be encoded.
    """
    request: dict[str, Any] = {} if id is None else {"id": check_id(id)}
    ModelReference.parse(model_id)
    request["model_id"] = model_id
    request["input_data"] = wire_input(input_data, codec)
    if outputs is not None:
        request["outputs"] = list(check_outputs(list(outputs)))
    try:
        return codec.encode(request)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidValueError(f"input_data cannot be sent as {codec.name}: {error}") from None

"""The outer map of a prediction request, with `input_data` left as bytes: the hot path of a batch.

A caller with thousands of messages loops itself, and leaves whatever raises or is odd to `decode_request`, which says
what is wrong:

    try:
        envelope = decode_msgpack_envelope(value)
    except DECODE_ERRORS: …
    if len(value) > limits.message_bytes_max or not has_each_key_once(value, envelope): …
    id, model, outputs = check_envelope(envelope, limits)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from inferd.schemas.errors import InvalidIdError, InvalidValueError, TooDeepError
from inferd.schemas.headers import Encoding
from inferd.schemas.limits import Limits
from inferd.schemas.requests.request import (
    DEFAULT_OUTPUTS,
    OUTPUTS,
    ModelReference,
    Output,
    check_id,
)
from inferd.schemas.strict import DECODE_ERRORS, check_size, header, refusal, repeats_key

# More names than there are outputs cannot all be right: they are refused unread.
_OutputNames = Annotated[list[str], msgspec.Meta(max_length=len(OUTPUTS))]


class Envelope(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A request whose fields have the right types; the grammar of ids, the names of outputs, and `input_data` are not
    yet looked at."""

    model_id: str
    input_data: msgspec.Raw
    """The value's own bytes, a view into the message."""
    id: str | UnsetType = UNSET
    outputs: _OutputNames | UnsetType = UNSET


decode_msgpack_envelope = msgspec.msgpack.Decoder(Envelope).decode
decode_json_envelope = msgspec.json.Decoder(Envelope).decode
parse_reference = lru_cache(maxsize=4_096)(ModelReference.parse)
"""`ModelReference.parse`, remembering references that are valid."""

_OUTPUT_OF: dict[str, Output] = {output: output for output in OUTPUTS}
_TOO_MANY_OUTPUTS = "Expected `array` of length"
"""How msgspec words the one length that is limited here."""


def decode_envelope(value: bytes | None, encoding: Encoding, limits: Limits) -> Envelope:
    """The fields of the request in `value`: each there once, of its type, and none besides.

    `TooLargeError`, `MalformedError` or `TooDeepError` where it is no such map; `InvalidValueError` for more outputs
    than there are.
    """
    if not value or len(value) > limits.message_bytes_max:
        value = check_size(value, limits.message_bytes_max, "request")
    try:
        if encoding == "msgpack":
            envelope = decode_msgpack_envelope(value)
            once = has_each_key_once(value, envelope)
        else:
            envelope = decode_json_envelope(value)
            once = _has_each_json_key_once(value, envelope)
    except DECODE_ERRORS as error:
        refused = refusal(value, encoding, error, "request", limits.depth_max)
        if str(error).startswith(_TOO_MANY_OUTPUTS) and not isinstance(refused, TooDeepError):
            refused = InvalidValueError(f"outputs: more names than there are outputs ({', '.join(OUTPUTS)})")
        raise refused from None
    if not once and (encoding == "msgpack" or repeats_key(value)):
        raise refusal(value, encoding, ValueError("a key comes twice"), "request", limits.depth_max)
    return envelope


def has_each_key_once(value: bytes, envelope: Envelope) -> bool:
    """Whether the map in the MessagePack `value` counts as many keys as `envelope` has fields set.

    Decoders keep the last of repeated keys silently; unknown keys were refused, so the counts differ just then.
    """
    fields = 2 + (envelope.id is not UNSET) + (envelope.outputs is not UNSET)
    return value[0] == 0x80 + fields or header(value)[1] == fields


def _has_each_json_key_once(value: bytes, envelope: Envelope) -> bool:
    """Whether `value` is seen at a glance to repeat none of its outermost keys; False says nothing.

    Without escapes, each key brings a colon, and so does each one inside an id. Colons left over belong to a repeated
    key or to another string: too many may be harmless, but as many as expected leave no room for a repeated key.
    """
    if b"\\" in value:
        return False
    colons = value.count(b":") - bytes(envelope.input_data).count(b":") - envelope.model_id.count(":")
    fields = 2
    if envelope.id is not UNSET:
        fields += 1
        colons -= envelope.id.count(":")
    return colons == fields + (envelope.outputs is not UNSET)


def check_envelope(envelope: Envelope, limits: Limits) -> tuple[str | None, ModelReference, tuple[Output, ...]]:
    """Id (None where there is none), model and outputs of a request.

    `InvalidIdError` for the id, then for the model_id; then `InvalidValueError` for the outputs.
    """
    id_ = None if envelope.id is UNSET else envelope.id
    if id_ is not None:
        check_id(id_)
        if len(id_) > limits.id_chars_max:
            raise InvalidIdError(f"id {id_[:80]!r}: {len(id_)} characters, and {limits.id_chars_max} are allowed")
    model = parse_reference(envelope.model_id)
    return id_, model, DEFAULT_OUTPUTS if envelope.outputs is UNSET else check_outputs(envelope.outputs)


def check_outputs(names: list[str]) -> tuple[Output, ...]:
    """The outputs of these names, in their order; `InvalidValueError` for none, an unknown or a repeated one."""
    if not names:
        raise InvalidValueError(f"outputs: an empty list; leave it out, or name any of {', '.join(OUTPUTS)}")
    for place, name in enumerate(names):
        if name not in _OUTPUT_OF:
            raise InvalidValueError(f"outputs: {name[:80]!r} is unknown; there are {', '.join(OUTPUTS)}")
        if name in names[:place]:
            raise InvalidValueError(f"outputs: {name!r} is named twice")
    return tuple([_OUTPUT_OF[name] for name in names])

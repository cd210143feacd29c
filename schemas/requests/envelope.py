"""The outer map of a prediction request, with `input_data` left undecoded: the hot path of a batch.

A caller with thousands of records runs this loop itself and passes records that fail a check to `decode_request`,
which raises the exact error:

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
from inferd.schemas.strict import DECODE_ERRORS, check_size, decode_error, header, repeats_key

# A list with more names than there are outputs has an unknown or a repeated name: it is rejected without decoding it.
_OutputNames = Annotated[list[str], msgspec.Meta(max_length=len(OUTPUTS))]


class Envelope(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A request whose fields have the right types. Ids, names of outputs and `input_data` are not yet checked."""

    model_id: str
    input_data: msgspec.Raw
    """The encoded value, a view into the record's bytes."""
    id: str | UnsetType = UNSET
    outputs: _OutputNames | UnsetType = UNSET


decode_msgpack_envelope = msgspec.msgpack.Decoder(Envelope).decode
decode_json_envelope = msgspec.json.Decoder(Envelope).decode
parse_reference = lru_cache(maxsize=4_096)(ModelReference.parse)
"""`ModelReference.parse`; valid references are cached."""

_OUTPUT_OF: dict[str, Output] = {output: output for output in OUTPUTS}
_TOO_MANY_OUTPUTS = "Expected `array` of length"
"""Start of msgspec's message for a list that is too long; `outputs` is the only one with a limit."""


def decode_envelope(value: bytes | None, encoding: Encoding, limits: Limits) -> Envelope:
    """Decode the fields of a request: each exactly once and of its type, no others.

    `TooLargeError`, `MalformedError` or `TooDeepError` if `value` is no such map; `InvalidValueError` for more outputs
    than exist.
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
        rejected = decode_error(value, encoding, error, "request", limits.depth_max)
        if str(error).startswith(_TOO_MANY_OUTPUTS) and not isinstance(rejected, TooDeepError):
            rejected = InvalidValueError(f"outputs: more names than outputs exist ({', '.join(OUTPUTS)})")
        raise rejected from None
    if not once and (encoding == "msgpack" or repeats_key(value)):
        raise decode_error(value, encoding, ValueError("a key appears twice"), "request", limits.depth_max)
    return envelope


def has_each_key_once(value: bytes, envelope: Envelope) -> bool:
    """Whether the MessagePack map `value` has as many keys as `envelope` has fields set.

    The decoder keeps the last of duplicate keys silently and rejects unknown keys, so the counts differ only if a key
    is duplicated.
    """
    fields = 2 + (envelope.id is not UNSET) + (envelope.outputs is not UNSET)
    return value[0] == 0x80 + fields or header(value)[1] == fields


def _has_each_json_key_once(value: bytes, envelope: Envelope) -> bool:
    """A fast check that no outermost key is duplicated. True is certain; False means that a full check is needed.

    Without escapes, each key adds one colon, and so does each colon inside an id. Extra colons belong to a duplicate
    key or to another string. If there are exactly as many as expected, no key is duplicated.
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
    """Id (None if absent), model and outputs of a request.

    `InvalidIdError` for the id, then for the model_id; then `InvalidValueError` for the outputs.
    """
    id_ = None if envelope.id is UNSET else envelope.id
    if id_ is not None:
        check_id(id_)
        if len(id_) > limits.id_chars_max:
            raise InvalidIdError(f"id {id_[:80]!r}: {len(id_)} characters; at most {limits.id_chars_max} are allowed")
    model = parse_reference(envelope.model_id)
    return id_, model, DEFAULT_OUTPUTS if envelope.outputs is UNSET else check_outputs(envelope.outputs)


def check_outputs(names: list[str]) -> tuple[Output, ...]:
    """The outputs with these names, in this order; `InvalidValueError` for no name, an unknown or a repeated one."""
    if not names:
        raise InvalidValueError(f"outputs: an empty list; omit the field, or name any of {', '.join(OUTPUTS)}")
    for index, name in enumerate(names):
        if name not in _OUTPUT_OF:
            raise InvalidValueError(f"outputs: {name[:80]!r} is unknown; expected any of {', '.join(OUTPUTS)}")
        if name in names[:index]:
            raise InvalidValueError(f"outputs: {name!r} is named twice")
    return tuple([_OUTPUT_OF[name] for name in names])

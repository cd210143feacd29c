"""The outer map of a prediction request, with `input_data` left undecoded: the hot path of a batch.

A caller with thousands of records runs this loop itself and passes records that fail a check to `decode_request`,
which raises the exact error:

    try:
        envelope = ENVELOPE_DECODERS[codec](value)
    except DECODE_ERRORS: …
    if len(value) > limits.message_bytes_max or repeats_key(value, envelope, codec): …
    id, model, outputs = check_envelope(envelope, limits)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import msgspec
from msgspec import UNSET, UnsetType

from inferd.schemas.codecs import DECODE_ERRORS, JSON, Codec, Decoders, check_size, decode_error
from inferd.schemas.errors import InvalidIdError, InvalidValueError, TooDeepError
from inferd.schemas.limits import Limits
from inferd.schemas.requests.request import (
    DEFAULT_OUTPUTS,
    OUTPUT_CHARS_MAX,
    OUTPUTS,
    OUTPUTS_MAX,
    ModelReference,
    Output,
    OutputNames,
    check_id,
)


class Envelope(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A request whose fields have the right types. Ids, names of outputs and `input_data` are not yet checked."""

    model_id: str
    input_data: msgspec.Raw
    """The encoded value, a view into the record's bytes."""
    id: str | UnsetType = UNSET
    outputs: OutputNames | UnsetType = UNSET


ENVELOPE_DECODERS: Mapping[Codec, Callable[[bytes | None], Envelope]] = Decoders(Envelope)
"""The decoder of each codec; it raises one of `DECODE_ERRORS`."""
parse_reference = lru_cache(maxsize=4_096)(ModelReference.parse)
"""`ModelReference.parse`; valid references are cached."""
_JSON_REQUEST, _JSON_ID = '{"model_id":"","input_data":}', '"id":"",'
"""The shortest request, and the shortest other field."""

_TOO_MANY_OUTPUTS = "Expected `array` of length"
"""Start of msgspec's message for a list that is too long; `outputs` is the only one with a limit."""


def decode_envelope(value: bytes | None, codec: Codec, limits: Limits) -> Envelope:
    """Decode the fields of a request: each exactly once and of its type, no others.

    `TooLargeError`, `MalformedError` or `TooDeepError` if `value` is no such map; `InvalidValueError` for too many
    outputs.
    """
    if not value or len(value) > limits.message_bytes_max:
        value = check_size(value, limits.message_bytes_max, "request")
    try:
        envelope = ENVELOPE_DECODERS[codec](value)
        if repeats_key(value, envelope, codec):
            raise ValueError("a key appears twice")
    except DECODE_ERRORS as error:
        rejected = decode_error(value, codec, error, "request", limits.depth_max)
        if str(error).startswith(_TOO_MANY_OUTPUTS) and not isinstance(rejected, TooDeepError):
            rejected = InvalidValueError(f"outputs: more than {OUTPUTS_MAX} names")
        raise rejected from None
    return envelope


def repeats_key(value: bytes, envelope: Envelope, codec: Codec) -> bool:
    """Whether a key of the decoded map `value` appears twice: the decoder rejects unknown keys, and keeps the last of
    duplicate ones."""
    if codec is JSON and envelope.outputs is UNSET and len(value) < _json_bytes(envelope) + len(_JSON_ID):
        return False  # no room for another key
    fields = 2 + (envelope.id is not UNSET) + (envelope.outputs is not UNSET)
    texts = (envelope.model_id,) if envelope.id is UNSET else (envelope.model_id, envelope.id)
    return codec.repeats_key(value, fields, (envelope.input_data, *texts))


def _json_bytes(envelope: Envelope) -> int:
    """The bytes that a request without outputs takes at least."""
    size = len(_JSON_REQUEST) + len(envelope.model_id) + len(envelope.input_data)
    return size if envelope.id is UNSET else size + len(_JSON_ID) + len(envelope.id)


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
    """The outputs with these names, in the order of results: those of `OUTPUTS`, then the model's own.

    `InvalidValueError` for no name, too many, a repeated one, and one that no output can have. Whether the model gives
    an output is known to the model alone (`ServedModel.check_outputs`).
    """
    if not names:
        raise InvalidValueError(f"outputs: an empty list; omit the field, or name any of {', '.join(OUTPUTS)}")
    if len(names) > OUTPUTS_MAX:
        raise InvalidValueError(f"outputs: more than {OUTPUTS_MAX} names")
    seen: set[str] = set()
    for name in names:
        if not 1 <= len(name) <= OUTPUT_CHARS_MAX:
            raise InvalidValueError(
                f"outputs: {name[:80]!r} has {len(name)} characters; 1 to {OUTPUT_CHARS_MAX} are allowed"
            )
        if name in seen:
            raise InvalidValueError(f"outputs: {name!r} is named twice")
        seen.add(name)
    return in_result_order(names)


def in_result_order(names: Iterable[Output]) -> tuple[Output, ...]:
    """`names` in the order of results: those of `OUTPUTS`, then the model's own, each in the given order."""
    return tuple(sorted(names, key=lambda name: name not in OUTPUTS))

"""A label: what was true of a request."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, Codec, Decoders, check_size, printable
from inferd.schemas.errors import InvalidValueError, MalformedError
from inferd.schemas.limits import Limits

LABEL_BYTES_MAX = 65_536
WEIGHT_MAX = 1e6
LabelValue = bool | int | float | str
"""A number, or a class label."""


class Label(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was true of a request."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    """Of the request."""
    label: LabelValue | list[LabelValue]
    """Of its only row, or one for each of its rows."""
    weight: float = 1.0
    """How much the request counts; more than 0, and at most `WEIGHT_MAX`."""


_DECODERS = Decoders(Label)


def encode_label(label: Label, codec: Codec) -> bytes:
    """The value of a record of `labels`."""
    return codec.encode(label)


def decode_label(value: bytes | None, codec: Codec, limits: Limits) -> Label:
    """The label in a record's value. `MalformedError`, `TooLargeError` or `InvalidValueError`; unknown fields are
    ignored."""
    data = check_size(value, LABEL_BYTES_MAX, "label")
    try:
        label: Label = _DECODERS[codec](data)
    except DECODE_ERRORS as error:
        raise MalformedError(f"label: {printable(str(error))}") from None
    check_label(label, limits)
    return label


def check_label(label: Label, limits: Limits) -> None:
    """Raises `InvalidValueError` for a value that the types do not exclude."""
    if len(label.id) > limits.id_chars_max:
        raise InvalidValueError(f"label: id has {len(label.id)} characters, the limit is {limits.id_chars_max}")
    if not 0 < label.weight <= WEIGHT_MAX:
        raise InvalidValueError(f"label: weight must be a number above 0, and at most {WEIGHT_MAX:g}")
    values = label.label if isinstance(label.label, list) else [label.label]
    if any(isinstance(each, float) and not math.isfinite(each) for each in values):
        raise InvalidValueError("label: not a finite number")

"""The typed decoders of rows, the layout of an `input_data`, and the place of a fault in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, Codec, Layout, find_fault, printable
from inferd.schemas.errors import InferenceError, InvalidValueError, MalformedError
from inferd.schemas.limits import Limits
from inferd.schemas.requests.request import Scalar

_TOO_LONG = "Expected `str` of length"
_OUT_OF_RANGE = ("Number out of range", "Integer value out of range", _TOO_LONG)
"""Starts of msgspec's messages for values that have the right type but are out of range."""


class RowDecoders(NamedTuple):
    """One decoder for each layout, and decoders of single values and of undecoded items."""

    row: Callable[[Any], list[Scalar]]
    rows: Callable[[Any], list[list[Scalar]]]
    named_row: Callable[[Any], dict[str, Scalar]]
    named_rows: Callable[[Any], list[dict[str, Scalar]]]
    scalar: Callable[[Any], Scalar]
    items: Callable[[Any], list[msgspec.Raw]]
    fields: Callable[[Any], dict[str, msgspec.Raw]]


@lru_cache(maxsize=16)
def row_decoders(codec: Codec, string_chars_max: int) -> RowDecoders:
    """The decoders of a codec. Strings of more than `string_chars_max` characters are rejected.

    Keys are not limited here: that would disable msgspec's key cache.
    """
    text: Any = Annotated[str, msgspec.Meta(max_length=string_chars_max)]
    scalar: Any = float | int | bool | text | None
    row: Any = list[scalar]
    named_row: Any = dict[str, scalar]
    types = (row, list[row], named_row, list[named_row], scalar, list[msgspec.Raw], dict[str, msgspec.Raw])
    return RowDecoders(*map(codec.decoder, types))


def layout_of(data: bytes, codec: Codec) -> Layout:
    """The layout of `data`, from its first bytes. An empty list is a row. `ValueError` if it is not a container."""
    kind, first = codec.kinds(data)
    if kind == "map":
        return "named_row"
    if kind != "array":
        raise ValueError("expected a row, rows, or a tensor of dtype, shape and data")
    return "rows" if first == "array" else "named_rows" if first == "map" else "row"


def row_decode_error(data: bytes, codec: Codec, error: Exception, limits: Limits) -> InferenceError:
    """The typed error for `input_data` that a decoder rejected with `error`: its structural fault, else the row and
    feature of the first invalid value."""
    if fault := find_fault(data, codec, limits.depth_max, depth=1):
        return type(fault)(f"input_data: {fault.message}")
    decoders = row_decoders(codec, limits.string_chars_max)
    try:
        where, cause = _mismatch(data, layout_of(data, codec), decoders)
    except DECODE_ERRORS:
        where, cause = "", error
    message = printable(str(cause).partition(" - at `")[0])
    error_type = InvalidValueError if message.startswith(_OUT_OF_RANGE) else MalformedError
    if message.startswith(_TOO_LONG):
        message = f"a string of more than {limits.string_chars_max} characters"
    return error_type(f"input_data: {where}{message}")


def _mismatch(data: bytes, layout: Layout, decoders: RowDecoders) -> tuple[str, Exception]:
    """Row and feature of the first value that does not fit the layout, and its error; `ValueError` if all fit."""
    if layout in ("row", "named_row"):
        where, cause = _mismatch_in_row(data, layout, decoders)
        return f"row 0, {where}", cause
    row_layout: Layout = "row" if layout == "rows" else "named_row"
    decode: Callable[[Any], object] = getattr(decoders, row_layout)
    for index, row in enumerate(decoders.items(data)):
        try:
            decode(row)
        except DECODE_ERRORS as error:
            try:
                where, cause = _mismatch_in_row(bytes(row), row_layout, decoders)
            except DECODE_ERRORS:
                where, cause = "", error
            return f"row {index}{', ' if where else ': '}{where}", cause
    raise ValueError("every row fits")


def _mismatch_in_row(data: bytes, layout: Layout, decoders: RowDecoders) -> tuple[str, Exception]:
    values: Iterable[tuple[object, msgspec.Raw]] = (
        enumerate(decoders.items(data)) if layout == "row" else decoders.fields(data).items()
    )
    for feature, value in values:
        try:
            decoders.scalar(value)
        except DECODE_ERRORS as error:
            return f"feature {str(feature)[:80]!r}: " if layout == "named_row" else f"feature {feature}: ", error
    raise ValueError("every value fits")

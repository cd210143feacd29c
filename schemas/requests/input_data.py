"""Strict decoding of `input_data`: one row, rows, a named row, named rows or a tensor.

Before values are decoded, their number is checked (`Codec.claimed_keys`). The typed decoders reject every value that is
not a scalar; a rejected input is scanned again to find the place.
"""

from __future__ import annotations

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, Codec, Layout, check_sizes, depth_fault
from inferd.schemas.errors import (
    InferenceError,
    SchemaMismatchError,
)
from inferd.schemas.limits import Limits
from inferd.schemas.requests.request import (
    InputData,
    ListRows,
    NamedRows,
    Scalar,
)
from inferd.schemas.requests.row_decoders import (
    RowDecoders,
    layout_of,
    row_decode_error,
    row_decoders,
)
from inferd.schemas.requests.tensors import decode_tensor, is_tensor

_TWICE = "a key appears twice"


def decode_input_data(raw: bytes | msgspec.Raw, codec: Codec, limits: Limits) -> InputData:
    """Decode the rows in `raw`. `[]` is no rows; `[[]]` is one row without features.

    `TooLargeError` for rows, features or values over the limits; `TooDeepError`; `MalformedError` for bytes, types and
    duplicate keys; `InvalidValueError` for a number beyond float64, a string over the limit, and a tensor's dtype and
    shape; `SchemaMismatchError` for ragged rows and names over the limit. Depth counts from the request's outer map.
    """
    data = bytes(raw)
    decoders = row_decoders(codec, limits.string_chars_max)
    try:
        layout = layout_of(data, codec)
        return _decode(data, layout, codec, decoders, limits)
    except DECODE_ERRORS as error:
        raise row_decode_error(data, codec, error, limits) from None
    except InferenceError as error:
        # A nesting fault takes precedence over a size or value error: another Python may detect it first.
        if fault := depth_fault(data, codec, limits.depth_max, depth=1):
            raise type(fault)(f"input_data: {fault.message}") from None
        raise error from None


def _decode(data: bytes, layout: Layout, codec: Codec, decoders: RowDecoders, limits: Limits) -> InputData:
    claimed = codec.claimed_keys(data, layout, limits)
    if layout == "row":
        row = decoders.row(data)
        codec.check_numbers(data, (row,))
        return ListRows([row] if row else [], single=bool(row))
    if layout == "rows":
        rows = decoders.rows(data)
        codec.check_numbers(data, rows)
        return _list_rows(rows, limits)
    single = layout == "named_row"
    if single and codec.mentions(data, b"shape") and is_tensor(fields := decoders.fields(data), codec):
        if codec.repeats_key(data, len(fields), ()):
            raise ValueError(_TWICE)
        return decode_tensor(fields, codec, limits)
    named = [decoders.named_row(data)] if single else decoders.named_rows(data)
    sizes = list(map(len, named))
    if codec.repeats_key(data, sum(sizes), ()) if claimed is None else sizes != claimed:
        raise ValueError(_TWICE)
    if claimed is None:
        check_sizes(sizes, limits)
    codec.check_numbers(data, named)
    return NamedRows(named, single)


def _list_rows(rows: list[list[Scalar]], limits: Limits) -> ListRows:
    sizes = [len(row) for row in rows]
    check_sizes(sizes, limits)
    if sizes.count(sizes[0]) != len(sizes):
        index = next(index for index, size in enumerate(sizes) if size != sizes[0])
        raise SchemaMismatchError(f"input_data: row {index} has {sizes[index]} features, and row 0 has {sizes[0]}")
    return ListRows(rows, single=False)

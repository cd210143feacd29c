"""Strict decoding of `input_data`: one row, rows, a named row, named rows or a tensor.

Before values are decoded, sizes are read from the headers (MessagePack) or bounded by counting punctuation (JSON).
msgspec's typed decoders reject every value that is not a scalar; a rejected input is scanned again to find the place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec

from inferd.schemas.errors import (
    InferenceError,
    InvalidValueError,
    SchemaMismatchError,
    TooLargeError,
)
from inferd.schemas.headers import Encoding
from inferd.schemas.limits import Limits
from inferd.schemas.requests.request import (
    InputData,
    ListRows,
    NamedRows,
    Scalar,
)
from inferd.schemas.requests.row_decoders import (
    Layout,
    RowDecoders,
    layout_of,
    row_decode_error,
    row_decoders,
)
from inferd.schemas.requests.tensors import FIELDS, decode_tensor, is_tensor
from inferd.schemas.strict import DECODE_ERRORS, depth_fault, header, punctuation, repeats_key

_INTEGER_MAX = int(sys.float_info.max)
_DIGITS_MAX = 308
"""Every integer with at most this many digits is within the range of float64."""


def decode_input_data(raw: bytes | msgspec.Raw, encoding: Encoding, limits: Limits) -> InputData:
    """Decode the rows in `raw`. `[]` is no rows; `[[]]` is one row without features.

    `TooLargeError` for rows, features or values over the limits; `TooDeepError`; `MalformedError` for bytes, types and
    duplicate keys; `InvalidValueError` for a number beyond float64, a string over the limit, and a tensor's dtype and
    shape; `SchemaMismatchError` for ragged rows and names over the limit. Depth counts from the request's outer map.
    """
    data = bytes(raw)
    decoders = row_decoders(encoding, limits.string_chars_max)
    try:
        layout = layout_of(data, encoding)
        if encoding == "msgpack":
            return _decode_msgpack(data, layout, decoders, limits)
        return _decode_json(data, layout, decoders, limits)
    except DECODE_ERRORS as error:
        raise row_decode_error(data, encoding, error, limits) from None
    except InferenceError as error:
        # A nesting fault takes precedence over a size or value error: another Python may detect it first.
        if fault := depth_fault(data, encoding, limits.depth_max, depth=1):
            raise type(fault)(f"input_data: {fault.message}") from None
        raise error from None


def _decode_msgpack(data: bytes, layout: Layout, decoders: RowDecoders, limits: Limits) -> InputData:
    count = header(data)[1]
    if layout == "row":
        _check_count(count, limits.features_max, "features")
        row = decoders.row(data)
        return ListRows([row] if row else [], single=bool(row))
    if layout == "rows":
        _check_count(count, limits.rows_max, "rows")
        if len(data) > min(limits.features_max, limits.values_max):
            _check_sizes(_claimed_sizes(data, decoders), limits)
        return _list_rows(decoders.rows(data), limits)
    if layout == "named_rows":
        _check_count(count, limits.rows_max, "rows")
        sizes = _claimed_sizes(data, decoders)
        _check_sizes(sizes, limits)
        return _named_rows(decoders.named_rows(data), sizes)
    _check_count(count, limits.features_max, "features")
    if count == len(FIELDS) and b"shape" in data and is_tensor(fields := decoders.fields(data), "msgpack"):
        return decode_tensor(fields, "msgpack", limits)
    return _named_rows([decoders.named_row(data)], [count], single=True)


def _claimed_sizes(data: bytes, decoders: RowDecoders) -> list[int]:
    """The number of values that each MessagePack row claims; 0 for an item that is not a row, which the typed decoder
    rejects."""
    headers = [header(memoryview(item)) for item in decoders.items(data)]
    return [length if kind in ("array", "map") else 0 for kind, length, _ in headers]


def _decode_json(data: bytes, layout: Layout, decoders: RowDecoders, limits: Limits) -> InputData:
    _check_json_size(data, layout, limits)
    if layout == "row":
        row = decoders.row(data)
        _check_integers(data, [row])
        return ListRows([row] if row else [], single=bool(row))
    if layout == "rows":
        rows = decoders.rows(data)
        _check_integers(data, rows)
        return _list_rows(rows, limits)
    single = layout == "named_row"
    if single and (b"shape" in data or b"\\" in data) and is_tensor(fields := decoders.fields(data), "json"):
        _check_json_keys(data, len(fields))
        return decode_tensor(fields, "json", limits)
    named_rows = [decoders.named_row(data)] if single else decoders.named_rows(data)
    sizes = [len(row) for row in named_rows]
    _check_json_keys(data, sum(sizes))
    _check_sizes(sizes, limits)
    _check_integers(data, [row.values() for row in named_rows])
    return _named_rows(named_rows, sizes, single=single)


def _check_json_size(data: bytes, layout: Layout, limits: Limits) -> None:
    """Reject more rows or values than allowed, counted by the punctuation outside of strings."""
    if len(data) <= 2 * min(limits.rows_max, limits.features_max, limits.values_max):
        return  # every row and every value takes at least two bytes
    if _json_excess(data, layout, limits) and (excess := _json_excess(punctuation(data), layout, limits)):
        raise TooLargeError(f"input_data: {excess} are allowed")


def _json_excess(data: bytes, layout: Layout, limits: Limits) -> str | None:
    containers = data.count(b"[") + data.count(b"{")
    values = data.count(b",") + 1
    if containers > limits.rows_max + 1:
        return f"{containers} arrays and objects; at most {limits.rows_max} rows"
    if layout in {"row", "named_row"} and values > limits.features_max:
        return f"{values} features; at most {limits.features_max}"
    # A row without features adds a comma but no value.
    if values > limits.values_max + limits.rows_max:
        return f"{values} values; at most {limits.values_max}"
    return None


def _check_json_keys(data: bytes, keys: int) -> None:
    """Reject duplicate keys. If there is one colon per key, none is duplicated; otherwise a full check decides."""
    if (b"\\" in data or data.count(b":") != keys) and repeats_key(data):
        raise ValueError("a key appears twice")


def _check_integers(data: bytes, rows: Iterable[Iterable[Scalar]]) -> None:
    """Reject integers beyond the range of float64; MessagePack cannot represent them."""
    if len(data) <= _DIGITS_MAX:
        return
    for index, row in enumerate(rows):
        for value in row:
            if type(value) is int and abs(value) > _INTEGER_MAX:
                raise InvalidValueError(
                    f"input_data: row {index}: an integer of {value.bit_length()} bits is beyond float64"
                )


def _list_rows(rows: list[list[Scalar]], limits: Limits) -> ListRows:
    sizes = [len(row) for row in rows]
    _check_sizes(sizes, limits)
    if sizes.count(sizes[0]) != len(sizes):
        index = next(index for index, size in enumerate(sizes) if size != sizes[0])
        raise SchemaMismatchError(f"input_data: row {index} has {sizes[index]} features, and row 0 has {sizes[0]}")
    return ListRows(rows, single=False)


def _named_rows(rows: list[dict[str, Scalar]], sizes: list[int], *, single: bool = False) -> NamedRows:
    """`rows`, whose maps claim `sizes` keys; `ValueError` if a key was duplicated."""
    if [len(row) for row in rows] != sizes:
        raise ValueError("a key appears twice")
    return NamedRows(rows, single)


def _check_sizes(sizes: Sequence[int], limits: Limits) -> None:
    _check_count(len(sizes), limits.rows_max, "rows")
    _check_count(max(sizes), limits.features_max, "features in a row")
    _check_count(sum(sizes), limits.values_max, "values (rows x features)")


def _check_count(count: int, count_max: int, what: str) -> None:
    if count > count_max:
        raise TooLargeError(f"input_data: {count} {what}; at most {count_max} are allowed")

"""Converts Python input (lists, arrays, data frames) to the `input_data` of a request.

numpy arrays and scalars are recognised by duck typing (`tolist`, `item`, the buffer protocol), so a client does not
need numpy.
"""

from __future__ import annotations

import binascii
import math
import sys
from decimal import Decimal
from typing import Any

from inferd.schemas.codecs import JSON, Codec
from inferd.schemas.errors import InvalidValueError
from inferd.schemas.requests.frames import frame_rows, is_frame, series_values
from inferd.schemas.requests.request import (
    ListRows,
    NamedRows,
    Scalar,
    TensorRows,
)
from inferd.schemas.requests.tensors import FIELDS, ITEM_BYTES

_SCALARS = frozenset((float, int, bool, str, type(None)))
# Format characters of the buffer protocol. The width is taken from `itemsize`: that of l and L is platform-dependent.
_KINDS = {"f": "f", "d": "f", "?": "b", "b": "i", "h": "i", "i": "i", "l": "i", "q": "i", "B": "u", "H": "u", "I": "u"}
_MISSING_TYPES = frozenset(("NAType", "NaTType", "MaskedConstant"))
"""Types of missing values in pandas and numpy."""
_EXPECTED = "expected a row or rows (lists, tuples, dicts, arrays, data frames)"


def wire_input(data: Any, codec: Codec) -> Any:
    """`data` as lists, dicts and scalars that can be encoded.

    A row is a list, tuple, one-dimensional array, series or dict. Rows are a list or tuple of rows, or a data frame of
    pandas, polars or pyarrow, whose index is ignored. A two-dimensional array of a tensor dtype becomes a tensor
    (base64 in JSON); any other one becomes rows. NaN means missing and is null in JSON. `InvalidValueError`, naming row
    and feature, for anything else.
    """
    if is_frame(data):
        data = frame_rows(data)
    if isinstance(data, ListRows | NamedRows):
        data = data.rows[0] if data.single else data.rows
    if isinstance(data, dict) and data.keys() == FIELDS and isinstance(data["data"], bytes):
        data = TensorRows(data["dtype"], tuple(data["shape"]), data["data"])
    tensor = data if isinstance(data, TensorRows) else _tensor(data)
    if tensor is not None:
        return _wire_tensor(tensor, codec)
    data = to_list(data)
    if not isinstance(data, list | tuple | dict):
        raise InvalidValueError(f"input_data of {type(data).__name__}: {_EXPECTED}")
    if isinstance(data, dict) or not data or not is_row(data[0]):
        return _row(data, "row 0, ", codec)
    return [_row(row, f"row {index}, ", codec) for index, row in enumerate(data)]


def json_input(data: Any) -> Any:
    """`data` (see `wire_input`) as `input_data` or `input_batch` of a JSON request body, for any JSON library."""
    return wire_input(data, JSON)


def _tensor(data: Any) -> TensorRows | None:
    """A two-dimensional buffer as a tensor; None for anything else."""
    if isinstance(data, list | tuple | dict | str | bytes) or sys.byteorder != "little" or hasattr(data, "mask"):
        return None
    try:
        view = memoryview(data)
    except (TypeError, ValueError, BufferError):
        return None
    kind = _KINDS.get(view.format.lstrip("@=<"))
    dtype = f"{'|' if view.itemsize == 1 else '<'}{kind}{view.itemsize}"
    if view.ndim != 2 or dtype not in ITEM_BYTES:
        return None
    rows, features = view.shape or (0, 0)
    return TensorRows(dtype, (rows, features), view.tobytes(order="C"))


def _wire_tensor(tensor: TensorRows, codec: Codec) -> dict[str, Any]:
    data = tensor.data if codec.binary else binascii.b2a_base64(tensor.data, newline=False).decode()
    return {"dtype": tensor.dtype, "shape": list(tensor.shape), "data": data}


def is_row(value: Any) -> bool:
    """Whether `value` is a row and not a scalar. numpy scalars have `tolist` too, but no dimensions."""
    if isinstance(value, list | tuple | dict):
        return True
    listed = hasattr(value, "tolist") or hasattr(value, "to_list") or hasattr(value, "to_pylist")
    return listed and hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0


def to_list(data: Any) -> Any:
    """Arrays and series as lists (a pandas Series indexed by names as a dict); anything else unchanged."""
    if isinstance(data, list | tuple | dict | str | bytes):
        return data
    if getattr(getattr(data, "dtype", None), "kind", "") in ("M", "m"):
        raise InvalidValueError("input_data: an array of times; convert them to the numbers the model was trained on")
    if (values := series_values(data)) is not None:
        return values
    return data.tolist() if hasattr(data, "tolist") else data


def _row(row: Any, where: str, codec: Codec) -> list[Scalar] | dict[str, Scalar]:
    row = to_list(row)
    if isinstance(row, dict):
        for name in row:
            if not isinstance(name, str):
                raise InvalidValueError(f"input_data: {where}feature name {name!r} is not a string")
        return {name: _scalar(value, where, name, codec) for name, value in row.items()}
    if not isinstance(row, list | tuple):
        raise InvalidValueError(f"input_data: {where}{type(row).__name__} among rows: {_EXPECTED}")
    return [_scalar(value, where, feature, codec) for feature, value in enumerate(row)]


def _scalar(value: Any, where: str, feature: str | int, codec: Codec) -> Scalar:
    if type(value) not in _SCALARS:
        value = plain_scalar(value)
    if type(value) not in _SCALARS:
        raise InvalidValueError(
            f"input_data: {where}feature {feature!r}: {type(value).__name__} is not a number, boolean, string or None"
        )
    if type(value) is str and not value.isascii():
        _check_unicode(value, where, feature)
    if type(value) is int and not codec.wide_integers and not -(2**63) <= value < 2**64:
        return _as_float(value, where, feature)
    if type(value) is float and not codec.non_finite and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise InvalidValueError(f"input_data: {where}feature {feature!r}: {codec.title} has no infinity")
    return value  # type: ignore[no-any-return]  # one of the exact types above


def _as_float(value: int, where: str, feature: str | int) -> float:
    """An integer as the nearest float64, as a number of a row is scored."""
    try:
        return float(value)
    except OverflowError:
        raise InvalidValueError(f"input_data: {where}feature {feature!r} is beyond float64") from None


def _check_unicode(text: str, where: str, feature: str | int) -> None:
    """Reject a surrogate without its pair, which UTF-8 cannot represent."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError(
            f"input_data: {where}feature {feature!a}: a lone surrogate at character {error.start}; text must be Unicode"
        ) from None


def plain_scalar(value: Any) -> Any:
    """A scalar of numpy, pandas or `decimal` as a Python scalar. Times are not converted and so rejected later."""
    if type(value).__name__ in _MISSING_TYPES:
        return None
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, str):
        return str(value)
    is_time = getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m")
    return value.item() if hasattr(value, "item") and not is_time else value

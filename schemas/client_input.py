"""What Python programs hold as input -> what a request's `input_data` is made of.

Arrays and scalars of numpy are known by what they can do (`tolist`, `item`, the buffer protocol): a client needs no
numpy for this.
"""

from __future__ import annotations

import binascii
import math
import sys
from typing import Any

from schemas.errors import InvalidValueError
from schemas.headers import Encoding
from schemas.requests import ListRows, NamedRows, Scalar, TensorRows
from schemas.tensors import FIELDS, ITEM_BYTES

_SCALARS = frozenset((float, int, bool, str, type(None)))
# Letters of the buffer protocol; the width is the item's own, because that of l and L differs between platforms.
_KINDS = {"f": "f", "d": "f", "?": "b", "b": "i", "h": "i", "i": "i", "l": "i", "q": "i", "B": "u", "H": "u", "I": "u"}
_EXPECTED = "expected a row or rows (lists, tuples, dicts, arrays); of a data frame, df.to_dict('records')"


def wire_input(data: Any, encoding: Encoding) -> Any:
    """`data` as lists, dicts and scalars, ready to be encoded.

    A row is a list, tuple, one-dimensional array or dict; rows are a list or tuple of them. A two-dimensional array of
    one of the tensor dtypes becomes a tensor (base64 in JSON), any other one rows. NaN is a missing value: JSON says
    null. `InvalidValueError`, naming row and feature, for whatever is neither.
    """
    if isinstance(data, ListRows | NamedRows):
        data = data.rows[0] if data.single else data.rows
    if isinstance(data, dict) and data.keys() == FIELDS and isinstance(data["data"], bytes):
        data = TensorRows(data["dtype"], tuple(data["shape"]), data["data"])
    tensor = data if isinstance(data, TensorRows) else _tensor(data)
    if tensor is not None:
        return _wire_tensor(tensor, encoding)
    if hasattr(data, "tolist"):
        data = data.tolist()
    if not isinstance(data, list | tuple | dict):
        raise InvalidValueError(f"input_data of {type(data).__name__}: {_EXPECTED}")
    if isinstance(data, dict) or not data or not _is_row(data[0]):
        return _row(data, "", encoding)
    return [_row(row, f"row {index}, ", encoding) for index, row in enumerate(data)]


def _tensor(data: Any) -> TensorRows | None:
    """The tensor that a two-dimensional buffer is; None for anything else."""
    if isinstance(data, list | tuple | dict | str | bytes) or sys.byteorder != "little":
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


def _wire_tensor(tensor: TensorRows, encoding: Encoding) -> dict[str, Any]:
    data = tensor.data if encoding == "msgpack" else binascii.b2a_base64(tensor.data, newline=False).decode()
    return {"dtype": tensor.dtype, "shape": list(tensor.shape), "data": data}


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple | dict) or (hasattr(value, "tolist") and hasattr(value, "__len__"))


def _row(row: Any, where: str, encoding: Encoding) -> list[Scalar] | dict[str, Scalar]:
    if hasattr(row, "tolist"):
        row = row.tolist()
    if isinstance(row, dict):
        for name in row:
            if not isinstance(name, str):
                raise InvalidValueError(f"input_data: {where}feature name {name!r} is not a string")
        return {name: _scalar(value, where, name, encoding) for name, value in row.items()}
    if not isinstance(row, list | tuple):
        raise InvalidValueError(f"input_data: {where}{type(row).__name__} among rows: {_EXPECTED}")
    return [_scalar(value, where, feature, encoding) for feature, value in enumerate(row)]


def _scalar(value: Any, where: str, feature: str | int, encoding: Encoding) -> Scalar:
    if type(value) not in _SCALARS and hasattr(value, "item"):
        value = value.item()
    if type(value) not in _SCALARS:
        raise InvalidValueError(
            f"input_data: {where}feature {feature!r}: {type(value).__name__} is no number, boolean, string or None"
        )
    if encoding == "json" and type(value) is float and math.isinf(value):
        raise InvalidValueError(f"input_data: {where}feature {feature!r}: JSON has no infinity")
    return value  # type: ignore[no-any-return]  # one of the exact types above

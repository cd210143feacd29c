"""Requests that a user's own code answers: what it is given, and what becomes of what it gives back or raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from schemas.errors import InternalError
from schemas.requests import InputData, Output, TensorRows
from streams.inference.catalog import ServedModel


class PinnedModelId(str):
    """A model reference as a user spelled it, which remembers the version it led to.

    Code that hands it on is answered by just that version, though an alias may have moved meanwhile.
    """

    __slots__ = ("model",)
    model: ServedModel

    @classmethod
    def of(cls, reference: str, model: ServedModel) -> PinnedModelId:
        """`reference`, which led to `model`."""
        pinned = cls(reference)
        pinned.model = model
        return pinned


Ask = Callable[[PinnedModelId, Any, tuple[Output, ...]], Mapping[Output, object]]
"""`ask(model_id, input_data, outputs)` gives a value for each of `outputs`: of one row a bare one, of rows a list."""


def plain_input(rows: InputData) -> Any:
    """`input_data` as a program would hold it: a list or dict, several of them, or an array (rows, features)."""
    if isinstance(rows, TensorRows):
        return np.frombuffer(rows.data, rows.dtype).reshape(rows.shape)
    return rows.rows[0] if rows.single and rows.rows else rows.rows


def plain_value(value: object) -> Any:
    """`value` as results can carry it: numpy's arrays and scalars become lists and numbers.

    `InternalError` for what neither MessagePack nor JSON has.
    """
    try:
        return msgspec.to_builtins(value, enc_hook=_of_numpy)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InternalError(f"a custom predictor gave what no result can carry: {error}") from None


def _of_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no number, text, list or mapping")

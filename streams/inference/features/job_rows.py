"""Converts the rows of a chunk to the inputs of a model, with a typed error for each invalid row.

The checks are those of requests. Rows in the common layout are read and checked at once. All others are decoded
together by the typed decoder; if it rejects them, they are decoded one by one, so that each invalid row has its own
error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.codecs import MSGPACK, Codec, header
from inferd.schemas.errors import (
    InferenceError,
    InternalError,
    MalformedError,
    ModelServingError,
)
from inferd.schemas.jobs import RowBatch, row_batch
from inferd.schemas.limits import Limits
from inferd.schemas.requests import InputData, TensorRows, decode_input_data
from inferd.streams.inference.features.matrix import FeatureSchema
from inferd.streams.inference.features.vectorised import gather_strided
from inferd.streams.inference.inputs import Inputs, concatenate

_ROW = re.compile(r"\A((?:input_data: )?)row 0\b")
_NO_ROW = "neither a list nor a map of values"


@dataclass(slots=True)
class ScorableRows:
    """The valid rows of a chunk, and the errors of the others.

    Row i of `inputs` is row `places[i]` of the chunk; row i if `places` is None.
    """

    inputs: Inputs
    places: NDArray[np.intp] | None = None
    errors: dict[int, ModelServingError] = field(default_factory=dict)


def scorable_rows(
    data: bytes, codec: Codec, features: FeatureSchema, limits: Limits, numbers: Sequence[int]
) -> ScorableRows:
    """The valid rows in `data` (an array of rows, or a tensor). Messages give row i the number `numbers[i]`.

    Raises the errors of `row_batch` if `data` cannot be split into rows, and `InternalError` for an unexpected number
    of rows.
    """
    if codec is MSGPACK and features.plain and (fast := _strided(data, features, len(numbers))) is not None:
        return fast
    batch = row_batch(data, codec, limits)
    if batch.count != len(numbers):
        raise InternalError(f"{batch.count} rows where the chunk has {len(numbers)}")
    if batch.tensor is not None:
        return _of_tensor(data, batch, features, limits, numbers)
    rows = batch.rows()
    inputs, fits = features.gather(codec, rows, limits)
    if len(inputs) == len(rows):
        return ScorableRows(inputs)
    usual, odd = np.flatnonzero(fits), np.flatnonzero(~fits)
    others = _typed([rows[place] for place in odd], odd.tolist(), codec, features, limits, numbers)
    return _merged(inputs, usual, others, odd)


def _strided(data: bytes, features: FeatureSchema, count: int) -> ScorableRows | None:
    """The fast path: all rows, if they are valid float64 rows; None otherwise."""
    kind, claimed, body = header(data)
    if kind != "array" or claimed != count:
        return None
    gathered = gather_strided(data[body:], count, features.n_features)
    if gathered is None or gathered[1] is not None or features.apply(gathered[0]) is not None:
        return None
    return ScorableRows(gathered[0])


def _typed(
    rows: Sequence[bytes],
    places: Sequence[int],
    codec: Codec,
    features: FeatureSchema,
    limits: Limits,
    numbers: Sequence[int],
) -> ScorableRows:
    """Decodes rows with the typed decoder. `places` are their positions in the chunk."""
    try:
        if rows and all(is_row(row, codec) for row in rows):
            return ScorableRows(features.inputs(decode_input_data(codec.join(rows), codec, limits)))
    except InferenceError:
        pass
    blocks: list[Inputs] = []
    good: list[int] = []
    errors: dict[int, ModelServingError] = {}
    for place, row in enumerate(rows):
        try:
            blocks.append(features.inputs(one_row(row, codec, limits)))
            good.append(place)
        except InferenceError as error:
            errors[place] = renumbered(error, numbers[places[place]])
    inputs = concatenate(blocks) if blocks else features.no_inputs()
    return ScorableRows(inputs, np.array(good, dtype=np.intp), errors)


def _merged(inputs: Inputs, usual: NDArray[np.intp], others: ScorableRows, odd: NDArray[np.intp]) -> ScorableRows:
    """Merges the rows of `inputs`, at positions `usual`, with those of `others`, at positions `odd`, in the order of
    the chunk."""
    good = odd if others.places is None else odd[others.places]
    places = np.concatenate((usual, good))
    order = np.argsort(places, kind="stable")
    errors = {int(odd[place]): error for place, error in others.errors.items()}
    together = concatenate([inputs, others.inputs])[order]
    return ScorableRows(together, places[order] if errors else None, errors)


def _of_tensor(
    data: bytes, batch: RowBatch, features: FeatureSchema, limits: Limits, numbers: Sequence[int]
) -> ScorableRows:
    tensor = decode_input_data(data, batch.codec, limits)
    try:
        return ScorableRows(features.inputs(tensor))
    except InferenceError:
        pass
    blocks: list[Inputs] = []
    good: list[int] = []
    errors: dict[int, ModelServingError] = {}
    for place, number in enumerate(numbers):
        try:
            blocks.append(features.inputs(decode_input_data(batch.pick([place]), batch.codec, limits)))
            good.append(place)
        except InferenceError as error:
            errors[place] = renumbered(error, number)
    inputs = concatenate(blocks) if blocks else features.no_inputs()
    return ScorableRows(inputs, np.array(good, dtype=np.intp), errors)


def one_row(row: bytes, codec: Codec, limits: Limits) -> InputData:
    """Decodes a single row; raises the errors of `decode_input_data`, and `MalformedError` if it is not a row."""
    if not is_row(row, codec):
        raise MalformedError(f"row 0 is {_NO_ROW}")
    return decode_input_data(codec.join([row]), codec, limits)


def plain_rows(
    data: bytes, codec: Codec, limits: Limits, numbers: Sequence[int]
) -> tuple[list[Any], dict[int, ModelServingError]]:
    """The readable rows in `data` as lists and dicts, and the errors of the others by position."""
    batch = row_batch(data, codec, limits)
    if batch.count != len(numbers):
        raise InternalError(f"{batch.count} rows where the chunk has {len(numbers)}")
    if batch.tensor is not None:
        return _values(decode_input_data(data, batch.codec, limits)), {}
    rows: list[Any] = []
    errors: dict[int, ModelServingError] = {}
    for place, row in enumerate(batch.rows()):
        try:
            rows += _values(one_row(row, codec, limits))
        except InferenceError as error:
            errors[place] = renumbered(error, numbers[place])
    return rows, errors


def _values(rows: InputData) -> list[Any]:
    if isinstance(rows, TensorRows):
        values: list[Any] = np.frombuffer(rows.data, rows.dtype).reshape(rows.shape).tolist()
        return values
    return list(rows.rows)


def renumbered(error: ModelServingError, number: int) -> ModelServingError:
    """The error of a row that was decoded alone, as row 0, with its number in the job."""
    return type(error)(_ROW.sub(rf"\g<1>row {number}", error.message))


def is_row(row: bytes, codec: Codec) -> bool:
    """Whether an encoded value is an array or a map. Whether it is a valid row is checked later."""
    return codec.kinds(row)[0] != "scalar"

"""Requests with the header `row-errors`: each invalid row gets an error, and the others are scored, as in jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from inferd.schemas.codecs import Codec
from inferd.schemas.errors import (
    InferenceError,
    InvalidValueError,
    MalformedError,
    ModelServingError,
    SchemaMismatchError,
)
from inferd.schemas.jobs import row_batch
from inferd.schemas.limits import Limits
from inferd.schemas.requests import Output, RowError, decode_envelope
from inferd.streams.inference.features import FeatureSchema, is_row, scorable_rows
from inferd.streams.inference.inputs import Inputs

OF_ROWS = (InvalidValueError, MalformedError, SchemaMismatchError)
"""Errors that may be those of single rows."""


@dataclass(frozen=True, slots=True)
class RowErrors:
    """The invalid rows of a request of `count` rows, by row number."""

    count: int
    errors: dict[int, ModelServingError] = field(default_factory=dict)

    def columns(
        self, outputs: Sequence[Output], parts: Sequence[Sequence[Any]], unfit: NDArray[Any] | None
    ) -> tuple[dict[str, Any], list[RowError]]:
        """For each output a list of `count` values with None for invalid rows, and the errors of these.

        `parts` are the values of the scored rows. `unfit`: bool (scored rows,), True if the model's output is not
        finite.
        """
        scored = [row for row in range(self.count) if row not in self.errors]
        errors = dict(self.errors)
        for place, row in enumerate(scored):
            if unfit is not None and unfit[place]:
                errors[row] = InvalidValueError(f"the model's output for row {row} is not a finite number")
        columns: dict[str, Any] = {}
        for output, part in zip(outputs, parts, strict=True):
            values = dict(zip(scored, part, strict=True))
            columns[output] = [None if row in errors else values[row] for row in range(self.count)]
        return columns, [RowError(row, error.code, error.message) for row, error in sorted(errors.items())]


def rows_apart(
    value: bytes | None, codec: Codec, features: FeatureSchema, limits: Limits
) -> tuple[Inputs, RowErrors] | None:
    """The valid rows of a rejected request, and the errors of the others. None if it has no list of rows, or too
    many."""
    try:
        raw = bytes(decode_envelope(value, codec, limits).input_data)
        batch = row_batch(raw, codec, limits)
        within = batch.count <= limits.rows_max and batch.count * features.n_features <= limits.values_max
        if not within or (batch.tensor is None and not any(is_row(row, codec) for row in batch.rows())):
            return None
        rows = scorable_rows(raw, codec, features, limits, range(batch.count))
    except InferenceError:
        return None
    return rows.inputs, RowErrors(batch.count, rows.errors)

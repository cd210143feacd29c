"""The rows that a runtime scores: a float64 matrix, or a table of columns for models with text features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of a model with features that are not numbers. Text is never in a matrix."""

    numbers: Matrix
    """float64 (rows, numeric features), C-contiguous, in the order of features; NaN where missing."""
    values: NDArray[np.object_]
    """object (rows, other features), in the order of features: str for text, the category itself for a category; None
    where missing."""
    is_number: tuple[bool, ...]
    """For each feature of the model, whether its column is in `numbers`."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Table:
        """Selects rows by a slice, a mask or indexes."""
        return Table(np.ascontiguousarray(self.numbers[rows]), self.values[rows], self.is_number)

    def columns(self) -> Iterator[NDArray[Any]]:
        """The column (rows,) of each feature, in order: float64 or object."""
        numbers, values = iter(self.numbers.T), iter(self.values.T)
        return (next(numbers if is_number else values) for is_number in self.is_number)


Inputs = Matrix | Table


def concatenate(blocks: Sequence[Inputs]) -> Inputs:
    """The rows of all blocks, which must be of one model."""
    if isinstance(blocks[0], Table):
        tables = cast(Sequence[Table], blocks)
        numbers = np.concatenate([table.numbers for table in tables])
        return Table(numbers, np.concatenate([table.values for table in tables]), blocks[0].is_number)
    return np.concatenate(cast(Sequence[Matrix], blocks))


def rows_as_bytes(inputs: Inputs) -> list[bytes]:
    """The bytes of each row. Rows of a model have equal bytes only if all of their values are equal bit for bit."""
    if isinstance(inputs, Table):
        numbers = [row.tobytes() for row in inputs.numbers]
        return [_encode(row) for row in zip(numbers, inputs.values.tolist(), strict=True)]
    rows: list[bytes] = inputs.view(f"V{inputs.shape[1] * inputs.itemsize}").ravel().tolist()
    return rows

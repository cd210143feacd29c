"""Scores rows one by one, for models whose rows have other bits in a batch than alone, and for batches that a model
rejects."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InferenceError, InvalidValueError
from inferd.schemas.requests import Output
from inferd.streams.inference.inputs import Inputs
from inferd.streams.inference.runtime import Arrays, ModelRuntime

_ROW_OF_ONE = re.compile(r"row 0[:,] ")
"""What a runtime may say of the only row of a batch."""


class RowByRow:
    """A `ModelRuntime` that passes rows to another one one at a time."""

    batching = False

    def __init__(self, runtime: ModelRuntime) -> None:
        self._runtime = runtime
        self.n_features = runtime.n_features
        self.feature_names = runtime.feature_names
        self.outputs_per_row = runtime.outputs_per_row
        self.objective = runtime.objective
        self.rows_scored = 0
        """Rows passed on so far: a long prediction makes progress as long as it grows."""

    def supports(self, output: Output) -> bool:
        """Like `ModelRuntime.supports`."""
        return self._runtime.supports(output)

    def values_per_row(self, output: Output) -> int:
        """Like `ModelRuntime.values_per_row`."""
        return self._runtime.values_per_row(output)

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """Like `ModelRuntime.predict`."""
        if len(inputs) == 1:
            return self._runtime.predict(inputs, outputs)
        parts = [self._predict_row(inputs, row, outputs) for row in range(len(inputs))]
        return {output: np.concatenate([part[output] for part in parts]) for output in outputs}

    def close(self) -> None:
        """Like `ModelRuntime.close`."""
        self._runtime.close()

    def _predict_row(self, inputs: Inputs, row: int, outputs: tuple[Output, ...]) -> Arrays:
        self.rows_scored += 1
        try:
            return self._runtime.predict(inputs[row : row + 1], outputs)
        except InvalidValueError as error:
            raise InvalidValueError(f"row {row}: {_ROW_OF_ONE.sub('', error.message)}") from None


def scores_batches(runtime: ModelRuntime) -> bool:
    """Whether rows are scored in batches. A runtime that scores them one by one has `batching = False`."""
    return bool(getattr(runtime, "batching", True))


def is_equal_alone(runtime: ModelRuntime, inputs: Inputs, outputs: tuple[Output, ...]) -> bool:
    """Whether each row has the same bits alone and in the batch. True if the model rejects one of the rows."""
    if not scores_batches(runtime):
        return True
    try:
        together = runtime.predict(inputs, outputs)
        alone = RowByRow(runtime).predict(inputs, outputs)
    except InferenceError:
        return True
    return all(_bits(together[output]) == _bits(alone[output]) for output in outputs)


def _bits(values: NDArray[Any]) -> Any:
    return values.tolist() if values.dtype == object else (values.dtype, values.shape, values.tobytes())

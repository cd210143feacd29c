"""The protocol of a model runtime: a matrix in, arrays out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.requests import Output

Matrix = NDArray[np.float64]
Arrays = dict[Output, NDArray[np.float64] | NDArray[np.int32]]


class ModelRuntime(Protocol):
    """One loaded model version.

    `predict` may be called from any thread and from several at once; it keeps nothing between calls. After `close` it
    raises `ModelNotReadyError`; calls that are running then end as they would have.
    """

    @property
    def n_features(self) -> int:
        """Columns of the matrix."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""

    @property
    def outputs_per_row(self) -> int:
        """Values a row of `raw`: 1, the number of classes, or the number of targets."""

    @property
    def objective(self) -> str | None:
        """What the model was trained for, without its parameters; None where the model file names none."""

    def supports(self, output: Output) -> bool:
        """Whether `predict` can compute `output`."""

    def values_per_row(self, output: Output) -> int:
        """Values a row of `output`, which bounds what `predict` allocates: trees for `leaves`, classes x (features +
        1), …"""

    def predict(self, matrix: Matrix, outputs: tuple[Output, ...]) -> Arrays:
        """The arrays of `outputs` for matrix: float64 (rows, features), C-contiguous; rows >= 1, NaN where missing.

        `prediction` float64 (rows,) or (rows, outputs_per_row); `raw` the same shapes;
        `probabilities` float64 (rows, classes); `contributions` float64 (rows, features + 1) or
        (rows, outputs_per_row, features + 1), the expected value last; `leaves` int32 (rows, trees).
        `InvalidValueError` for an output that this model cannot give, `SchemaMismatchError` for another width than
        `n_features`, `ModelNotReadyError` after `close`, `InternalError` where the library fails.
        """

    def close(self) -> None:
        """Frees the model, at the end of the calls that are running; more than once is the same as once."""

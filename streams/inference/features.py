"""Rows of a request -> the matrix a runtime takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.models import Manifest
from schemas.requests import InputData
from streams.inference.runtime import Matrix


class FeatureSchema:
    """The features of one model version, compiled once from its manifest; immutable, for any thread."""

    n_features: int
    feature_names: tuple[str, ...]
    plain: bool
    """Whether a positional row of float64 is its row of the matrix as it stands, once `check` has passed it."""

    def __init__(self, manifest: Manifest) -> None:
        """`SchemaMismatchError` or `InvalidValueError` where the manifest contradicts itself."""
        raise NotImplementedError

    def matrix(self, rows: InputData) -> Matrix:
        """float64 (rows, features), C-contiguous, a new array; `SchemaMismatchError` or `InvalidValueError` naming row and feature."""
        raise NotImplementedError

    def check(self, X: Matrix) -> NDArray[np.bool_] | None:
        """Of positional float64 rows (n, features): True for rows that `matrix` would refuse or change; None when there are none.

        Only for `plain` schemas. A flagged row goes through `matrix`, which raises its error or gives its values.
        """
        raise NotImplementedError

"""Histograms of predictions. Pure."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.monitoring import (
    LOG_BINS,
    LOG_BINS_PER_DOUBLING,
    LOG_LEAST_EXPONENT,
    UNIT_BINS,
    Predictions,
    Scale,
)
from inferd.schemas.requests import Output
from inferd.streams.inference import Arrays, ServedModel, format_named

NONE = Predictions()
COUNTED: Final[tuple[Output, ...]] = ("prediction", "probabilities")
"""Outputs that are counted: the first of them that there is."""


class PredictionCounter:
    """Counts the predictions of one version."""

    def __init__(self, model: ServedModel) -> None:
        manifest = model.manifest
        classes = format_named(manifest.runtime).class_count(manifest.objective, manifest.outputs or 1)
        self._scale: Scale = "log"
        if manifest.classes is not None or classes > 2:
            self._scale = "class"
        elif classes == 2:
            self._scale = "unit"

    def count(self, arrays: Arrays, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Predictions:
        """The histogram of some rows; empty if the model has several values a row that are no probabilities."""
        values = self.values(arrays)
        return NONE if values is None else self.count_values(values[rows])

    def values(self, arrays: Arrays) -> NDArray[Any] | None:
        """What is counted of all rows: the first axis has rows. None if that are no numbers."""
        values = next((arrays[output] for output in COUNTED if output in arrays), None)
        return None if values is None or values.dtype.kind not in "iuf" else values

    def count_values(self, values: NDArray[Any]) -> Predictions:
        """The histogram of the values of some rows."""
        bins = self._bins(values)
        if bins is None or not len(bins):
            return NONE
        low = int(bins.min())
        counts = np.bincount(bins - low)
        places = np.flatnonzero(counts)
        return Predictions(self._scale, dict(zip((places + low).tolist(), counts[places].tolist(), strict=True)))

    def _bins(self, values: NDArray[Any]) -> NDArray[np.int64] | None:
        if self._scale == "class":
            places = values.argmax(axis=1) if values.ndim == 2 else values
            return places.astype(np.int64)
        if values.ndim == 2 and self._scale == "unit":
            values = values[:, -1]
        if values.ndim != 1:
            return None
        numbers = values[np.isfinite(values)].astype(np.float64)
        return _unit_bins(numbers) if self._scale == "unit" else _log_bins(numbers)


def _unit_bins(values: NDArray[np.float64]) -> NDArray[np.int64]:
    bins: NDArray[np.int64] = np.clip(values * UNIT_BINS, 0, UNIT_BINS - 1).astype(np.int64)
    return bins


def _log_bins(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bins of equal width in the logarithm, apart for each sign; 0 for what is smaller than all of them."""
    with np.errstate(divide="ignore"):
        exponents = np.floor(np.log2(np.abs(values)) * LOG_BINS_PER_DOUBLING)
    least = LOG_LEAST_EXPONENT * LOG_BINS_PER_DOUBLING
    sizes = np.clip(exponents - least + 1, 0, LOG_BINS).astype(np.int64)
    bins: NDArray[np.int64] = np.where(values < 0, -sizes, sizes)
    return bins

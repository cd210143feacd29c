"""Rows that every model takes, to run it before it serves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from inferd.streams.inference.features.file_feature import FileFeature
from inferd.streams.inference.inputs import Inputs, Table

_TEXT = "text"


def sample_inputs(features: Sequence[FileFeature]) -> Inputs:
    """Two rows: one where all is missing that may be missing, and one without missing values."""
    matrix = np.zeros((2, sum(feature.is_number for feature in features)))
    for place, feature in enumerate(feature for feature in features if feature.is_number):
        matrix[:, place] = _numbers(feature)
    if matrix.shape[1] == len(features):
        return matrix
    values = np.empty((2, len(features) - matrix.shape[1]), dtype=object)
    for place, feature in enumerate(feature for feature in features if not feature.is_number):
        values[:, place] = _values(feature)
    return Table(matrix, values, tuple(feature.is_number for feature in features))


def _numbers(feature: FileFeature) -> tuple[float, float]:
    low = -math.inf if feature.min is None else feature.min
    number = min(max(0.0, low), math.inf if feature.max is None else feature.max)
    return math.nan if feature.missing else number, number


def _values(feature: FileFeature) -> tuple[Any, Any]:
    value = feature.categories[0] if feature.categories else _TEXT
    return None if feature.missing else value, value

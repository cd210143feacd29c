"""Sample rows that every model accepts, to run it before it serves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.features.file_feature import FileFeature
from inferd.streams.inference.inputs import Inputs, Table

_TEXT = "text"
_WORDS = ("the", "order", "is", "late", "refund", "please", "ünïcode", "数据", "42")


def sample_inputs(features: Sequence[FileFeature]) -> Inputs:
    """Two rows: one with missing values wherever they are allowed, and one without missing values."""
    matrix = np.zeros((2, sum(feature.is_number for feature in features)))
    for place, feature in enumerate(feature for feature in features if feature.is_number):
        matrix[:, place] = _numbers(feature)
    if matrix.shape[1] == len(features):
        return matrix
    values = np.empty((2, len(features) - matrix.shape[1]), dtype=object)
    for place, feature in enumerate(feature for feature in features if not feature.is_number):
        values[:, place] = _values(feature)
    return Table(matrix, values, tuple(feature.is_number for feature in features))


def varied_inputs(features: Sequence[FileFeature], rows: int = 17) -> Inputs:
    """Rows of varied values, the same in every process. A model may reject some of them."""
    chance = np.random.default_rng(7)
    numbers = [feature for feature in features if feature.is_number]
    matrix = np.empty((rows, len(numbers)))
    for place, feature in enumerate(numbers):
        matrix[:, place] = _varied_numbers(feature, chance, rows)
    if len(numbers) == len(features):
        return matrix
    values = np.empty((rows, len(features) - len(numbers)), dtype=object)
    for place, feature in enumerate(feature for feature in features if not feature.is_number):
        choices = feature.categories or [" ".join(chance.choice(_WORDS, 5)) for _ in range(rows)]
        values[:, place] = [choices[each] for each in chance.integers(0, len(choices), rows)]
    return Table(matrix, values, tuple(feature.is_number for feature in features))


def _varied_numbers(feature: FileFeature, chance: np.random.Generator, rows: int) -> NDArray[np.float64]:
    if feature.dtype == "bool":
        return chance.integers(0, 2, rows).astype(np.float64)
    if feature.categories is not None:
        return chance.integers(0, max(len(feature.categories), 1), rows).astype(np.float64)
    drawn = chance.normal(size=rows) * 10.0 ** chance.integers(-1, 3, rows)
    if feature.dtype == "int64":
        drawn = np.abs(np.floor(drawn))
    elif feature.dtype == "float32":
        drawn = drawn.astype(np.float32).astype(np.float64)
    return np.clip(drawn, feature.min, feature.max) if (feature.min, feature.max) != (None, None) else drawn


def _numbers(feature: FileFeature) -> tuple[float, float]:
    low = -math.inf if feature.min is None else feature.min
    number = min(max(0.0, low), math.inf if feature.max is None else feature.max)
    return math.nan if feature.missing else number, number


def _values(feature: FileFeature) -> tuple[Any, Any]:
    value = feature.categories[0] if feature.categories else _TEXT
    return None if feature.missing else value, value

"""Counts values of features by the bins of a baseline, and makes baselines. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.models import Category
from inferd.schemas.monitoring import (
    BINS_MAX,
    CATEGORIES_MAX,
    Baseline,
    CategoryBaseline,
    FeatureBaseline,
    Features,
    FeatureStats,
    NumberBaseline,
    Predictions,
    Source,
)
from inferd.streams.inference import BinCounter, FeatureSchema, Inputs, Table

CATEGORY_CHARS_MAX = 256
"""Longer texts have no bin."""


@dataclass(frozen=True, slots=True)
class _Column:
    """One feature: its place in the matrix, or among the values of a table."""

    name: str
    place: int
    categories: Sequence[Category] | None
    """In the order of the codes in the matrix; None for numbers, and for values of a table."""
    in_matrix: bool


def _columns(schema: FeatureSchema) -> list[_Column]:
    numbers = values = 0
    found = []
    for column in schema.columns:
        if hasattr(column, "codes"):
            categories = [value for value in column.codes if value is not None]
            found.append(_Column(column.name, numbers, categories or None, in_matrix=True))
            numbers += 1
        else:
            found.append(_Column(column.name, values, None, in_matrix=False))
            values += 1
    return found


def _matrix(inputs: Inputs) -> NDArray[np.float64]:
    return inputs.numbers if isinstance(inputs, Table) else inputs


class FeatureCounter:
    """Counts rows of one version by one baseline."""

    def __init__(self, schema: FeatureSchema, baseline: Baseline) -> None:
        self.revision = baseline.revision
        known = [(column, baseline.features[column.name]) for column in _columns(schema)
                 if column.name in baseline.features]  # fmt: skip
        numbers = [(c, f) for c, f in known if isinstance(f, NumberBaseline) and c.in_matrix and c.categories is None]
        self._numbers = [column.name for column, _ in numbers]
        # Bin 0 is below the least value, and the last one of a feature above the largest.
        edges = [[feature.low, *feature.edges, np.nextafter(feature.high, np.inf)] for _, feature in numbers]
        widest = max(map(len, edges), default=0)
        padded = [[*of_feature, *[np.nan] * (widest - len(of_feature))] for of_feature in edges]
        places = np.array([column.place for column, _ in numbers], np.intp)
        self._counter = BinCounter(places, np.array(padded, np.float64).reshape(len(numbers), widest).T)
        self._bins = [len(feature.counts) for _, feature in numbers]
        self._coded = [
            (column.name, column.place, *_bins_of_codes(column.categories, feature))
            for column, feature in known
            if isinstance(feature, CategoryBaseline) and column.categories is not None
        ]
        self._valued = [
            (column.name, column.place, {_identity(value): n for n, value in enumerate(feature.categories)})
            for column, feature in known
            if isinstance(feature, CategoryBaseline) and not column.in_matrix
        ]

    def count(self, inputs: Inputs) -> Features:
        """The counts of all rows."""
        (found,) = self.count_groups(inputs, np.zeros(len(inputs), np.intp), 1)
        return found

    def count_groups(self, inputs: Inputs, groups: NDArray[np.intp], number: int) -> list[Features]:
        """The counts of the rows of each group; `groups`: intp (rows,), the group of each row."""
        matrix = _matrix(inputs)
        found = self._count_numbers(matrix, groups, number)
        rows = np.bincount(groups, minlength=number).tolist()
        for group in range(number) if self._coded or self._valued else ():
            chosen = groups == group
            for name, place, bins, width in self._coded:
                found[group][name] = _count_codes(matrix[chosen, place], bins, width)
            if isinstance(inputs, Table):
                for name, place, known in self._valued:
                    found[group][name] = _count_values(inputs.values[chosen, place].tolist(), known)
        return [Features(self.revision, count, by_name) for count, by_name in zip(rows, found, strict=True)]

    def _count_numbers(
        self, matrix: NDArray[np.float64], groups: NDArray[np.intp], number: int
    ) -> list[dict[str, FeatureStats]]:
        if not self._numbers:
            return [{} for _ in range(number)]
        counts = self._counter.count(matrix, groups, number)
        missing = counts.shape[2] - 1
        return [
            {
                name: _stats(of_bins, used, missing)
                for name, used, of_bins in zip(self._numbers, self._bins, of_features, strict=True)
            }
            for of_features in counts.tolist()
        ]


def _stats(of_bins: list[int], used: int, missing: int) -> FeatureStats:
    """Values out of range belong to the first and last bin."""
    counts, below, above = of_bins[1 : 1 + used], of_bins[0], of_bins[used + 1]
    counts[0] += below
    counts[-1] += above
    return FeatureStats(counts, of_bins[missing], below + above)


def _identity(value: Any) -> tuple[bool, Any]:
    """True and 1 are two categories."""
    return isinstance(value, bool), value


def _bins_of_codes(categories: Sequence[Category], feature: CategoryBaseline) -> tuple[NDArray[np.intp], int]:
    """The bin of each code, the number of bins for those without one; and the number of bins."""
    known = {_identity(value): number for number, value in enumerate(feature.categories)}
    width = len(feature.categories)
    return np.array([known.get(_identity(value), width) for value in categories], np.intp), width


def _count_codes(column: NDArray[np.float64], bins: NDArray[np.intp], width: int) -> FeatureStats:
    missing = np.isnan(column)
    codes = column[~missing].astype(np.intp)
    inside = (codes >= 0) & (codes < len(bins))
    counts = np.bincount(bins[codes[inside]], minlength=width + 1)
    unknown = int(counts[width]) + len(codes) - int(inside.sum())
    return FeatureStats(counts[:width].tolist(), int(missing.sum()), 0, unknown)


def _count_values(values: Sequence[Any], known: Mapping[tuple[bool, Any], int]) -> FeatureStats:
    counts = [0] * len(known)
    missing = unknown = 0
    for value, count in Counter(map(_identity, values)).items():
        if value[1] is None:
            missing += count
        elif (place := known.get(value)) is not None:
            counts[place] += count
        else:
            unknown += count
    return FeatureStats(counts, missing, 0, unknown)


def make_baseline(
    schema: FeatureSchema, inputs: Inputs, predictions: Predictions, revision: int, source: Source
) -> Baseline:
    """The baseline of rows as the model gets them. Features whose values are all missing are left out."""
    matrix = _matrix(inputs)
    features: dict[str, FeatureBaseline] = {}
    for column in _columns(schema):
        if column.categories is not None:
            found = _of_categories(_decoded(matrix[:, column.place], column.categories))
        elif column.in_matrix:
            found = _of_numbers(matrix[:, column.place])
        elif isinstance(inputs, Table):
            found = _of_categories(inputs.values[:, column.place].tolist())
        if found is not None:
            features[column.name] = found
    return Baseline(revision, source, len(inputs), features, predictions)


def _of_numbers(column: NDArray[np.float64]) -> FeatureBaseline | None:
    values = column[np.isfinite(column)]
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    quantiles = np.quantile(values, np.arange(1, BINS_MAX) / BINS_MAX, method="higher")
    edges = np.unique(quantiles[quantiles > low])
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return NumberBaseline(edges.tolist(), low, high, counts.tolist(), len(column) - len(values))


def _decoded(column: NDArray[np.float64], categories: Sequence[Category]) -> list[Category | None]:
    return [None if np.isnan(code) else categories[int(code)] for code in column]


def _of_categories(values: Sequence[Category | None]) -> FeatureBaseline | None:
    counts = Counter(map(_identity, values))
    missing = counts.pop((False, None), 0)
    if not counts:
        return None
    short = [(value, n) for (_, value), n in counts.most_common() if len(str(value)) <= CATEGORY_CHARS_MAX]
    kept = short[:CATEGORIES_MAX]
    rest = sum(counts.values()) - sum(n for _, n in kept)
    return CategoryBaseline([value for value, _ in kept], [n for _, n in kept], missing, rest)

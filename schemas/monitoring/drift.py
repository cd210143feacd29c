"""Drift: how far the values that a version scored are from its baseline. Pure, over histograms with the same bins.

PSI is the population stability index, sum((a - e) * ln(a / e)) over the shares of the bins; by custom, 0.1 is a small
shift and 0.2 one to look at. JS is the Jensen-Shannon distance with base 2 (Endres, Schindelin 2003), from 0 to 1. KS
is the Kolmogorov-Smirnov statistic of the binned values: the largest difference of the cumulative shares, and at most
that of the values themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from inferd.schemas.monitoring.baseline import BINS_MAX, Baseline, FeatureBaseline, NumberBaseline, Source
from inferd.schemas.monitoring.histograms import Counts
from inferd.schemas.monitoring.window import FeatureStats, WindowStats

SHARE_MIN = 1e-4
"""Smallest share of a bin in PSI, which is infinite for an empty bin."""
ROWS_MIN = 200
"""With fewer rows, chance alone moves PSI by more than 0.05."""


class Distance(msgspec.Struct, frozen=True, omit_defaults=True):
    """The distance of two histograms."""

    psi: float
    js: float
    ks: float | None = None
    """None if the bins have no order."""


class FeatureDrift(msgspec.Struct, frozen=True, omit_defaults=True):
    """The drift of one feature. Shares are in [0, 1]."""

    name: str
    values: int
    """How many were counted, missing ones included."""
    psi: float
    js: float
    ks: float | None = None
    """None for categories."""
    missing: float = 0.0
    missing_baseline: float = 0.0
    out_of_range: float = 0.0
    """Share of numbers below the least or above the largest of the baseline."""
    unknown: float = 0.0
    """Share of categories that have no bin in the baseline."""


class Drift(msgspec.Struct, frozen=True, omit_defaults=True):
    """The drift of a version from its baseline."""

    model_id: str
    version: int
    source: Source
    baseline_rows: int
    rows: int
    """Rows whose features were counted by this baseline."""
    features: list[FeatureDrift] = []
    """Those that drifted most come first."""
    prediction: Distance | None = None
    """None without predictions."""

    @property
    def enough(self) -> bool:
        """Whether there are enough rows for a judgement."""
        return min(self.rows, self.baseline_rows) >= ROWS_MIN


def psi(expected: Sequence[float], actual: Sequence[float]) -> float:
    """The population stability index of two histograms; 0 if one is empty."""
    return sum(
        (a - e) * math.log(a / e)
        for e, a in zip(_floored(expected), _floored(actual), strict=True)
    )  # fmt: skip


def js_distance(expected: Sequence[float], actual: Sequence[float]) -> float:
    """The Jensen-Shannon distance of two histograms, base 2; 0 if one is empty."""
    divergence = 0.0
    for e, a in zip(_shares(expected), _shares(actual), strict=True):
        middle = (e + a) / 2
        divergence += sum(share * math.log2(share / middle) / 2 for share in (e, a) if share > 0)
    return math.sqrt(min(1.0, max(0.0, divergence)))


def ks_statistic(expected: Sequence[float], actual: Sequence[float]) -> float:
    """The largest difference of the cumulative shares of two histograms; 0 if one is empty."""
    differences = (a - e for e, a in zip(_shares(expected), _shares(actual), strict=True))
    return max((abs(each) for each in accumulate(differences)), default=0.0)


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts] if total else []


def _floored(counts: Sequence[float]) -> list[float]:
    return [max(share, SHARE_MIN) for share in _shares(counts)]


def distance(expected: Sequence[float], actual: Sequence[float], *, ordered: bool) -> Distance | None:
    """The distance of two histograms; None if one is empty."""
    if not sum(expected) or not sum(actual):
        return None
    return Distance(
        psi(expected, actual), js_distance(expected, actual), ks_statistic(expected, actual) if ordered else None
    )


def prediction_distance(expected: Counts, actual: Counts, *, ordered: bool = True) -> Distance | None:
    """The distance of two histograms of predictions, over bins with about equal counts in the expected one."""
    bins = sorted({*expected, *actual})
    groups = _quantile_groups(bins, expected) if ordered else [[number] for number in bins]
    first, second = (
        [sum(counts.get(number, 0) for number in group) for group in groups] for counts in (expected, actual)
    )
    return distance(first, second, ordered=ordered)


def _quantile_groups(bins: Sequence[int], counts: Counts) -> list[list[int]]:
    """Neighbouring bins, with a `BINS_MAX`th of the counts in each group, or one bin."""
    share = sum(counts.values()) / BINS_MAX
    groups: list[list[int]] = [[]]
    have = 0.0
    for number in bins:
        if groups[-1] and have >= share:
            groups.append([])
            have = 0.0
        groups[-1].append(number)
        have += counts.get(number, 0)
    if len(groups) > 1 and have < share / 2:
        last = groups.pop()
        groups[-1] += last
    return groups


def drift_of(baseline: Baseline, window: WindowStats) -> Drift:
    """The drift of the rows in `window` from the baseline."""
    counted = window.features if window.features.baseline == baseline.revision else None
    features = [
        _feature_drift(name, feature, counted.by_name[name])
        for name, feature in baseline.features.items()
        if counted is not None and name in counted.by_name
    ]
    ordered = window.predictions.scale != "class"
    prediction = (
        prediction_distance(baseline.predictions.counts, window.predictions.counts, ordered=ordered)
        if baseline.predictions.scale == window.predictions.scale
        else None
    )
    return Drift(
        window.model_id,
        window.version,
        baseline.source,
        baseline.rows,
        counted.rows if counted is not None else 0,
        sorted(features, key=lambda feature: (-feature.psi, feature.name)),
        prediction,
    )


def _feature_drift(name: str, feature: FeatureBaseline, stats: FeatureStats) -> FeatureDrift:
    counts = [*stats.counts, *[0] * (len(feature.counts) - len(stats.counts))][: len(feature.counts)]
    # Missing and other values are bins of their own: that a feature is missing now is drift, too.
    expected = [*feature.counts, feature.other, feature.missing]
    actual = [*counts, stats.unknown, stats.missing]
    is_number = isinstance(feature, NumberBaseline)
    found = distance(expected, actual, ordered=False) or Distance(0.0, 0.0)
    known = distance(feature.counts, counts, ordered=True) if is_number else None
    values = max(1, stats.values)
    return FeatureDrift(
        name,
        stats.values,
        found.psi,
        found.js,
        (known.ks if known is not None else 0.0) if is_number else None,
        stats.missing / values,
        feature.missing / max(1, sum(expected)),
        stats.out_of_range / values,
        stats.unknown / values,
    )

"""The figures of a rollout's running step, from the windows of its two versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Protocol

from inferd.schemas.monitoring import (
    ROWS_MIN,
    WINDOW_S,
    Predictions,
    Quality,
    WindowStats,
    added,
    latency_quantile_ms,
    prediction_distance,
)
from inferd.schemas.rollouts import Metric, Rollout, parse_step
from inferd.streams.rollouts.figures import Compared, Figures

SKEW_MINUTES = 2
"""How far behind the owner's the clocks of other workers may be."""
MEASURED: frozenset[Metric] = frozenset({"errors", "p50", "p95", "p99", "disagreement", "psi"})
"""Without labels."""
_QUANTILES: tuple[tuple[Metric, float], ...] = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


class Windows(Protocol):
    """The windows of what versions scored."""

    def windows(self, model_id: str, version: int, since_minute: int) -> Sequence[WindowStats]:
        """The windows of a version from a minute on; one for each variant and alias revision."""


def compared_in(windows: Windows, rollout: Rollout) -> Compared:
    """What both versions did since workers know of the running step: it has an alias revision of its own."""
    move, base = rollout.move, rollout.base.version
    if move is None or base is None:
        return Compared()
    since = next((event.at for event in reversed(rollout.events) if event.revision == move.revision), 0)
    minute = since // 1_000 // WINDOW_S - SKEW_MINUTES

    def of(version: int, *, shadow: bool) -> list[WindowStats]:
        found = windows.windows(rollout.model_id, version, minute)
        return [each for each in found if each.alias_revision == move.revision and (each.variant == "shadow") == shadow]

    is_shadow = parse_step(rollout.steps[rollout.step]).percent is None
    new, champion = of(rollout.version, shadow=is_shadow), of(base, shadow=False)
    return Compared(figures_of(new, champion), figures_of(champion))


def figures_of(windows: Iterable[WindowStats], champion: Iterable[WindowStats] = ()) -> Figures:
    """The figures of windows that add up. `champion`: what the predictions are compared with."""
    windows = list(windows)
    requests = failed = compared = differing = 0
    latency: dict[int, int] = {}
    for window in windows:
        requests += window.requests
        failed += window.failed
        compared += window.compared
        differing += window.differing
        latency = added(latency, window.latency)
    values: dict[Metric, float] = {}
    if requests:
        values["errors"] = failed / requests
    for metric, quantile in _QUANTILES:
        if (ms := latency_quantile_ms(latency, quantile)) is not None:
            values[metric] = ms
    if compared:
        values["disagreement"] = differing / compared
    if (psi := _psi(_predictions(champion), _predictions(windows))) is not None:
        values["psi"] = psi
    quality = reduce(Quality.plus, (window.quality for window in windows), Quality())
    if quality.auc is not None:
        values["auc"] = quality.auc
    return Figures(requests, values, quality.rows)


def _predictions(windows: Iterable[WindowStats]) -> Predictions:
    return reduce(Predictions.plus, (window.predictions for window in windows), Predictions())


def _psi(expected: Predictions, actual: Predictions) -> float | None:
    """How far the predictions of two versions for the same traffic are apart; None if too few rows were looked at."""
    few = min(sum(expected.counts.values()), sum(actual.counts.values())) < ROWS_MIN
    if few or expected.scale != actual.scale:
        return None
    found = prediction_distance(expected.counts, actual.counts, ordered=actual.scale != "class")
    return found.psi if found is not None else None

"""The figures of a rollout's running step, from the windows of its two versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Protocol

from msgspec.structs import replace

from inferd.schemas.monitoring import (
    ROWS_MIN,
    WINDOW_S,
    Features,
    Predictions,
    Quality,
    WindowStats,
    added,
    latency_quantile_ms,
    merged,
    prediction_distance,
)
from inferd.schemas.rollouts import Metric, Rollout, parse_guard, parse_step
from inferd.streams.rollouts.figures import Compared, Figures

SKEW_MINUTES = 2
"""How far behind the owner's the clocks of other workers may be."""
LATE_MINUTES = 5
"""Counts of a minute that arrive later than this are left out, except those of labels."""
RECOUNT_MS = 60_000
"""With a guard on labels, all windows of the step are read again this often."""
MEASURED: frozenset[Metric] = frozenset({"errors", "p50", "p95", "p99", "disagreement", "psi"})
"""Without labels."""
_QUANTILES: tuple[tuple[Metric, float], ...] = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


class Windows(Protocol):
    """The windows of what versions scored."""

    def windows(self, model_id: str, version: int, since_minute: int) -> Sequence[WindowStats]:
        """The windows of a version from a minute on; one for each variant and alias revision."""


@dataclass(slots=True)
class _Step:
    """The closed windows of a step, by version: the first minute after them, and their sum without features."""

    rollout_id: str
    revision: int
    alias: str
    begun_ms: int
    closed: dict[int, tuple[int, WindowStats | None]] = field(default_factory=dict)


class Measuring:
    """Adds up the windows of running steps. Each window is read until it is `LATE_MINUTES` old, and remembered then."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._steps: dict[str, _Step] = {}
        """By model."""

    def forget(self) -> None:
        """Reads all windows anew: they may have changed."""
        self._steps.clear()

    def compared(self, rollout: Rollout, now_ms: int) -> Compared:
        """What both versions did since workers know of the running step: it has an alias revision of its own."""
        move, base = rollout.move, rollout.base.version
        if move is None or base is None:
            return Compared()
        step = self._steps.get(rollout.model_id)
        running = (rollout.id, move.revision)
        if step is None or (step.rollout_id, step.revision) != running or _is_outdated(rollout, step, now_ms):
            written = next((event.at for event in reversed(rollout.events) if event.revision == move.revision), 0)
            first = _minute(written) - SKEW_MINUTES
            step = self._steps[rollout.model_id] = _Step(
                *running, rollout.alias, now_ms, dict.fromkeys((rollout.version, base), (first, None))
            )
        is_shadow, closes = parse_step(rollout.steps[rollout.step]).percent is None, _minute(now_ms) - LATE_MINUTES
        new = self._read(rollout.model_id, rollout.version, step, closes, shadow=is_shadow)
        champion = self._read(rollout.model_id, base, step, closes, shadow=False)
        return Compared(figures_of(new, champion), figures_of(champion))

    def _read(self, model_id: str, version: int, step: _Step, closes: int, *, shadow: bool) -> list[WindowStats]:
        """The sum of the closed windows, and the others."""
        since, sum_of_closed = step.closed[version]
        found = [
            replace(each, features=Features())
            for each in self._windows.windows(model_id, version, since)
            if each.alias_revision == step.revision
            and each.alias in (step.alias, None)  # workers of earlier releases name none
            and (each.variant == "shadow") == shadow
        ]
        closed = [window for window in found if window.minute < closes]
        sum_of_closed = merged([*([] if sum_of_closed is None else [sum_of_closed]), *closed])
        step.closed[version] = (max(since, closes), sum_of_closed)
        open_ones = [window for window in found if window.minute >= closes]
        return open_ones if sum_of_closed is None else [sum_of_closed, *open_ones]


def _is_outdated(rollout: Rollout, step: _Step, now_ms: int) -> bool:
    """Whether labels may have changed old windows: they may come at any time."""
    judges_labels = any(parse_guard(text).metric == "auc" for text in rollout.guards)
    return judges_labels and now_ms - step.begun_ms >= RECOUNT_MS


def _minute(unix_ms: int) -> int:
    return unix_ms // 1_000 // WINDOW_S


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

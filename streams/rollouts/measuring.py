"""The figures of a rollout's running step, from the windows of its two versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from inferd.schemas.monitoring import WINDOW_S, WindowStats, added, latency_quantile_ms
from inferd.schemas.rollouts import Metric, Rollout, parse_step
from inferd.streams.rollouts.figures import Compared, Figures

SKEW_MINUTES = 2
"""How far behind the owner's the clocks of other workers may be."""
MEASURED: frozenset[Metric] = frozenset({"errors", "p50", "p95", "p99", "disagreement"})
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

    def of(version: int, *, shadow: bool) -> Figures:
        found = windows.windows(rollout.model_id, version, minute)
        return figures_of(
            each for each in found if each.alias_revision == move.revision and (each.variant == "shadow") == shadow
        )

    is_shadow = parse_step(rollout.steps[rollout.step]).percent is None
    return Compared(of(rollout.version, shadow=is_shadow), of(base, shadow=False))


def figures_of(windows: Iterable[WindowStats]) -> Figures:
    """The figures of windows that add up."""
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
    return Figures(requests, values)

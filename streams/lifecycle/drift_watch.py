"""Measures the drift of each version regularly, for the metrics of the worker that owns the windows."""

from __future__ import annotations

from collections.abc import Callable

from inferd.schemas.monitoring import WINDOW_S, Baseline, Drift, drift_of, merged
from inferd.streams.lifecycle.windows import Version, WindowStore
from inferd.streams.telemetry import DriftSnapshot

BaselineOf = Callable[[str, int], Baseline | None]
"""Model id and version -> its baseline."""
SPAN_MINUTES = 60
"""Windows that are compared with the baseline."""
AGAIN_S, SOON_S = 60, 5
"""How often a version is measured: usually, and while nothing is known."""
VERSIONS_MAX, FEATURES_MAX = 50, 20
"""Versions that are measured, and features of each that the metrics have: those that drifted most."""


class DriftWatch:
    """The drift of the versions of one tenant."""

    def __init__(self, tenant: str, windows: WindowStore, baseline_of: BaselineOf) -> None:
        self._tenant, self._windows, self._baseline_of = tenant, windows, baseline_of
        self._measured: dict[Version, tuple[float, DriftSnapshot | None]] = {}
        """When a version was measured, in Unix seconds, and its drift; None if nothing is known."""

    def step(self, now_s: float) -> None:
        """Measures the next version that is due; one at a time, so that the event loop is not held."""
        versions = self._windows.versions()[-VERSIONS_MAX:]
        self._measured = {version: found for version, found in self._measured.items() if version in versions}
        due = {version: at for version in versions if (at := self._due_s(version)) <= now_s}
        if due:
            version = min(due, key=lambda each: due[each])
            self._measured[version] = now_s, self._measure(version, int(now_s) // WINDOW_S - SPAN_MINUTES)

    def _due_s(self, version: Version) -> float:
        """When to measure a version."""
        if version not in self._measured:
            return float("-inf")
        measured_s, found = self._measured[version]
        return measured_s + (AGAIN_S if found is not None else SOON_S)

    def clear(self) -> None:
        """Forgets everything: the windows have another owner."""
        self._measured.clear()

    def snapshot(self) -> tuple[DriftSnapshot, ...]:
        """The drift of each version with a baseline and enough rows."""
        return tuple(found for _, found in self._measured.values() if found is not None)

    def _measure(self, version: Version, since: int) -> DriftSnapshot | None:
        baseline = self._baseline_of(*version)
        total = merged(self._windows.windows(*version, since)) if baseline is not None else None
        if baseline is None or total is None:
            return None
        drift = drift_of(baseline, total)
        return _snapshot(self._tenant, drift) if drift.enough else None


def _snapshot(tenant: str, drift: Drift) -> DriftSnapshot:
    return DriftSnapshot(
        tenant, drift.model_id, drift.version, drift.rows, drift.source,
        drift.prediction.psi if drift.prediction is not None else None,
        {feature.name: feature.psi for feature in drift.features[:FEATURES_MAX]},
    )  # fmt: skip

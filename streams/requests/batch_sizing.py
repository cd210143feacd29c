"""Bounds the size of a micro-batch, so that the event loop is never held longer than heartbeats allow."""

from __future__ import annotations

from inferd.streams.inference import Group
from inferd.streams.settings import LaneSettings

WEIGHT = 0.2
"""Weight of a new observation in the moving average."""
ROW_S_AT_FIRST = 20e-6
RECORDS_MIN = 64
"""Smaller micro-batches do not make rows cheaper."""


class BatchSizer:
    """Moving averages of the cost of a record and of a row of each model, and the bounds that follow."""

    def __init__(self, settings: LaneSettings) -> None:
        self._inline_s = settings.inline_ms_max / 1000
        self._records_max = settings.batch_rows_max
        self._record_s = ROW_S_AT_FIRST
        self._row_s: dict[str, float] = {}

    def records_max(self) -> int:
        """Number of records expected to be scored within the bound."""
        within = int(self._inline_s / self._record_s)
        return max(1, min(self._records_max, max(RECORDS_MIN, within)))

    def is_long(self, group: Group) -> bool:
        """Whether a prediction is expected to take long enough to run in a thread."""
        return group.to_score * self._row_s.get(group.model.manifest.sha256, ROW_S_AT_FIRST) > self._inline_s

    def batch_took(self, elapsed_s: float, records: int) -> None:
        self._record_s = _average(self._record_s, elapsed_s / records)

    def group_took(self, group: Group, elapsed_s: float) -> None:
        if not group.to_score:  # All rows came from the cache.
            return
        digest = group.model.manifest.sha256
        self._row_s[digest] = _average(self._row_s.get(digest, ROW_S_AT_FIRST), elapsed_s / group.to_score)


def _average(old: float, new: float) -> float:
    return (1 - WEIGHT) * old + WEIGHT * new

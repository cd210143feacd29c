"""Bounds the size of a micro-batch, so that the event loop is never held longer than heartbeats allow."""

from __future__ import annotations

from inferd.streams.settings import LaneSettings

WEIGHT = 0.2
"""Weight of a new observation in the moving average."""
RECORD_S_AT_FIRST = 20e-6
RECORDS_MIN = 64
"""Smaller micro-batches do not make rows cheaper."""


class BatchSizer:
    """The moving average of the cost of a record, and the bound that follows."""

    def __init__(self, settings: LaneSettings) -> None:
        self._inline_s = settings.inline_ms_max / 1000
        self._records_max = settings.batch_rows_max
        self._record_s = RECORD_S_AT_FIRST

    def records_max(self) -> int:
        """Number of records expected to be scored within the bound."""
        within = int(self._inline_s / self._record_s)
        return max(1, min(self._records_max, max(RECORDS_MIN, within)))

    def batch_took(self, elapsed_s: float, records: int) -> None:
        self._record_s = (1 - WEIGHT) * self._record_s + WEIGHT * elapsed_s / records

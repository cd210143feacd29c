"""Decides which predictions run in a thread, so that none blocks the event loop for longer than heartbeats allow."""

from __future__ import annotations

from inferd.schemas.models import Manifest
from inferd.schemas.requests import Output

WEIGHT = 0.2
"""Weight of a new observation in the moving average."""
KNOWN_MAX = 10_000

_Key = tuple[str, tuple[Output, ...]]


class PredictionCosts:
    """Moving averages of the time per row, for each model and outputs: contributions take longer than predictions.

    A prediction without an average may take any time: a row costs microseconds in some models, and tens of milliseconds
    in others. It therefore runs in a thread.
    """

    def __init__(self, inline_ms_max: float) -> None:
        self._inline_s = inline_ms_max / 1000
        self._row_s: dict[_Key, float] = {}

    def is_long(self, manifest: Manifest, outputs: tuple[Output, ...], rows: int) -> bool:
        """Whether a prediction is expected to take long enough to run in a thread, or its cost is unknown."""
        row_s = self._row_s.get((manifest.sha256, outputs))
        return row_s is None or rows * row_s > self._inline_s

    def took(self, manifest: Manifest, outputs: tuple[Output, ...], rows: int, elapsed_s: float) -> None:
        """Records the duration of a prediction of at least one row."""
        key, row_s = (manifest.sha256, outputs), elapsed_s / rows
        if key not in self._row_s and len(self._row_s) >= KNOWN_MAX:
            self._row_s.clear()
        self._row_s[key] = (1 - WEIGHT) * self._row_s.get(key, row_s) + WEIGHT * row_s

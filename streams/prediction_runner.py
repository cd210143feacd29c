"""Runs predictions without blocking the event loop: short ones inline, others in a thread. Measures them."""

from __future__ import annotations

import math
import time
from typing import Protocol

from inferd.schemas.requests import Output
from inferd.streams.inference import PredictionCosts, ServedModel
from inferd.streams.tasks import OwnThread
from inferd.streams.telemetry import LaneMeasures


class Predictable(Protocol):
    """Rows of one model and the same outputs, to be predicted together."""

    model: ServedModel
    outputs: tuple[Output, ...]

    @property
    def in_thread(self) -> bool:
        """Whether the prediction must run in a thread."""

    def predict(self) -> None:
        """Predicts the rows."""


class PredictionRunner:
    """Runs the predictions of one tenant and kind of record, one at a time."""

    def __init__(
        self, thread_name: str, measures: LaneMeasures, inline_ms_max: float, inline_rows_max: float = math.inf
    ) -> None:
        """Predictions that are expected to take longer, or that have more rows, run in a thread."""
        self._thread = OwnThread(thread_name)
        self._measures = measures
        self._costs = PredictionCosts(inline_ms_max)
        self._inline_rows_max = inline_rows_max

    async def run(self, tenant: str, group: Predictable, rows: int) -> None:
        """Predicts a group of `rows` rows; raises what it raises."""
        manifest, started = group.model.manifest, time.perf_counter()
        long = rows > self._inline_rows_max or self._costs.is_long(manifest, group.outputs, rows)
        if group.in_thread or long:
            await self._thread.call(group.predict)
        else:
            group.predict()
        elapsed = time.perf_counter() - started
        if rows:
            self._costs.took(manifest, group.outputs, rows, elapsed)
        self._measures.count_prediction(tenant, manifest, elapsed, rows)

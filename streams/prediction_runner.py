"""Runs predictions without blocking the event loop: short ones inline, others in a thread. Measures them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Protocol

from inferd.schemas.models import Manifest
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

    @property
    def to_score(self) -> int:
        """Number of rows that the model must score."""

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

    async def run(self, tenant: str, groups: Sequence[Predictable]) -> None:
        """Predicts the groups of a micro-batch; raises what the first failure raises.

        The thread is asked once for all of its groups: while the event loop is busy, each hand-over to a thread and
        back takes milliseconds.
        """
        in_thread: list[Predictable] = []
        for group in groups:
            if not group.to_score:
                group.predict()
            elif self._needs_thread(group):
                in_thread.append(group)
            else:
                self._note(tenant, *_timed(group))
        if in_thread:
            for timed in await self._thread.call(lambda: [_timed(group) for group in in_thread]):
                self._note(tenant, *timed)

    def _needs_thread(self, group: Predictable) -> bool:
        rows = group.to_score
        return (
            group.in_thread
            or rows > self._inline_rows_max
            or self._costs.is_long(group.model.manifest, group.outputs, rows)
        )

    def _note(self, tenant: str, manifest: Manifest, outputs: tuple[Output, ...], rows: int, elapsed_s: float) -> None:
        self._costs.took(manifest, outputs, rows, elapsed_s)
        self._measures.count_prediction(tenant, manifest, elapsed_s, rows)


def _timed(group: Predictable) -> tuple[Manifest, tuple[Output, ...], int, float]:
    """Predicts a group; its manifest, outputs and rows, and the seconds that it took."""
    rows, started = group.to_score, time.perf_counter()
    group.predict()
    return group.model.manifest, group.outputs, rows, time.perf_counter() - started

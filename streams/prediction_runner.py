"""Runs predictions without blocking the event loop: short ones inline, others in a thread. Measures them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.schemas.models import Manifest
from inferd.schemas.requests import Output
from inferd.streams.inference import PredictionCosts, ServedModel
from inferd.streams.tasks import OwnThread
from inferd.streams.telemetry import LaneMeasures

LOCK_WAIT_S_MAX = 0.02
"""Maximum wait of a prediction in a thread that is attributed to the interpreter lock (GIL)."""


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

    def __init__(self, thread_name: str, measures: LaneMeasures, inline_ms_max: float) -> None:
        """Predictions that are expected to take longer than `inline_ms_max` run in a thread."""
        self._thread = OwnThread(thread_name)
        self._measures = measures
        self._costs = PredictionCosts(inline_ms_max)

    async def run(self, tenant: str, groups: Sequence[Predictable]) -> None:
        """Predicts the groups of a micro-batch; raises the first exception.

        All groups that need the thread are passed to it in one call: while the event loop is busy, each hand-over to a
        thread and back takes milliseconds.
        """
        in_thread: list[Predictable] = []
        for group in groups:
            if not group.to_score:
                group.predict()
            elif group.in_thread or self._costs.is_long(group.model.manifest, group.outputs, group.to_score):
                in_thread.append(group)
            else:
                self._note(tenant, _timed(group))
        if in_thread:
            for prediction in await self._thread.call(lambda: [_timed(group) for group in in_thread]):
                self._note(tenant, prediction)

    def _note(self, tenant: str, prediction: _Prediction) -> None:
        manifest, rows = prediction.manifest, prediction.rows
        self._costs.took(manifest, prediction.outputs, rows, prediction.cost_s)
        self._measures.count_prediction(tenant, manifest, prediction.elapsed_s, rows)


@dataclass(frozen=True, slots=True)
class _Prediction:
    """Wall and CPU time of a prediction."""

    manifest: Manifest
    outputs: tuple[Output, ...]
    rows: int
    elapsed_s: float
    cpu_s: float

    @property
    def cost_s(self) -> float:
        """Estimated time if run inline, that is, without waits for the interpreter lock."""
        return max(self.cpu_s, self.elapsed_s - LOCK_WAIT_S_MAX)


def _timed(group: Predictable) -> _Prediction:
    rows, started, cpu_started = group.to_score, time.perf_counter(), time.thread_time()
    group.predict()
    elapsed_s, cpu_s = time.perf_counter() - started, time.thread_time() - cpu_started
    return _Prediction(group.model.manifest, group.outputs, rows, elapsed_s, cpu_s)

"""Scores one micro-batch of a tenant, inline or in a thread; measures it, and isolates records that raise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from inferd.schemas.errors import InternalError, ModelServingError
from inferd.streams.inference import (
    MicroBatch,
    OnStep,
    Outcome,
    Work,
    halve,
    record_timestamps,
)
from inferd.streams.inference.cache import PredictionCache
from inferd.streams.prediction_runner import PredictionRunner
from inferd.streams.requests.batch_sizing import BatchSizer
from inferd.streams.telemetry import LaneMeasures, StepTimer

log = structlog.get_logger(__name__)


class BatchScorer(Protocol):
    """Prepares the micro-batches of one kind of record."""

    def prepare(
        self, work: Work, now_ms: int, cache: PredictionCache | None, fill_direct: int | None, on_step: OnStep
    ) -> MicroBatch:
        """Decodes and checks every record, and looks up its rows in the cache."""

    def reject(self, work: Work, error: ModelServingError) -> Outcome:
        """The outcome if scoring fails even for single records: `error` for each."""


class BatchScoring:
    """Scores the micro-batches of one tenant in order; their cost bounds the size of the next ones."""

    def __init__(
        self, measures: LaneMeasures, batch_sizer: BatchSizer, runner: PredictionRunner, clock: Callable[[], float]
    ) -> None:
        """`clock`: Unix seconds."""
        self._measures = measures
        self._batch_sizer = batch_sizer
        self._runner = runner
        self._clock = clock

    def records_max(self) -> int:
        """Maximum records of the next micro-batch."""
        return self._batch_sizer.records_max()

    def answered(self, timestamps_ms: Sequence[int]) -> None:
        """Counts HTTP requests that have been answered, with their arrival times."""
        self._measures.direct.observe_since(timestamps_ms, self._clock() * 1000)

    async def score(
        self,
        tenant: str,
        scorer: BatchScorer,
        work: Work,
        cache: PredictionCache | None,
        fill_direct: int | None,
        step_timer: StepTimer | None = None,
    ) -> Outcome:
        """Scores a micro-batch. If that raises, the record that causes it is found by bisection and answered with
        `internal`.

        `fill_direct`: partition whose cache stores answers to HTTP requests; `step_timer` gets the steps.
        """
        started = time.perf_counter()
        step_timer = step_timer or StepTimer()
        try:
            outcome = await self._score_batch(tenant, scorer, work, cache, fill_direct, step_timer)
        except Exception as fault:
            halves = halve(work)
            if halves is None:
                log.exception("scoring_failed", tenant=tenant, partition=work[0][0], offset=work[0][1][0].offset)
                return scorer.reject(work, InternalError(f"{type(fault).__name__} while scoring"))
            first, then = [await self.score(tenant, scorer, half, cache, fill_direct) for half in halves]
            return first + then
        for noted in outcome.faults:
            log.error("scoring_fault", exc_info=noted, tenant=tenant)
        elapsed = time.perf_counter() - started
        self._batch_sizer.batch_took(elapsed, len(outcome.values))
        self._measures.infer.observe(elapsed)
        self._measures.observe_steps(step_timer)
        self._measures.batches += 1
        self._measures.batch_rows_last = outcome.rows
        self._measures.count_models(tenant, outcome.by_model)
        return outcome

    async def _score_batch(
        self,
        tenant: str,
        scorer: BatchScorer,
        work: Work,
        cache: PredictionCache | None,
        fill_direct: int | None,
        step_timer: StepTimer,
    ) -> Outcome:
        now_ms = int(self._clock() * 1000)
        stamps = [stamp for _, records in work for stamp in record_timestamps(records)]
        self._measures.observe_step("receive", self._measures.queue.observe_since(stamps, now_ms))
        batch = scorer.prepare(work, now_ms, cache, fill_direct, step_timer.finish)
        await self._runner.run(tenant, batch.groups)
        step_timer.finish("predict")
        outcome = batch.finish()
        step_timer.finish("postprocess")
        return outcome

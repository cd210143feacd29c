"""Backend of the prediction route in a script: the scoring of a worker, one request at a time in a thread pool."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from inferd.schemas.errors import error_of_code
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Alias
from inferd.schemas.requests import ModelReference
from inferd.streams.http_requests import HttpAnswer
from inferd.streams.inference import ModelCatalog, Scorer, ServedModel
from inferd.streams.serving import ModelManager, RealtimePredictor, add_own_models

THREADS = 4
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Request:
    """A request in the form of a Kafka record, as scoring expects it."""

    offset: int
    timestamp: int
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    key: None = None


class LocalPredictions:
    """Implements `inferd.daemon.http.routes.services.Predictions` with a `RealtimePredictor`."""

    def __init__(self, predictor: RealtimePredictor, limits: Limits = DEFAULT_LIMITS) -> None:
        ask = predictor.answer if predictor.handles_requests else None
        ask_rows = predictor.rows_answered if predictor.takes_batches else None
        catalog = ManagedCatalog(predictor.model_manager)
        add_own_models(catalog, predictor)
        self._scorer = Scorer(catalog, limits, ask=ask, ask_rows=ask_rows)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="inferd-predict")
        self._numbers = itertools.count()

    async def predict(self, tenant: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> HttpAnswer:
        """See `Predictions`; `tenant` is always the manager's."""
        request = _Request(next(self._numbers), int(time.time() * 1_000), value, headers)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._score, request)

    def close(self) -> None:
        """Waits for running predictions to finish."""
        self._threads.shutdown()

    def _score(self, request: _Request) -> HttpAnswer:
        batch = self._scorer.prepare([(0, [request])], int(time.time() * 1_000))
        for group in batch.groups:
            group.predict()
        outcome = batch.finish()
        for fault in outcome.faults:
            log.error("scoring_fault", exc_info=fault)
        for error in outcome.failures.values():
            failure = error_of_code(error.code, error.message)
            failure.result_headers = outcome.variants.at(0)
            raise failure
        return HttpAnswer(outcome.values[0], outcome.variants.at(0))


class ManagedCatalog(ModelCatalog):
    """The catalog of a `ModelManager`; a model is loaded at its first use."""

    def __init__(self, model_manager: ModelManager) -> None:
        super().__init__()
        self._manager = model_manager

    def alias_behind(self, reference: ModelReference) -> Alias | None:
        return None if self.owns(reference.name) else self._manager.catalog.alias_behind(reference)

    def split_numbers(self, reference: ModelReference) -> list[int]:
        return self._manager.catalog.split_numbers(reference)

    def split_versions(
        self, reference: ModelReference, routing_keys: Sequence[bytes] | Sequence[str]
    ) -> NDArray[np.int64]:
        return self._manager.catalog.split_versions(reference, routing_keys)

    def resolve(self, reference: ModelReference, routing_key: bytes = b"") -> ServedModel:
        if self.owns(reference.name):
            return super().resolve(reference, routing_key)
        return self._manager.load(str(reference), routing_key=routing_key)

"""The cost of custom predictors: micro-batches scored by `predict`, by `predict_batch`, and without custom code.

    python -m bench.own_predictors

Measures everything except Kafka: from encoded requests, one row each, to encoded results. The variants are interleaved.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.inference import ModelCatalog, Scorer, Version
from inferd.streams.serving import ModelManager, RealtimePredictor

FEATURES, TREES, REQUESTS, TURNS = 30, 100, 4_096, 9


class ByRow(RealtimePredictor):
    """One call per request."""

    def predict(self, model_id: str, input_data: Any) -> Any:
        return 2 * super().predict(model_id, input_data)


class ByBatch(RealtimePredictor):
    """One call per micro-batch."""

    def predict_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
        return [2 * each for each in super().predict_batch(model_id, input_batch)]


class ByArray(RealtimePredictor):
    """One call per micro-batch, without a model of the worker."""

    def predict_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
        totals: list[Any] = np.asarray(input_batch).sum(axis=1).tolist()
        return totals


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in the form of a Kafka record, as scoring expects it."""

    offset: int
    value: bytes
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes]] = ()
    key: None = None


def measure() -> dict[str, list[float]]:
    """Rows per second of each variant, by repeat."""
    catalog = _catalog()
    ways = {"the worker without a custom predictor": Scorer(catalog, DEFAULT_LIMITS)}
    for name, kind in (("predict_batch, with an array", ByArray), ("predict_batch", ByBatch), ("predict", ByRow)):
        predictor = kind(_Models(catalog))
        rows = predictor.rows_answered if predictor.takes_batches else None
        ways[name] = Scorer(catalog, DEFAULT_LIMITS, ask=predictor.answer, ask_rows=rows)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        batch = _requests(turn)
        for name, scorer in ways.items():
            seconds = _seconds(scorer, batch)
            if turn:  # the first one is a warm-up
                found[name].append(len(batch) / seconds)
    return found


class _Models(ModelManager):
    """Models that are already loaded, like those of a worker."""

    def __init__(self, catalog: ModelCatalog) -> None:
        super().__init__(Path())
        self._loaded = catalog

    @property
    def catalog(self) -> ModelCatalog:
        return self._loaded


def _seconds(scorer: Scorer, batch: Sequence[Asked]) -> float:
    started = time.perf_counter()
    prepared = scorer.prepare([(0, batch)], 0)
    for group in prepared.groups:
        group.predict()
    outcome = prepared.finish()
    seconds = time.perf_counter() - started
    assert not outcome.failures
    return seconds


def _requests(turn: int) -> list[Asked]:
    rows = np.random.default_rng(turn).normal(size=(REQUESTS, FEATURES)).tolist()
    return [
        Asked(offset, msgspec.msgpack.encode({"model_id": "bench", "input_data": row}))
        for offset, row in enumerate(rows)
    ]


def _catalog() -> ModelCatalog:
    rows = np.random.default_rng(1).normal(size=(5_000, FEATURES))
    parameters = {"objective": "binary", "num_leaves": 31, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, rows[:, 0] + rows[:, 1] > 0), TREES)
    with tempfile.TemporaryDirectory() as store:
        manager = ModelManager(store)
        manager.register("bench", booster.model_to_string().encode(), trial=False)
        served = manager.load("bench")
    catalog = ModelCatalog()
    catalog.put(Version(served.manifest, "ready", None, served))
    return catalog


def main() -> None:
    """Prints the table."""
    table = Table("scored by", "rows/s, median", "range")
    for name, rates in measure().items():
        table.add_row(name, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()

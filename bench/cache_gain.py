"""The benefit or cost of the prediction cache: scoring with and without it, by share of repeats and model size.

    python -m bench.cache_gain

Measures everything except Kafka: from encoded requests to encoded results, including changes of the table. Repeats are
rows of a pool that is cached, drawn by Zipf's law; all other rows are new. Micro-batches with and without the cache are
interleaved. The cost of changelog writes is not included.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

import lightgbm
import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.cache_policies import zipf
from bench.layouts import FEATURES
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.inference import (
    ModelCatalog,
    Outcome,
    Scorer,
    ServedModel,
    Version,
    compile_postprocess,
    manifest_of,
)
from inferd.streams.inference.cache import PredictionCache
from inferd.streams.inference.features import FeatureSchema
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.state import Change, MemoryStore

TREES = (100, 2_000)
REPEATS = (0.0, 0.5, 0.9, 0.99)
ROWS = 1_024
ROUNDS = 5
POOL = 8_192
NOW_MS = 1_000
SEED = 20_240_229


class Request:
    """A request in the form of a Kafka record, as scoring expects it."""

    def __init__(self, offset: int, value: bytes) -> None:
        self.offset, self.value = offset, value
        self.timestamp, self.key, self.headers = 0, None, ()


def served(trees: int) -> ServedModel:
    """A binary model with this many trees x 31 leaves over 30 features, with a cache."""
    random = np.random.default_rng(SEED)
    rows = random.normal(size=(4_000, FEATURES))
    labels = rows @ random.normal(size=FEATURES) + random.normal(size=len(rows)) > 0
    parameters = {"objective": "binary", "num_leaves": 31, "verbosity": -1, "min_data_in_leaf": 5}
    text = lightgbm.train(parameters, lightgbm.Dataset(rows, labels), num_boost_round=trees).model_to_string().encode()
    manifest = manifest_of(
        text, hashlib.sha256(text).hexdigest()[:8], 1, {"cache": {"ttl_s": 600, "max_entries": 10**6}}
    )
    return ServedModel(manifest, LightGBMRuntime(text), FeatureSchema(manifest), compile_postprocess(manifest))


class Workload:
    """Micro-batches of requests for one model."""

    def __init__(self, model: ServedModel) -> None:
        catalog = ModelCatalog()
        catalog.put(Version(model.manifest, "ready", None, model))
        self._model_id = model.manifest.model_id
        self._random = np.random.default_rng(SEED)
        self._pool = self._random.normal(size=(POOL, FEATURES))
        self._scorer = Scorer(catalog, DEFAULT_LIMITS)
        self._store = MemoryStore()
        self._cache = PredictionCache("bench")
        self._cache.open(0, self._store)
        for start in range(0, POOL, ROWS):
            self.score(self._requests(self._pool[start : start + ROWS]), cached=True)

    def requests(self, repeats: float) -> list[Request]:
        """A micro-batch with this share of cached rows."""
        rows = self._random.normal(size=(ROWS, FEATURES))
        repeated = self._random.random(ROWS) < repeats
        rows[repeated] = self._pool[zipf(1.0, self._random, int(repeated.sum())) % POOL]
        return self._requests(rows)

    def score(self, requests: Sequence[Request], *, cached: bool) -> tuple[float, Sequence[bytes]]:
        """Scores a micro-batch; returns CPU seconds and results."""
        start = time.thread_time()
        outcome = self._outcome(requests, self._cache if cached else None)
        self._store.write(outcome.table_changes.get(0, ()), 0)
        return time.thread_time() - start, outcome.values

    def fills(self) -> list[Change]:
        """The changes of the cache's table for a micro-batch of new rows."""
        return list(self._outcome(self.requests(0.0), self._cache).table_changes[0])

    def _outcome(self, requests: Sequence[Request], cache: PredictionCache | None) -> Outcome:
        batch = self._scorer.prepare([(0, requests)], NOW_MS, cache)
        for group in batch.groups:
            group.predict()
        return batch.finish()

    def _requests(self, rows: NDArray[np.float64]) -> list[Request]:
        bodies: list[dict[str, Any]] = [
            {"id": "r", "model_id": self._model_id, "input_data": row} for row in rows.tolist()
        ]
        return [Request(offset, msgspec.msgpack.encode(body)) for offset, body in enumerate(bodies)]


def compare(workload: Workload, repeats: float) -> tuple[float, float]:
    """Median CPU µs per row, without and with the cache."""
    plain_s, cached_s = [], []
    for _ in range(ROUNDS):
        requests = workload.requests(repeats)
        plain, cached = workload.score(requests, cached=False), workload.score(requests, cached=True)
        if plain[1] != cached[1]:
            raise AssertionError("the cache changed a result")
        plain_s.append(plain[0])
        cached_s.append(cached[0])
    return statistics.median(plain_s) / ROWS * 1e6, statistics.median(cached_s) / ROWS * 1e6


def main() -> None:
    table = Table(title=f"CPU µs per row, micro-batches of {ROWS:,} one-row requests, {FEATURES} features")
    for column in ("trees", "repeats", "cache off", "cache on", "off / on", ""):
        table.add_column(column, justify="right" if column else "left")
    for trees in TREES:
        workload = Workload(served(trees))
        for repeats in REPEATS:
            off_us, on_us = compare(workload, repeats)
            verdict = "worthwhile" if on_us < off_us else "not worthwhile"
            table.add_row(
                str(trees), f"{repeats:.0%}", f"{off_us:.1f}", f"{on_us:.1f}", f"{off_us / on_us:.2f}", verdict
            )
    Console().print(table)


if __name__ == "__main__":
    main()

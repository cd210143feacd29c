"""The cache through evictions, expiry, failed publishing, rebalances and version changes, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models.model import CacheSpec, Manifest
from inferd.streams.inference.cache.cache import PredictionCache
from inferd.streams.inference.cache.keys import key_space, version_prefix
from inferd.streams.inference.cache.values import expires_at_ms
from inferd.streams.inference.catalog import ModelCatalog, ServedModel, Version
from inferd.streams.inference.outcome import CACHE_HIT, CACHE_MISS
from inferd.streams.inference.scoring import Scorer
from tests.fixtures.lane import SumRuntime, sum_model
from tests.fixtures.scoring import Fetched, finish
from tests.unit.streams.inference.cache.cache_tables import FakeTable

TTL_MS = 1_000
ENTRIES_MAX = 4
PARTITIONS = VERSIONS = st.integers(1, 2)
OUTPUTS = st.sampled_from(["prediction", "raw"])
ROWS = st.lists(st.integers(0, 9), min_size=1, max_size=6)


class ScaledRuntime(SumRuntime):
    """Another answer for each version and output."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self._version = version

    def predict(self, matrix: Any, outputs: Any) -> Any:
        sums = super().predict(matrix, ("prediction",))["prediction"]
        return {output: sums * self._version + (output == "raw") * 0.5 for output in outputs}


def served(version: int) -> ServedModel:
    model = sum_model(version, ScaledRuntime(version))
    return replace(
        model, manifest=msgspec.structs.replace(model.manifest, cache=CacheSpec(TTL_MS / 1_000, ENTRIES_MAX))
    )


def key_of(manifest: Manifest, output: Any, row: int) -> bytes:
    return key_space("t", manifest, (output,)).keys(np.array([[float(row), 1.0]]))[0]


class CacheMachine(RuleBasedStateMachine):
    """Two partitions and two versions; the cache must find exactly the entries of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.catalog = ModelCatalog()
        self.scorer = Scorer(self.catalog, DEFAULT_LIMITS)
        self.cache = PredictionCache("t")
        self.tables = {1: FakeTable(), 2: FakeTable()}
        self.models = {version: served(version) for version in (1, 2)}
        for model in self.models.values():
            self.catalog.put(Version(model.manifest, "ready", None, model))
        for number, table in self.tables.items():
            self.cache.open(number, table)

    # ------------------------------------------------------------------ what happens

    @rule(number=PARTITIONS, version=VERSIONS, output=OUTPUTS, rows=ROWS)
    def score(self, number: int, version: int, output: str, rows: list[int]) -> None:
        """Scores rows of a partition, and checks which of them were found."""
        if self.catalog.version("sum", version) is None:
            return
        model = self.models[version]
        keys = [key_of(model.manifest, output, row) for row in rows]
        visible = self.tables[number].visible()
        expected = [
            CACHE_HIT if key in visible and self.now_ms < expires_at_ms(visible[key]) else CACHE_MISS for key in keys
        ]
        corrupt = {key for key in keys if key in visible and visible[key][8:16] == b"corrupt!"}
        body = {"id": "r", "model_id": f"sum:{version}", "outputs": [output]}
        records = [Fetched(msgspec.msgpack.encode({**body, "input_data": [float(row), 1.0]})) for row in rows]
        outcome = finish(self.scorer.prepare([(number, records)], self.now_ms, self.cache))
        for row, value in zip(rows, outcome.values, strict=True):
            right = (row + 1.0) * version + (output == "raw") * 0.5
            assert msgspec.msgpack.decode(value)[output] == right
        assert [mark for key, mark in zip(keys, outcome.cache_marks, strict=True) if key not in corrupt] == [
            mark for key, mark in zip(keys, expected, strict=True) if key not in corrupt
        ]
        self.tables[number].stage(outcome.table_changes.get(number, []))

    @rule(number=PARTITIONS)
    def commit(self, number: int) -> None:
        self.cache.acked(number, self.tables[number].commit())

    @rule(number=PARTITIONS)
    def fail_to_publish(self, number: int) -> None:
        """Discards all changes in flight."""
        self.cache.discard(number, self.tables[number].rewind())

    @rule(ms=st.integers(1, TTL_MS))
    def wait(self, ms: int) -> None:
        self.now_ms += ms

    @rule(number=PARTITIONS, budget=st.integers(1, 30))
    def sweep(self, number: int, budget: int) -> None:
        visible = self.tables[number].visible()
        changes = self.cache.sweep(number, self.now_ms, budget)
        assert len(changes) <= budget
        assert all(value is None for _, value in changes)
        assert dict(changes).keys() <= visible.keys()
        self.tables[number].stage(changes)

    @rule(number=PARTITIONS)
    def rebalance(self, number: int) -> None:
        """The partition is closed, and reopened with the committed entries."""
        self.cache.close(number)
        table = self.tables[number]
        table.rewind()
        items = list(table.items())
        opened = self.cache.open(number, table)
        opened.restore(items[:3])
        opened.restore(items[3:])

    @rule(version=VERSIONS)
    def remove_version(self, version: int) -> None:
        self.catalog.remove("sum", version)
        self.cache.keep_only([each.manifest for each in self.catalog.versions()])

    @rule(version=VERSIONS)
    def deploy_version(self, version: int) -> None:
        model = self.models[version]
        self.catalog.put(Version(model.manifest, "ready", None, model))
        self.cache.keep_only([each.manifest for each in self.catalog.versions()])

    @rule(number=PARTITIONS, data=st.data())
    def corrupt(self, number: int, data: st.DataObject) -> None:
        """Another writer writes a different value under a key."""
        committed = self.tables[number].committed
        if committed:
            key = data.draw(st.sampled_from(sorted(committed)))
            committed[key] = committed[key][:8] + b"corrupt!" + committed[key][16:]

    @rule(number=PARTITIONS)
    def settle(self, number: int) -> None:
        """Once nothing is in flight and all entries were swept, only valid entries are left."""
        table = self.tables[number]
        while table.in_flight:
            self.commit(number)
        for _ in range(3):  # the rest of a round, a whole round, and the part that the former left
            table.stage(self.cache.sweep(number, self.now_ms, 1_000))
            self.commit(number)
        kept = {version_prefix("t", each.manifest) for each in self.catalog.versions()}
        by_version: dict[bytes, int] = {}
        for key, value in table.committed.items():
            assert key[:8] in kept
            assert expires_at_ms(value) > self.now_ms
            by_version[key[:8]] = by_version.get(key[:8], 0) + 1
        # A restored version has no bound before its first look-up.
        capacities = {
            prefix: each.policy.capacity for prefix, each in self.cache._partitions[number].versions().items()
        }
        assert all(count <= capacities[prefix] for prefix, count in by_version.items())

    # ------------------------------------------------------------------ what holds all the time

    @invariant()
    def the_cache_knows_what_the_table_shows(self) -> None:
        for number, table in self.tables.items():
            opened = self.cache._partitions[number]
            known = [*opened.versions().values(), *opened._dropped.values()]
            assert {key for version in known for key in version.policy} >= table.visible().keys()
            assert len(opened) == len(table.visible())
            assert sum(version.n_bytes for version in known) == sum(len(k) + len(v) for k, v in table.visible().items())

    @invariant()
    def entries_are_bounded(self) -> None:
        for number, table in self.tables.items():
            for prefix, version in self.cache._partitions[number].versions().items():
                if version.policy.capacity == ENTRIES_MAX:
                    taken_back = sum(key[:8] == prefix for key in table.committed)
                    assert version.count <= max(ENTRIES_MAX, taken_back + ENTRIES_MAX)


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCache = CacheMachine.TestCase

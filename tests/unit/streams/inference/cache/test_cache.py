"""The prediction cache of the scorer: identical results with and without it, fewer model calls, and isolation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models.model import CacheSpec, Postprocess
from inferd.schemas.requests.request import OUTPUTS
from inferd.streams.inference.cache import cache as cache_module
from inferd.streams.inference.cache.cache import HTTP_PARTITION, PredictionCache
from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.features.matrix import FeatureSchema
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.manifests import manifest_of
from inferd.streams.inference.outcome import CACHE_HIT, CACHE_MISS, Outcome
from inferd.streams.inference.postprocess import compile_postprocess
from inferd.streams.inference.scoring import Scorer
from inferd.streams.inference.work import Work
from tests.fixtures.lane import SumRuntime, sum_model
from tests.fixtures.scoring import Fetched, catalog_of, finish
from tests.unit.streams.inference.cache.cache_tables import FakeTable
from tests.unit.streams.inference.trained_models import Trained

NOW = 1_000_000
JSON = (("content-type", b"application/json"),)


def cached_sum(
    version: int = 1, runtime: SumRuntime | None = None, ttl_s: float = 60.0, max_entries: int = 1_000
) -> ServedModel:
    model = sum_model(version, runtime)
    return replace(model, manifest=msgspec.structs.replace(model.manifest, cache=CacheSpec(ttl_s, max_entries)))


def request(row: Any, model: str = "sum", encoding: str = "msgpack", **fields: Any) -> Fetched:
    body = {"id": "r", "model_id": model, "input_data": row, **fields}
    if encoding == "json":
        return Fetched(msgspec.json.encode(body), headers=JSON)
    return Fetched(msgspec.msgpack.encode(body))


class Bench:
    """A scorer with its cache, and tables that commit immediately."""

    def __init__(self, *models: ServedModel, partitions: int = 2, limits: Limits = DEFAULT_LIMITS) -> None:
        self.scorer = Scorer(catalog_of(*models), limits)
        self.cache = PredictionCache("t")
        self.tables = {number: FakeTable() for number in range(partitions)}
        for number, table in self.tables.items():
            self.cache.open(number, table)

    def score(
        self, *records: Fetched, partition: int = 0, now_ms: int = NOW, fill_direct: int | None = None
    ) -> Outcome:
        return self.run([(partition, list(records))], now_ms, fill_direct)

    def run(self, work: Work, now_ms: int = NOW, fill_direct: int | None = None) -> Outcome:
        outcome = finish(self.scorer.prepare(work, now_ms, self.cache, fill_direct))
        for number, changes in outcome.table_changes.items():
            assert len(dict(changes)) == len(changes), "no key twice"
            self.tables[number].stage(changes)
            self.tables[number].commit()
        return outcome


def marks(outcome: Outcome) -> list[int]:
    return list(outcome.cache_marks) or [0] * len(outcome.values)


# ---------------------------------------------------------------------- hits, misses, single flight


def test_a_repeated_row_is_not_scored_again() -> None:
    runtime = SumRuntime()
    bench = Bench(cached_sum(runtime=runtime))
    first = bench.score(request([1.0, 2.0]), request([3.0, 4.0]))
    again = bench.score(request([3, 4]), request([1.0, 2.0], id="other"), request({"b": 4.0, "a": 3.0}))
    assert runtime.calls == [2]
    assert marks(first) == [CACHE_MISS] * 2
    assert marks(again) == [CACHE_HIT] * 3
    assert [msgspec.msgpack.decode(value)["prediction"] for value in again.values] == [7.0, 3.0, 7.0]
    assert (again.table_changes, again.rows, again.by_model) == ({}, 3, {("sum", 1): (3, 3)})


def test_equal_rows_of_a_micro_batch_are_scored_once_even_without_a_cache() -> None:
    for make in (sum_model, cached_sum):
        runtime = SumRuntime()
        bench = Bench(make(runtime=runtime))
        rows = [[float(n % 7), 1.0] for n in range(100)]
        outcome = bench.run([(0, [request(row) for row in rows[:50]]), (1, [request(row) for row in rows[50:]])])
        assert runtime.calls == [7]
        assert [msgspec.msgpack.decode(value)["prediction"] for value in outcome.values] == [sum(row) for row in rows]


def test_without_a_cache_in_the_manifest_there_are_no_lookups() -> None:
    bench = Bench(sum_model())
    outcome = bench.score(request([1.0, 2.0]))
    assert (outcome.table_changes, outcome.cache_marks) == ({}, b"")
    assert bench.cache.usage() == []


@pytest.mark.parametrize(
    "spec", [CacheSpec(0.0, 10), CacheSpec(-1.0, 10), CacheSpec(float("nan"), 10), CacheSpec(1.0, 0)]
)
def test_a_cache_without_capacity_is_disabled(spec: CacheSpec) -> None:
    model = sum_model()
    bench = Bench(replace(model, manifest=msgspec.structs.replace(model.manifest, cache=spec)))
    assert bench.score(request([1.0, 2.0])).cache_marks == b""


def test_partitions_have_separate_entries_and_closed_ones_miss() -> None:
    bench = Bench(cached_sum())
    bench.score(request([1.0, 2.0]), partition=0)
    assert marks(bench.score(request([1.0, 2.0]), partition=1)) == [CACHE_MISS]
    assert marks(bench.score(request([1.0, 2.0]), partition=1)) == [CACHE_HIT]
    assert [len(table.committed) for table in bench.tables.values()] == [1, 1]
    elsewhere = bench.score(request([1.0, 2.0]), partition=9)
    assert (marks(elsewhere), elsewhere.table_changes) == ([CACHE_MISS], {})


def test_a_request_of_several_rows_is_a_hit_only_as_a_whole() -> None:
    runtime = SumRuntime()
    bench = Bench(cached_sum(runtime=runtime))
    bench.score(request([[1.0, 2.0], [3.0, 4.0]]))
    partly = bench.score(request([[1.0, 2.0], [5.0, 6.0], [5.0, 6.0]]), request([3.0, 4.0]))
    assert runtime.calls == [2, 1]
    assert marks(partly) == [CACHE_MISS, CACHE_HIT]
    assert msgspec.msgpack.decode(partly.values[0])["prediction"] == [3.0, 11.0, 11.0]


def test_the_order_of_outputs_does_not_change_the_key() -> None:
    bench = Bench(cached_sum())
    bench.score(request([1.0, 2.0], outputs=["prediction", "raw"]))
    swapped = bench.score(request([1.0, 2.0], outputs=["raw", "prediction"]))
    assert marks(swapped) == [CACHE_HIT]
    assert list(msgspec.msgpack.decode(swapped.values[0]))[-2:] == ["raw", "prediction"]


def test_direct_requests_look_up_all_partitions_and_fill_the_given_one() -> None:
    bench = Bench(cached_sum())
    bench.score(request([1.0, 2.0]), partition=1)
    assert marks(bench.score(request([1.0, 2.0]), partition=HTTP_PARTITION)) == [CACHE_HIT]
    let_go = bench.score(request([3.0, 4.0]), partition=HTTP_PARTITION)
    assert (marks(let_go), let_go.table_changes) == ([CACHE_MISS], {})
    kept = bench.score(request([3.0, 4.0]), partition=HTTP_PARTITION, fill_direct=1)
    assert (marks(kept), list(kept.table_changes)) == ([CACHE_MISS], [1])
    assert marks(bench.score(request([3.0, 4.0]), partition=1)) == [CACHE_HIT]


def test_entries_expire_and_a_shorter_ttl_applies_to_existing_ones() -> None:
    bench = Bench(cached_sum(ttl_s=60.0))
    bench.score(request([1.0, 2.0]))
    assert marks(bench.score(request([1.0, 2.0]), now_ms=NOW + 59_999)) == [CACHE_HIT]
    assert marks(bench.score(request([1.0, 2.0]), now_ms=NOW + 60_000)) == [CACHE_MISS]
    bench.scorer = Scorer(catalog_of(cached_sum(ttl_s=10.0)), DEFAULT_LIMITS)
    assert marks(bench.score(request([1.0, 2.0]), now_ms=NOW + 60_001)) == [CACHE_MISS]
    assert marks(bench.score(request([1.0, 2.0]), now_ms=NOW + 70_000)) == [CACHE_HIT]
    (usage,) = bench.cache.usage()
    assert (usage.hits, usage.misses, usage.fills, usage.expirations, usage.entries) == (2, 3, 3, 2, 1)
    assert usage.hit_ratio == 0.4
    assert usage.n_bytes == sum(len(k) + len(v) for k, v in bench.tables[0].committed.items())


# ---------------------------------------------------------------------- errors, faults


def test_errors_are_never_cached() -> None:
    runtime = SumRuntime()
    bench = Bench(cached_sum(runtime=runtime))
    for _ in range(2):
        # The first value is missing, so that the sum is NaN and the result an error.
        outcome = bench.score(request([None, 2.0]), request([1.0, 2.0]))
        assert list(outcome.failures) == [0]
        assert marks(outcome)[0] == 0
    assert runtime.calls == [2, 1]
    assert len(bench.tables[0].committed) == 1


def test_a_request_for_which_the_model_raises_is_not_cached() -> None:
    runtime = SumRuntime()
    runtime.raises = lambda matrix: RuntimeError("poison") if (matrix == 13.0).any() else None
    bench = Bench(cached_sum(runtime=runtime))
    bench.score(request([1.0, 2.0]))
    outcome = bench.score(request([1.0, 2.0]), request([13.0, 0.0]), request([5.0, 6.0]))
    assert list(outcome.failures) == [1]
    assert marks(outcome) == [CACHE_MISS, 0, CACHE_MISS]
    assert [msgspec.msgpack.decode(outcome.values[n])["prediction"] for n in (0, 2)] == [3.0, 11.0]
    assert outcome.table_changes == {}


class BrokenTable(FakeTable):
    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        raise OSError("the disk is gone")


def test_a_fault_of_the_table_fails_no_request() -> None:
    bench = Bench(cached_sum())
    bench.score(request([1.0, 2.0]))
    bench.cache.open(0, BrokenTable()).restore(bench.tables[0].items())
    outcome = bench.score(request([1.0, 2.0]))
    assert msgspec.msgpack.decode(outcome.values[0])["prediction"] == 3.0
    assert [str(fault) for fault in outcome.faults] == ["the disk is gone"]


def test_a_fault_while_filling_loses_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no room")

    bench = Bench(cached_sum())
    monkeypatch.setattr(cache_module.RowLookup, "changes", fail)
    outcome = bench.score(request([1.0, 2.0]))
    assert msgspec.msgpack.decode(outcome.values[0])["prediction"] == 3.0
    assert (outcome.table_changes, [str(fault) for fault in outcome.faults]) == ({}, ["no room"])


def test_outputs_of_unexpected_shapes_are_not_cached() -> None:
    class Odd(SumRuntime):
        def predict(self, matrix: Any, outputs: Any) -> Any:
            return {output: values[:, None] for output, values in super().predict(matrix, outputs).items()}

    bench = Bench(cached_sum(runtime=Odd()))
    outcome = bench.score(request([1.0, 2.0]), request([3.0, 4.0]))
    assert [msgspec.msgpack.decode(value)["prediction"] for value in outcome.values] == [[3.0], [7.0]]
    assert (outcome.table_changes, marks(outcome)) == ({}, [CACHE_MISS] * 2)


def test_a_corrupt_entry_is_a_miss_and_is_replaced() -> None:
    bench = Bench(cached_sum())
    bench.score(request([1.0, 2.0]), request([3.0, 4.0]))
    committed = bench.tables[0].committed
    first, second = committed
    committed[first], committed[second] = committed[second], b"short"
    outcome = bench.score(request([1.0, 2.0]), request([3.0, 4.0]))
    assert marks(outcome) == [CACHE_MISS] * 2
    assert marks(bench.score(request([1.0, 2.0]), request([3.0, 4.0]))) == [CACHE_HIT] * 2


def test_outcomes_of_two_halves_are_joined() -> None:
    bench = Bench(cached_sum())
    bench.score(request([1.0, 2.0]))
    plain = finish(bench.scorer.prepare([(0, [request([9.0, 9.0])])], NOW))
    hit, miss = bench.score(request([1.0, 2.0])), bench.score(request([5.0, 6.0]))
    joined = plain + hit + miss
    assert marks(joined) == [0, CACHE_HIT, CACHE_MISS]
    assert joined.table_changes == miss.table_changes
    assert (miss + miss).table_changes == miss.table_changes
    assert (plain + plain).cache_marks == b""


# ---------------------------------------------------------------------- isolation


def test_entries_are_separate_by_tenant_model_version_and_outputs() -> None:
    """All workers fill the same table; the models give different predictions."""
    table, runtimes = FakeTable(), list[SumRuntime]()
    for tenant, name, version, outputs in itertools.product("tu", ("sum", "other"), (1, 2), (["raw"], ["prediction"])):
        runtime = SumRuntime()
        model = cached_sum(version, runtime)
        model = replace(model, manifest=msgspec.structs.replace(model.manifest, model_id=name))
        scorer, cache = Scorer(catalog_of(model), DEFAULT_LIMITS), PredictionCache(tenant)
        cache.open(0, table).restore(table.items())
        for expected in (CACHE_MISS, CACHE_HIT):
            work = [(0, [request([1.0, 2.0], name, outputs=outputs)])]
            outcome = finish(scorer.prepare(work, NOW, cache))
            assert marks(outcome) == [expected], (tenant, name, version, outputs)
            for changes in outcome.table_changes.values():
                table.stage(changes)
                table.commit()
        runtimes.append(runtime)
        assert len(table.committed) == len(runtimes)
    assert all(runtime.calls == [1] for runtime in runtimes)


def test_another_postprocess_does_not_share_entries(trained: Callable[[str], Trained]) -> None:
    binary = trained("binary")
    row = binary.rows[0].tolist()
    answers = []
    table = FakeTable()
    for labels in (["no", "yes"], ["bad", "good"]):
        model = real_model(binary, Postprocess(labels=labels))
        cache = PredictionCache("t")
        cache.open(0, table).restore(table.items())
        outcome = finish(Scorer(catalog_of(model), DEFAULT_LIMITS).prepare([(0, [request(row, "m")])], NOW, cache))
        assert marks(outcome) == [CACHE_MISS]
        table.stage(outcome.table_changes[0])
        table.commit()
        answers.append(msgspec.msgpack.decode(outcome.values[0])["prediction"])
    assert answers[0] in ("no", "yes")
    assert answers[1] in ("bad", "good")


# ---------------------------------------------------------------------- identical results with and without the cache


def real_model(trained: Trained, postprocess: Postprocess | None = None, max_entries: int = 40) -> ServedModel:
    manifest = manifest_of(trained.text, "m", 1, {"cache": {"ttl_s": 60, "max_entries": max_entries}})
    manifest = msgspec.structs.replace(manifest, postprocess=postprocess)
    return ServedModel(manifest, LightGBMRuntime(trained.text), FeatureSchema(manifest), compile_postprocess(manifest))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "linear", "custom_multi", "zero_as_missing"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_results_are_identical_with_and_without_the_cache(
    trained: Callable[[str], Trained], kind: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    source = trained(kind)
    model = real_model(source, Postprocess(top_k=2) if kind == "multiclass" else None)
    plain, bench = Scorer(catalog_of(model), DEFAULT_LIMITS), Bench(model, partitions=3)
    asked = [output for output in OUTPUTS if model.runtime.supports(output)]
    pool = source.rows[random.integers(0, len(source.rows), 30)].copy()
    pool[random.random(pool.shape) < 0.1] = -0.0
    pool[random.random(pool.shape) < 0.1] = np.nan
    now_ms, hits = NOW, 0
    for _ in range(12):
        work = [(number, workload(pool, asked, random)) for number in (0, 1, HTTP_PARTITION)]
        expected = finish(plain.prepare(work, now_ms))
        outcome = bench.run(work, now_ms, fill_direct=2)
        assert list(outcome.values) == list(expected.values)
        assert outcome.failures.keys() == expected.failures.keys()
        assert (outcome.rows, outcome.by_model, outcome.headers) == (expected.rows, expected.by_model, expected.headers)
        hits += marks(outcome).count(CACHE_HIT)
        now_ms += int(random.integers(0, 20_000))
    assert hits


def workload(pool: np.ndarray, asked: Sequence[str], random: np.random.Generator) -> list[Fetched]:
    """Requests for rows of a pool: of one or several rows, in both encodings, for various outputs, some invalid."""
    records = []
    for _ in range(int(random.integers(0, 8))):
        places = random.integers(0, len(pool), int(random.integers(1, 4)))
        rows: Any = [[None if value != value else value for value in row] for row in pool[places].tolist()]  # noqa: PLR0124
        rows = rows[0] if random.random() < 0.6 else rows
        outputs = [str(each) for each in random.permutation(asked)[: int(random.integers(1, 3))]]
        wrong = {"model_id": "nobody"} if random.random() < 0.05 else {}
        encoding = "json" if random.random() < 0.3 else "msgpack"
        records.append(request(rows, "m", encoding, **({"outputs": outputs} if random.random() < 0.7 else {}), **wrong))
    return records


def test_a_result_too_large_is_the_same_error_with_the_cache() -> None:
    limits = replace(DEFAULT_LIMITS, result_bytes_max=200)
    bench = Bench(cached_sum(), limits=limits)
    big = request([[float(n), 0.5] for n in range(20)])
    first, second = bench.score(big), bench.score(big)
    assert list(first.values) == list(second.values)
    assert [error.code for error in second.failures.values()] == ["too_large"]
    assert marks(second) == [0]


# ---------------------------------------------------------------------- settings


def test_no_entry_is_served_longer_than_the_settings_allow() -> None:
    for ttl_max_s, hits in ((5.0, 0), (3_600.0, 1)):
        cache = PredictionCache("t", ttl_max_s=ttl_max_s)
        scorer = Scorer(catalog_of(cached_sum()), DEFAULT_LIMITS)
        cache.open(0, table := FakeTable())
        for now_ms in (1_000, 7_000):
            outcome = finish(scorer.prepare([(0, [request([1.0, 2.0])])], now_ms, cache))
            table.stage(outcome.table_changes.get(0, []))
            table.commit()
        assert marks(outcome).count(CACHE_HIT) == hits

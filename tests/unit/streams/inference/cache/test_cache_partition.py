"""One partition of the cache: its limits, and rollback after a failure."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections import defaultdict

import msgspec
import numpy as np

from inferd.schemas.models.model import CacheSpec
from inferd.streams.inference.cache.cache import PredictionCache
from inferd.streams.inference.cache.partition import CacheCounters, PartitionCache
from tests.fixtures.lane import sum_model
from tests.unit.streams.inference.cache.cache_tables import FakeTable

PREFIX = b"version1"
LATE = (2_000).to_bytes(8, "little") + bytes(16)
SOON = (500).to_bytes(8, "little") + bytes(16)


def key(number: int, prefix: bytes = PREFIX) -> bytes:
    return prefix + hashlib.blake2b(number.to_bytes(8, "little"), digest_size=23).digest()


class Bench:
    """A partition with its table and its counters."""

    def __init__(self) -> None:
        self.table = FakeTable()
        self.counters: defaultdict[bytes, CacheCounters] = defaultdict(CacheCounters)
        self.cache = PartitionCache(self.table, self.counters.__getitem__)

    def fill(self, *numbers: int, entries_max: int = 3, value: bytes = LATE, prefix: bytes = PREFIX) -> None:
        self.table.stage(self.cache.fill(prefix, entries_max, {key(n, prefix): value for n in numbers}))

    def commit(self) -> None:
        while self.table.in_flight:
            self.cache.acked(self.table.commit())

    @property
    def queued(self) -> set[bytes]:
        return {each for version in self.cache.versions().values() for each in version.policy}


def test_entries_evicted_for_unpublished_ones_are_restored() -> None:
    bench = Bench()
    bench.fill(1, 2, 3)
    bench.commit()
    bench.fill(4, 5)
    assert len(bench.cache) == 3
    bench.cache.discard(bench.table.rewind())
    assert bench.queued >= {key(1), key(2), key(3)}
    assert len(bench.cache) == 3
    assert bench.cache.lookup(PREFIX, [key(n) for n in range(1, 6)]) == [LATE, LATE, LATE, None, None]
    assert bench.cache.versions()[PREFIX].n_bytes == 3 * (31 + 24)


def test_entries_over_a_lower_bound_leave_with_the_sweeps() -> None:
    bench = Bench()
    bench.fill(*range(10), entries_max=10)
    bench.commit()
    bench.fill(10, entries_max=3)
    assert len(bench.cache) == 9, "a fill evicts at most two, however many exceed the limit"
    bench.table.stage(bench.cache.sweep(1_000, 4))
    assert len(bench.cache) == 5
    bench.table.stage(bench.cache.sweep(1_000, 100))
    assert len(bench.cache) == 3
    assert bench.queued == bench.table.visible().keys()
    assert bench.counters[PREFIX].evictions == 8


def test_sweeps_continue_where_the_last_one_ended() -> None:
    bench = Bench()
    bench.fill(*range(100), entries_max=200, value=SOON)
    bench.fill(*range(100, 200), entries_max=200)
    bench.commit()
    bench.cache.sweep(1_000, 1)
    bench.table.reads = 0
    swept = [len(bench.cache.sweep(1_000, 30)) for _ in range(7)]
    assert swept == [30, 30, 30, 10, 0, 0, 0]
    assert bench.table.reads == 200
    assert bench.counters[PREFIX].expirations == 100


def test_changes_in_flight_are_not_swept() -> None:
    bench = Bench()
    late = bench.cache.fill(PREFIX, 3, {key(1): LATE})
    for _ in range(3):
        assert bench.cache.sweep(1_000, 100) == []
    bench.table.stage(late)
    assert bench.cache.lookup(PREFIX, [key(1)]) == [LATE]


def test_a_dropped_version_is_freed_bit_by_bit_and_back_at_once() -> None:
    bench = Bench()
    bench.fill(*range(10), entries_max=10)
    bench.fill(*range(5), entries_max=10, prefix=b"version2")
    bench.commit()
    bench.cache.keep_only([b"version2"])
    bench.table.stage(bench.cache.sweep(1_000, 4))
    assert (len(bench.cache), len(bench.table.visible())) == (11, 11)
    assert bench.cache.lookup(PREFIX, [key(9)]) == [None]
    bench.fill(20, entries_max=10)
    assert bench.cache.versions()[PREFIX].n_bytes == 7 * (31 + 24)
    bench.cache.keep_only([])
    bench.table.stage(bench.cache.sweep(1_000, 100))
    assert (len(bench.cache), bench.table.visible()) == (0, {})


def test_restored_entries_are_found_and_bounded_once_the_model_is_used() -> None:
    bench = Bench()
    bench.cache.restore((key(n), LATE) for n in range(10))
    bench.table.committed.update({key(n): LATE for n in range(10)})
    assert bench.cache.lookup(PREFIX, [key(n) for n in range(11)]) == [LATE] * 10 + [None]
    assert bench.cache.sweep(1_000, 100) == []
    bench.fill(11, entries_max=4)
    bench.table.stage(bench.cache.sweep(1_000, 100))
    assert len(bench.cache) == len(bench.table.visible()) == 4


def test_hardly_any_miss_reads_the_table() -> None:
    bench = Bench()
    bench.fill(1)
    bench.table.reads = 0
    bench.cache.lookup(PREFIX, [key(n) for n in range(2, 100)])
    assert bench.table.reads <= 1


def test_a_version_that_is_new_since_the_last_word_about_versions_is_kept() -> None:
    model = sum_model()
    manifest = msgspec.structs.replace(model.manifest, cache=CacheSpec(60.0, 10))
    table, cache = FakeTable(), PredictionCache("t")
    cache.open(0, table)
    cache.keep_only([])
    served = type(model)(manifest, model.runtime, model.features, model.postprocessor)
    found = cache.lookup(served, ("prediction",), np.zeros((1, 2)), np.zeros(1, dtype=np.intp), 1_000)
    assert found is not None
    found.merge({"prediction": np.zeros(1)})
    table.stage(found.changes(None)[0])
    assert cache.sweep(0, 1_000, 100) == []
    assert [usage.entries for usage in cache.usage()] == [1]
    cache.keep_only([msgspec.structs.replace(manifest, cache=None)])
    assert len(cache.sweep(0, 1_000, 100)) == 1, "a version whose cache was turned off needs no entries"
    assert cache.usage() == []


def test_changes_that_are_not_published_yet_count_once() -> None:
    bench = Bench()
    first = bench.cache.fill(PREFIX, 3, {key(1): LATE})
    again = bench.cache.fill(PREFIX, 3, {key(1): SOON})
    assert (len(bench.cache), bench.cache.versions()[PREFIX].n_bytes) == (1, 31 + 24)
    bench.table.stage(first)
    bench.table.stage(again)
    bench.commit()
    assert (len(bench.cache), bench.table.visible()) == (1, {key(1): SOON})
    swept = bench.cache.sweep(1_000, 10) + bench.cache.sweep(1_000, 10)
    assert swept == [(key(1), None)]
    assert bench.cache.sweep(1_000, 10) == [], "its tombstone is not published yet"
    refilled = bench.cache.fill(PREFIX, 3, {key(1): LATE})
    assert len(bench.cache) == 1
    bench.table.stage(swept)
    bench.table.stage(refilled)
    bench.commit()
    assert bench.cache.lookup(PREFIX, [key(1)]) == [LATE]


def test_an_entry_takes_few_bytes_of_memory() -> None:
    entries = 100_000
    bench = Bench()
    keys = (key(n) for n in range(entries))
    tracemalloc.start()
    for _ in range(entries // 200):
        bench.cache.restore([(next(keys), LATE) for _ in range(200)])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(bench.cache) == entries
    assert held / entries < 40
    assert bench.cache.versions()[PREFIX].policy.n_bytes / entries < 40


def test_acknowledged_changes_are_forgotten() -> None:
    bench = Bench()
    for start in range(0, 2_000, 10):
        bench.fill(*range(start, start + 10), entries_max=100)
        bench.commit()
    assert len(bench.cache) == 100
    assert bench.cache._changing == {}

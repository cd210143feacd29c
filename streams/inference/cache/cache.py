"""The prediction cache of one tenant: looks up the rows of a group, and produces the table changes for new answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.models import Manifest
from inferd.schemas.requests import OUTPUTS, Output
from inferd.streams.inference.cache.distinct import first_of_each
from inferd.streams.inference.cache.keys import KeySpace, key_space, version_prefix
from inferd.streams.inference.cache.partition import (
    CacheCounters,
    Change,
    Entries,
    PartitionCache,
)
from inferd.streams.inference.cache.values import ValueLayout
from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.inputs import Inputs
from inferd.streams.inference.runtime import Arrays

_CACHED: Final = frozenset(OUTPUTS)
HTTP_PARTITION: Final = -1
"""Partition number of requests that come from no partition."""
_TTL_MS_MAX: Final = 10 * 365 * 86_400_000

Places = NDArray[np.intp]


class CacheSnapshot(msgspec.Struct, frozen=True):
    """The prediction cache of one model version: counters since the start, and the contents of the open partitions."""

    tenant: str
    model_id: str
    version: int
    hits: int
    """Rows."""
    misses: int
    fills: int
    evictions: int
    expirations: int
    entries: int
    n_bytes: int
    """Size of keys and values."""
    hit_ratio: float | None
    """None before the first lookup."""
    lookup_s: float
    """Time for looking up rows."""
    fill_s: float
    """Time for creating entries of new answers, without writing them to the changelog."""
    saved_s: float | None = None
    """Time that the model would have taken for the hits, less the time of the cache itself; None if too little is
    known."""
    pays: bool | None = None
    """Whether it saves time."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Precomputed values for a version with certain outputs."""

    manifest: Manifest
    keys: KeySpace
    layout: ValueLayout
    ttl_ms: int
    entries_max: int
    counters: CacheCounters


class PredictionCache:
    """The cached entries of one tenant's model versions, by partition of `requests`.

    Versions whose manifest has no `cache` are not cached. Not thread-safe: only the lane's thread may use it.
    """

    def __init__(self, tenant: str, timer: Callable[[], float] = lambda: 0.0, ttl_max_s: float = math.inf) -> None:
        """`timer`: a clock in seconds with any origin, to measure the cost of the cache. `ttl_max_s`: upper bound for
        the time to live in manifests."""
        self._tenant = tenant
        self._ttl_max_s = ttl_max_s
        self._timer = timer
        self._partitions: dict[int, PartitionCache] = {}
        self._plans: dict[tuple[str, int, tuple[Output, ...]], _Plan | None] = {}
        self._counters: dict[bytes, CacheCounters] = {}
        self._names: dict[bytes, tuple[str, int]] = {}
        self._kept: set[bytes] | None = None

    def open(self, partition: int, entries: Entries) -> PartitionCache:
        """Starts to use an assigned partition. Pass the existing entries to `restore` of the returned value."""
        opened = self._partitions[partition] = PartitionCache(entries, self._counters_of)
        return opened

    def close(self, partition: int) -> None:
        """Stops using a revoked partition."""
        self._partitions.pop(partition, None)

    def acked(self, partition: int, changes: Iterable[Change]) -> None:
        """The table of a partition has changes that a method returned."""
        if (opened := self._partitions.get(partition)) is not None:
            opened.acked(changes)

    def discard(self, partition: int, changes: Iterable[Change]) -> None:
        """Reverts changes that were not published. The table must have discarded them first."""
        if (opened := self._partitions.get(partition)) is not None:
            opened.discard(changes)

    def sweep(self, partition: int, now_ms: int, budget: int) -> list[Change]:
        """Tombstones of entries that have expired or whose version is gone; inspects at most `budget` entries."""
        if (opened := self._partitions.get(partition)) is None:
            return []
        if self._kept is not None:
            opened.keep_only(self._kept)
        return opened.sweep(now_ms, budget)

    def keep_only(self, manifests: Iterable[Manifest]) -> None:
        """Sets the existing versions. `sweep` removes the entries of all others, and of versions without a `cache`."""
        kept = [manifest for manifest in manifests if manifest.cache is not None]
        self._names = {version_prefix(self._tenant, each): (each.model_id, each.version) for each in kept}
        self._kept = set(self._names)
        self._counters = {prefix: each for prefix, each in self._counters.items() if prefix in self._kept}
        names = frozenset(self._names.values())
        self._plans = {key: plan for key, plan in self._plans.items() if key[:2] in names}

    def usage(self) -> list[CacheSnapshot]:
        """Snapshots of all versions that were looked up or set by `keep_only`, by name and number. The time saved is
        not known here."""
        names = sorted(self._names.items(), key=lambda item: item[1])
        return [self._usage(prefix, *name) for prefix, name in names]

    def _usage(self, prefix: bytes, model_id: str, version: int) -> CacheSnapshot:
        counters = self._counters_of(prefix)
        versions = (opened.versions() for opened in self._partitions.values())
        held = [found[prefix] for found in versions if prefix in found]
        looked_up = counters.hits + counters.misses
        return CacheSnapshot(
            tenant=self._tenant,
            model_id=model_id,
            version=version,
            hits=counters.hits,
            misses=counters.misses,
            fills=counters.fills,
            evictions=counters.evictions,
            expirations=counters.expirations,
            entries=sum(each.count for each in held),
            n_bytes=sum(each.n_bytes for each in held),
            hit_ratio=counters.hits / looked_up if looked_up else None,
            lookup_s=counters.lookup_s,
            fill_s=counters.fill_s,
        )

    def lookup(
        self,
        model: ServedModel,
        outputs: tuple[Output, ...],
        inputs: Inputs,
        partitions: Places,
        now_ms: int,
        fill_direct: int | None = None,
    ) -> RowLookup | None:
        """Looks up the rows of a model. `partitions`: intp (rows,). None if the version has no cache.

        Rows of HTTP_PARTITION are looked up in all partitions; their answers are stored in `fill_direct`.
        """
        plan = self._plan(model, outputs)
        if plan is None:
            return None
        started = self._timer()
        keys = plan.keys.keys(inputs)
        values: list[bytes | None] = [None] * len(keys)
        for number in np.unique(partitions).tolist():
            self._look_up(number, plan.keys.prefix, keys, np.flatnonzero(partitions == number).tolist(), values)
        found, arrays, expired = plan.layout.decode(keys, values, now_ms, plan.ttl_ms)
        plan.counters.hits += len(found)
        plan.counters.misses += len(keys) - len(found)
        plan.counters.expirations += expired
        where = partitions if fill_direct is None else np.where(partitions == HTTP_PARTITION, fill_direct, partitions)
        lookup = RowLookup(self, plan, keys, where, found, arrays, now_ms)
        plan.counters.lookup_s += self._timer() - started
        return lookup

    @contextmanager
    def timed_fill(self, plan: _Plan) -> Iterator[None]:
        """Adds the duration of the block to the fill time of a version."""
        started = self._timer()
        yield
        plan.counters.fill_s += self._timer() - started

    def _look_up(
        self, number: int, prefix: bytes, keys: list[bytes], places: list[int], values: list[bytes | None]
    ) -> None:
        """Writes the entries for `places` of `keys` into `values`."""
        searched = list(self._partitions) if number == HTTP_PARTITION else [number]
        for partition in map(self._partitions.get, searched):
            if partition is None or not places:
                continue
            for place, value in zip(places, partition.lookup(prefix, [keys[p] for p in places]), strict=True):
                values[place] = value
            places = [place for place in places if values[place] is None] if number == HTTP_PARTITION else []

    def _plan(self, model: ServedModel, outputs: tuple[Output, ...]) -> _Plan | None:
        """None if the version has no cache, or for the model's own outputs, whose shapes and types vary."""
        if not _CACHED.issuperset(outputs):
            return None
        manifest = model.manifest
        key = (manifest.model_id, manifest.version, outputs)
        plan = self._plans.get(key)
        if plan is None or plan.manifest is not manifest:
            plan = self._plans[key] = self._compile(model, outputs)
        return plan

    def _compile(self, model: ServedModel, outputs: tuple[Output, ...]) -> _Plan | None:
        manifest, spec = model.manifest, model.manifest.cache
        if spec is None or not spec.ttl_s > 0 or spec.max_entries < 1:
            return None
        # Sorted, so that the arrays do not depend on the order of the outputs in the request.
        needed = tuple(sorted(model.postprocessor.needed(outputs)))
        keys = key_space(self._tenant, manifest, needed)
        self._names[keys.prefix] = (manifest.model_id, manifest.version)
        if self._kept is not None:
            self._kept.add(keys.prefix)
        layout = ValueLayout(model.runtime, needed, are_labels=manifest.classes is not None)
        ttl_ms = int(min(spec.ttl_s * 1000, self._ttl_max_s * 1000, _TTL_MS_MAX))
        return _Plan(manifest, keys, layout, ttl_ms, spec.max_entries, self._counters_of(keys.prefix))

    def _counters_of(self, prefix: bytes) -> CacheCounters:
        return self._counters.setdefault(prefix, CacheCounters())

    def fill(self, plan: _Plan, number: int, values: dict[bytes, bytes]) -> list[Change]:
        """The changes that add entries to a partition; empty if it is no longer open."""
        partition = self._partitions.get(number)
        return [] if partition is None else partition.fill(plan.keys.prefix, plan.entries_max, values)


class RowLookup:
    """The cached rows of a group, and the rows that the model must score, without duplicates."""

    def __init__(
        self,
        cache: PredictionCache,
        plan: _Plan,
        keys: list[bytes],
        partitions: Places,
        found: Places,
        arrays: Arrays,
        now_ms: int,
    ) -> None:
        self._cache = cache
        self._plan = plan
        self._keys = keys
        self._partitions = partitions
        self._found_arrays = arrays
        self._now_ms = now_ms
        self.found = np.zeros(len(keys), dtype=np.bool_)
        """(rows,) True for rows that the cache has."""
        self.found[found] = True
        self._found = found
        self._missing = np.flatnonzero(~self.found)
        firsts = first_of_each([keys[place] for place in self._missing.tolist()])
        self._inverse = None if firsts is None else firsts[1]
        self.to_score: Places = self._missing if firsts is None else self._missing[firsts[0]]
        """Places of the rows to score, no two of them equal."""
        self._scored: Arrays | None = None

    def merge(self, scored: Arrays) -> Arrays | None:
        """The arrays of all rows, given those of the rows `to_score` (empty if there are none).

        None if their shapes do not follow the runtime's protocol.
        """
        if not len(self.to_score):
            return self._found_arrays
        if not self._plan.layout.fits(scored):
            return None
        self._scored = scored
        spread = scored if self._inverse is None else {name: rows[self._inverse] for name, rows in scored.items()}
        if not len(self._found):
            return spread
        arrays = self._plan.layout.empty(len(self._keys))
        for name, rows in arrays.items():
            rows[self._found] = self._found_arrays[name]
            rows[self._missing] = spread[name]
        return arrays

    def changes(self, unfit: NDArray[np.bool_] | None) -> dict[int, list[Change]]:
        """The table changes for the merged rows, by partition. Rows that are `unfit` are not stored."""
        if self._scored is None:
            return {}
        with self._cache.timed_fill(self._plan):
            return self._changes(self._scored, unfit)

    def _changes(self, scored_arrays: Arrays, unfit: NDArray[np.bool_] | None) -> dict[int, list[Change]]:
        plan, missing = self._plan, self._missing
        expires_at_ms = self._now_ms + plan.ttl_ms
        keys = [self._keys[place] for place in self.to_score.tolist()]
        values = plan.layout.encode(keys, scored_arrays, expires_at_ms)
        numbers = range(len(missing)) if self._inverse is None else self._inverse.tolist()
        fills: dict[int, dict[bytes, bytes]] = {number: {} for number in set(self._partitions[missing].tolist())}
        good = None if unfit is None else (~unfit[missing]).tolist()
        for place, (number, scored) in enumerate(zip(self._partitions[missing].tolist(), numbers, strict=True)):
            if good is None or good[place]:
                fills[number][keys[scored]] = values[scored]
        changes = {number: self._cache.fill(plan, number, filled) for number, filled in fills.items() if filled}
        return {number: changed for number, changed in changes.items() if changed}

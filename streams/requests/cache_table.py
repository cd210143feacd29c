"""The table `predictions` of one tenant: connects its partitions to the cache that scoring uses."""

from __future__ import annotations

import time
from collections.abc import Iterable

from inferd.schemas.record_size import record_bytes
from inferd.streams.inference import ModelCatalog
from inferd.streams.inference.cache import PredictionCache
from inferd.streams.kafka import UNCHECKED, Destinations
from inferd.streams.state import Change, LaneTable, TablePartition
from inferd.streams.tasks import Slices

SWEEP_INTERVAL_MS = 1_000
SWEEP_ENTRIES = 2_000
"""Entries per sweep: some milliseconds of the event loop."""
LATE_MAX = 10_000
"""Maximum cached answers of HTTP requests that wait for the next output batch of a partition."""


class CacheTable:
    """The cache of a tenant over the owned partitions of its table."""

    def __init__(
        self,
        tenant: str,
        table: LaneTable,
        catalog: ModelCatalog,
        ttl_max_s: float,
        destinations: Destinations = UNCHECKED,
    ) -> None:
        self.table = table
        self.slices = Slices()
        """Shared with other tenants of the worker."""
        self._destinations = destinations
        self.cache = PredictionCache(tenant, time.perf_counter, ttl_max_s)
        self._catalog = catalog
        self._revision = -1
        self._swept_ms: dict[int, int] = {}
        self._late: dict[int, list[Change]] = {}

    async def open(self, number: int) -> None:
        """Makes the entries of a restored partition available to the cache."""
        partition = self.table.partition(number)
        opened = self.cache.open(number, partition)
        await self.slices.run(partition.store.items(), opened.restore)
        self._swept_ms[number] = 0

    def close(self, number: int) -> None:
        """Drops a revoked partition."""
        self.cache.close(number)
        self._swept_ms.pop(number, None)
        self._late.pop(number, None)

    def acked(self, number: int, changes: Iterable[Change]) -> None:
        """The table has these changes."""
        self.cache.acked(number, changes)

    def forget(self, number: int, changes: Iterable[Change]) -> None:
        """Discards changes that were never published."""
        self.cache.discard(number, changes)

    @property
    def open_number(self) -> int | None:
        """The partition that stores changes of HTTP requests; None without one."""
        return min(self._swept_ms, default=None)

    def keep(self, number: int, changes: list[Change]) -> None:
        """Keeps changes of HTTP requests for the next output batch of a partition."""
        late = self._late.setdefault(number, [])
        if len(late) + len(changes) > LATE_MAX:
            self.cache.discard(number, changes)
        else:
            late += changes

    def due(self, number: int, now_ms: int) -> list[Change]:
        """Changes unrelated to the current records: those of HTTP requests, and removals by a sweep."""
        if now_ms - self._swept_ms.get(number, now_ms) < SWEEP_INTERVAL_MS:
            return []
        self._swept_ms[number] = now_ms
        if self._revision != self._catalog.revision:
            self._revision = self._catalog.revision
            self.cache.keep_only([version.manifest for version in self._catalog.versions()])
        return self._late.pop(number, []) + self.cache.sweep(number, now_ms, SWEEP_ENTRIES)

    def writable(self, number: int, changes: list[Change]) -> list[Change]:
        """The `changes` that fit the changelog; larger answers are not cached."""
        bytes_max = self._destinations.bytes_max(self.table.changelog)
        if not (rejected := [(key, value) for key, value in changes if record_bytes(key, value, ()) > bytes_max]):
            return changes
        self.cache.discard(number, rejected)
        return [change for change in changes if change not in rejected]

    def partition(self, number: int) -> TablePartition:
        """The partition of the table; `KeyError` if it is not owned."""
        return self.table.partition(number)

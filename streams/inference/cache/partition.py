"""The prediction cache of one partition: tracks entries, chooses those to evict, and produces the changes to its
table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from inferd.streams.inference.cache.keys import PREFIX_BYTES
from inferd.streams.inference.cache.policy import S3Fifo
from inferd.streams.inference.cache.values import expires_at_ms

Change = tuple[bytes, bytes | None]
"""Key and new value of a table's entry; None deletes."""

_UNBOUNDED: Final = sys.maxsize


class Entries(Protocol):
    """One partition of a table as the cache reads it, including changes that are not committed yet."""

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """The value of each key."""


@dataclass(slots=True)
class CacheCounters:
    """Counters for the rows and entries of one version since the process began."""

    hits: int = 0
    misses: int = 0
    fills: int = 0
    evictions: int = 0
    expirations: int = 0
    lookup_s: float = 0.0
    fill_s: float = 0.0


class VersionEntries:
    """The entries of one model version in one partition."""

    __slots__ = ("n_bytes", "policy")

    def __init__(self) -> None:
        self.policy = S3Fifo(_UNBOUNDED)
        self.n_bytes = 0
        """Of keys and values."""


class PartitionCache:
    """The index of a partition's entries. The entries themselves are only in the table.

    A key that the table lacks is a miss, whatever the index says, so no failure can produce a wrong answer. Callers
    must write the changes that a method returns to the table, or call `discard` if that fails.
    """

    def __init__(self, entries: Entries, counters: Callable[[bytes], CacheCounters]) -> None:
        """`counters`: returns the counters of the version with a key prefix."""
        self._entries = entries
        self._counters = counters
        self._versions: dict[bytes, VersionEntries] = {}
        self._dropped: dict[bytes, VersionEntries] = {}
        self._round: Iterator[bytes] = iter(())

    def __len__(self) -> int:
        return sum(len(version.policy) for version in (*self._versions.values(), *self._dropped.values()))

    def restore(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Adds entries that are in the table already, oldest first. May be called repeatedly, with one part at a
        time."""
        restored: dict[bytes, dict[bytes, int]] = {}
        for key, value in items:
            prefix = key[:PREFIX_BYTES]
            if (sizes := restored.get(prefix)) is None:
                sizes = restored[prefix] = {}
            sizes[key] = len(key) + len(value)
        for prefix, sizes in restored.items():
            version = self._version(prefix)
            version.policy.restore(sizes)
            version.n_bytes += sum(sizes.values())

    def lookup(self, prefix: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each of a version's keys. The caller checks whether it has expired."""
        version = self._versions.get(prefix)
        found: list[bytes | None] = [None] * len(keys)
        if version is None:
            return found
        places = version.policy.places_of_known(keys)
        known = [keys[place] for place in places] if len(places) < len(keys) else keys
        touch = version.policy.touch
        for place, key, value in zip(places, known, self._entries.get_many(known), strict=True):
            if value is not None:
                found[place] = value
                touch(key)
        return found

    def fill(self, prefix: bytes, entries_max: int, values: dict[bytes, bytes]) -> list[Change]:
        """The changes that add entries to a version: these entries, and tombstones of those evicted for them."""
        version = self._version(prefix)
        policy = version.policy
        if policy.capacity != entries_max:
            policy.capacity = entries_max
        changes: dict[bytes, bytes | None] = {}
        evicted = 0
        left: list[bytes] = []
        for key, value in values.items():
            if key not in policy:
                for gone in policy.add(key):
                    evicted += 1
                    if (fresh := changes.get(gone)) is None:
                        left.append(gone)
                    else:  # added by this call
                        version.n_bytes -= len(gone) + len(fresh)
                    changes[gone] = None
                version.n_bytes += len(key) + len(value)
            changes[key] = value
        self._subtract(version, left)
        counters = self._counters(prefix)
        counters.fills += len(values)
        counters.evictions += evicted
        return list(changes.items())

    def sweep(self, now_ms: int, budget: int) -> list[Change]:
        """Tombstones of expired entries, of entries of dropped versions, and of entries above a reduced capacity.

        Inspects at most `budget` entries; the next call continues after them.
        """
        gone: list[bytes] = []
        while self._dropped and len(gone) < budget:
            gone += self._sweep_dropped(budget - len(gone))
        for prefix, version in self._versions.items():
            over = version.policy.shrink(version.policy.capacity, at_most=max(0, budget - len(gone)))
            self._subtract(version, over)
            self._counters(prefix).evictions += len(over)
            gone += over
        gone += self._sweep_expired(now_ms, max(0, budget - len(gone)))
        return [(key, None) for key in gone]

    def keep_only(self, prefixes: Collection[bytes]) -> None:
        """Drops the entries of all other versions; `sweep` then returns their tombstones."""
        for prefix in [prefix for prefix in self._versions if prefix not in prefixes]:
            self._dropped[prefix] = self._versions.pop(prefix)

    def discard(self, changes: Iterable[Change]) -> None:
        """Reverts changes that were not published. The table must have discarded them first."""
        changed = dict(changes)
        for (key, failed), value in zip(changed.items(), self._entries.get_many(list(changed)), strict=True):
            version = self._version(key[:PREFIX_BYTES])
            if value is not None and key not in version.policy:
                version.policy.restore([key])
                version.n_bytes += len(key) + len(value)
            elif value is None and version.policy.discard(key):
                version.n_bytes -= len(key) + len(failed or b"")

    def versions(self) -> dict[bytes, VersionEntries]:
        """The entries of each version, by key prefix."""
        return self._versions

    def _version(self, prefix: bytes) -> VersionEntries:
        version = self._versions.get(prefix)
        if version is None:
            # A version that returns before it was swept gets its entries back.
            version = self._dropped.pop(prefix) if prefix in self._dropped else VersionEntries()
            self._versions[prefix] = version
        return version

    def _subtract(self, version: VersionEntries, keys: list[bytes]) -> None:
        """Subtracts the bytes of evicted entries, which are still in the table."""
        if keys:
            values = self._entries.get_many(keys)
            version.n_bytes -= sum(map(len, keys)) + sum(len(value) for value in values if value is not None)

    def _sweep_dropped(self, budget: int) -> list[bytes]:
        prefix, version = next(iter(self._dropped.items()))
        gone = list(islice(version.policy, budget))
        for key in gone:
            version.policy.discard(key)
        self._subtract(version, gone)
        if not len(version.policy):
            del self._dropped[prefix]
        return gone

    def _sweep_expired(self, now_ms: int, budget: int) -> list[bytes]:
        keys = list(islice(self._round, budget))
        if len(keys) < budget:
            self._round = iter([key for version in self._versions.values() for key in version.policy])
        gone = []
        for key, value in zip(keys, self._entries.get_many(keys), strict=True):
            version = self._versions.get(key[:PREFIX_BYTES])
            # An entry that is not in the table may be in flight to it.
            if version is None or value is None or expires_at_ms(value) > now_ms:
                continue
            if version.policy.discard(key):
                version.n_bytes -= len(key) + len(value)
                self._counters(key[:PREFIX_BYTES]).expirations += 1
                gone.append(key)
        return gone

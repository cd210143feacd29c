"""The prediction cache of one partition: tracks entries, chooses those to evict, and produces the changes to its
table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
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

    __slots__ = ("count", "n_bytes", "policy", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.policy = S3Fifo(_UNBOUNDED, prefix)
        self.count = 0
        self.n_bytes = 0
        """Of keys and values."""

    def put(self, key: bytes, before: bytes | None, value: bytes) -> None:
        """Counts an entry that is added, or replaces the value `before`."""
        if before is None:
            self.count += 1
            self.n_bytes += len(key) + len(value)
        else:
            self.n_bytes += len(value) - len(before)

    def remove(self, key: bytes, value: bytes) -> None:
        """Counts an entry that is removed."""
        self.count -= 1
        self.n_bytes -= len(key) + len(value)


class PartitionCache:
    """Decides which entries a partition keeps. The entries, and so which there are, are only in the table.

    Callers must write the changes that a method returns to the table and then call `acked`, or call `discard` if that
    fails. Changes in between are kept here, as the table may not have them yet.
    """

    def __init__(self, entries: Entries, counters: Callable[[bytes], CacheCounters]) -> None:
        """`counters`: returns the counters of the version with a key prefix."""
        self._entries = entries
        self._counters = counters
        self._versions: dict[bytes, VersionEntries] = {}
        self._dropped: dict[bytes, VersionEntries] = {}
        self._changing: dict[bytes, bytes | None] = {}
        """The newest value of each key whose change is not acknowledged."""
        self._round: list[bytes] = []
        """Versions that are still to be swept."""

    def __len__(self) -> int:
        return sum(version.count for version in (*self._versions.values(), *self._dropped.values()))

    def restore(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Adds entries that are in the table already, oldest first. May be called repeatedly, with one part at a
        time."""
        restored: dict[bytes, list[bytes]] = {}
        for key, value in items:
            prefix = key[:PREFIX_BYTES]
            if (keys := restored.get(prefix)) is None:
                keys = restored[prefix] = []
            keys.append(key)
            self._version(prefix).put(key, None, value)
        for prefix, keys in restored.items():
            self._version(prefix).policy.restore(keys)

    def lookup(self, prefix: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each of a version's keys. The caller checks whether it has expired."""
        version = self._versions.get(prefix)
        found: list[bytes | None] = [None] * len(keys)
        if version is None:
            return found
        places = version.policy.may_have(keys)
        known = [keys[place] for place in places] if len(places) < len(keys) else keys
        for place, value in zip(places, self._entries.get_many(known), strict=True):
            found[place] = value
        version.policy.touch([key for key, value in zip(keys, found, strict=True) if value is not None])
        return found

    def fill(self, prefix: bytes, entries_max: int, values: dict[bytes, bytes]) -> list[Change]:
        """The changes that add entries to a version: these entries, and tombstones of those evicted for them."""
        version = self._version(prefix)
        if version.policy.capacity != entries_max:
            version.policy.capacity = entries_max
        before = self._values_before(version, list(values))
        new = [key for key in values if before.get(key) is None]
        changes: dict[bytes, bytes | None] = {}
        # A part enters as a whole, so it must not be larger than the small queue.
        at_once = max(1, entries_max // 10)
        for start in range(0, len(new), at_once):
            self._add(version, {key: values[key] for key in new[start : start + at_once]}, changes)
        for key, replaced in before.items():
            if key in changes and changes[key] is None:
                self._add(version, {key: values[key]}, changes)
            elif replaced is not None:
                version.put(key, replaced, values[key])
                changes[key] = self._changing[key] = values[key]
        self._counters(prefix).fills += len(values)
        return list(changes.items())

    def sweep(self, now_ms: int, budget: int) -> list[Change]:
        """Tombstones of expired entries, of entries of dropped versions, and of entries above a reduced capacity.

        Inspects at most `budget` entries; the next call continues after them.
        """
        changes: list[Change] = []
        while self._dropped and len(changes) < budget:
            changes += self._sweep_dropped(budget - len(changes))
        for version in self._versions.values():
            over = min(budget - len(changes), version.count - version.policy.capacity)
            changes += self._evict(version, over)
        return changes + self._sweep_expired(now_ms, budget - len(changes))

    def keep_only(self, prefixes: Collection[bytes]) -> None:
        """Drops the entries of all other versions; `sweep` then returns their tombstones."""
        for prefix in [prefix for prefix in self._versions if prefix not in prefixes]:
            self._dropped[prefix] = self._versions.pop(prefix)

    def acked(self, changes: Iterable[Change]) -> None:
        """The table has changes that a method returned."""
        changing = self._changing
        for key, value in changes:
            # Unless it has been changed again.
            if key in changing and changing[key] == value:
                del changing[key]

    def discard(self, changes: Iterable[Change]) -> None:
        """Reverts changes that were not published. The table must have discarded them first."""
        changed = dict(changes)
        for (key, failed), value in zip(changed.items(), self._entries.get_many(list(changed)), strict=True):
            version = self._version(key[:PREFIX_BYTES])
            self._changing.pop(key, None)
            if failed is None and value is not None:
                version.policy.restore([key])
                version.put(key, None, value)
            elif failed is not None and value is None:
                version.remove(key, failed)
            elif failed is not None and value is not None:
                version.put(key, failed, value)

    def versions(self) -> dict[bytes, VersionEntries]:
        """The entries of each version, by key prefix."""
        return self._versions

    def _version(self, prefix: bytes) -> VersionEntries:
        version = self._versions.get(prefix)
        if version is None:
            # A version that returns before it was swept gets its entries back.
            version = self._dropped.pop(prefix) if prefix in self._dropped else VersionEntries(prefix)
            self._versions[prefix] = version
        return version

    def _values_of(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The newest value of each key: of the table, or of a change that it may not have yet."""
        changing = self._changing
        asked = [key for key in keys if key not in changing]
        values = iter(self._entries.get_many(asked))
        return [changing[key] if key in changing else next(values) for key in keys]

    def _value_of(self, key: bytes) -> bytes | None:
        return self._values_of([key])[0]

    def _values_before(self, version: VersionEntries, keys: list[bytes]) -> dict[bytes, bytes | None]:
        """The newest values of those keys that may be cached."""
        known = [keys[place] for place in version.policy.may_have(keys)]
        return dict(zip(known, self._values_of(known), strict=True))

    def _add(self, version: VersionEntries, values: dict[bytes, bytes], changes: dict[bytes, bytes | None]) -> None:
        """Adds new entries, and evicts others for them: at most two for each, so that no call takes long after
        `restore`."""
        over = min(2 * len(values), version.count + len(values) - version.policy.capacity)
        changes.update(self._evict(version, over))
        version.policy.add(list(values))
        version.count += len(values)
        version.n_bytes += sum(map(len, values)) + sum(map(len, values.values()))
        changes.update(values)
        self._changing.update(values)

    def _evict(self, version: VersionEntries, at_most: int) -> list[Change]:
        """Tombstones of up to `at_most` entries, which are no longer counted."""
        changes: list[Change] = []
        while len(changes) < at_most and (evicted := version.policy.evict(self._value_of)) is not None:
            changes.append(self._remove(version, *evicted))
        if changes:
            self._counters(version.prefix).evictions += len(changes)
        return changes

    def _remove(self, version: VersionEntries, key: bytes, value: bytes) -> Change:
        version.remove(key, value)
        self._changing[key] = None
        return key, None

    def _sweep_dropped(self, budget: int) -> list[Change]:
        prefix, version = next(iter(self._dropped.items()))
        keys = version.policy.pop(budget)
        if not len(version.policy):
            del self._dropped[prefix]
        values = zip(keys, self._values_of(keys), strict=True)
        return [self._remove(version, key, value) for key, value in values if value is not None]

    def _sweep_expired(self, now_ms: int, budget: int) -> list[Change]:
        changes: list[Change] = []
        while budget > 0 and self._round:
            version = self._versions.get(self._round[-1])
            inspected = 0 if version is None else self._inspect(version, now_ms, budget, changes)
            if not inspected:
                self._round.pop()
            budget -= inspected
        if budget > 0:
            self._round = list(self._versions)
        return changes

    def _inspect(self, version: VersionEntries, now_ms: int, budget: int, changes: list[Change]) -> int:
        """Removes expired entries among the next ones, at most `budget`; returns how many were inspected."""

        def keep(keys: list[bytes]) -> list[bytes]:
            kept = []
            for key, value in zip(keys, self._values_of(keys), strict=True):
                if value is None:
                    continue
                if expires_at_ms(value) > now_ms:
                    kept.append(key)
                elif self._changing.get(key, value) is not None:
                    self._counters(key[:PREFIX_BYTES]).expirations += 1
                    changes.append(self._remove(version, key, value))
            return kept

        return version.policy.inspect(budget, keep)

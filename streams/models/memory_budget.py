"""Decides which model versions fit into memory, and which are unloaded for another one. Pure bookkeeping.

Tenants share the budget. To make room, versions of tenants above an equal share are unloaded first, and among these the
least recently used. A version is never unloaded while it is pinned, nor (for at most `CLAIM_S`) before the first
request that it was loaded for is scored: otherwise two versions that are requested alternately could displace each
other forever, and no request would be answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

Key = tuple[str, str, int]
"""Tenant, model id and version."""
CLAIM_S = 10.0
"""After this time a version is no longer kept for the requests that it was loaded for: another worker may score
them."""


@dataclass(slots=True)
class _Loaded:
    n_bytes: int
    used: int
    """Greater than that of every version that was used before."""
    claimed_until: float = 0.0
    pins: int = 0


class MemoryBudget:
    """The versions that may be loaded with their sizes, and those that are loaded."""

    def __init__(self, bytes_max: int, tenants: int) -> None:
        self.bytes_max = bytes_max
        self.used_bytes = 0
        """Of the loaded versions; at most `bytes_max`."""
        self._share = bytes_max // max(1, tenants)
        self._sizes: dict[Key, int] = {}
        self._loaded: dict[Key, _Loaded] = {}
        self._uses = count(1)

    def __len__(self) -> int:
        """The number of loaded versions."""
        return len(self._loaded)

    def is_loaded(self, key: Key) -> bool:
        return key in self._loaded

    def add(self, key: Key, n_bytes: int) -> None:
        """Registers a version with its size in bytes, in place of one with the same key."""
        self.remove(key)
        self._sizes[key] = n_bytes

    def remove(self, key: Key) -> None:
        """Removes a version."""
        self.release(key)
        self._sizes.pop(key, None)

    def fits(self, key: Key) -> bool:
        """Whether a version can be loaded without unloading others."""
        return self.used_bytes + self._sizes[key] <= self.bytes_max

    def reserve(self, key: Key, now: float, *, claim: bool = True) -> list[Key] | None:
        """Counts a version as loaded; returns the versions to unload for it, which no longer count as loaded.

        Returns None and changes nothing if there is no room now. With `claim` a request waits for the version, which is
        kept until its first use. Without `claim` it is among the first to be unloaded until it is used.
        """
        if key in self._loaded:
            return []
        if (victims := self._victims(key, now)) is None:
            return None
        for victim in victims:
            self.release(victim)
        n_bytes = self._sizes[key]
        self._loaded[key] = _Loaded(n_bytes, *((next(self._uses), now + CLAIM_S) if claim else (0, 0.0)))
        self.used_bytes += n_bytes
        return victims

    def release(self, key: Key) -> None:
        """Counts a version as unloaded."""
        if (loaded := self._loaded.pop(key, None)) is not None:
            self.used_bytes -= loaded.n_bytes

    def use(self, keys: Iterable[Key]) -> None:
        """Marks versions as the most recently used, in this order."""
        for key in keys:
            if (loaded := self._loaded.get(key)) is not None:
                loaded.used, loaded.claimed_until = next(self._uses), 0.0

    def pin(self, keys: Iterable[Key]) -> None:
        """Keeps versions loaded until `unpin` is called with the same keys."""
        for key in keys:
            if (loaded := self._loaded.get(key)) is not None:
                loaded.pins += 1

    def unpin(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if (loaded := self._loaded.get(key)) is not None:
                loaded.pins = max(0, loaded.pins - 1)

    def _victims(self, key: Key, now: float) -> list[Key] | None:
        """The versions to unload to make room for another one; None if those that may be unloaded are not enough."""
        missing = self.used_bytes + self._sizes[key] - self.bytes_max
        used = Counter({key[0]: self._sizes[key]})
        for each, loaded in self._loaded.items():
            used[each[0]] += loaded.n_bytes
        left = [each for each, loaded in self._loaded.items() if not loaded.pins and loaded.claimed_until <= now]
        victims: list[Key] = []
        while missing > 0:
            if not left:
                return None
            victim = min(left, key=lambda each: (used[each[0]] <= self._share, self._loaded[each].used))
            left.remove(victim)
            victims.append(victim)
            missing -= self._loaded[victim].n_bytes
            used[victim[0]] -= self._loaded[victim].n_bytes
        return victims

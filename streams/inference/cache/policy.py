"""Eviction policy of a cache of bounded size: S3-FIFO (Yang et al., SOSP 2023).

Chosen by measurement against LRU, CLOCK, SIEVE and W-TinyLFU (`python -m bench.cache_policies`): it has the best or
nearly the best hit ratio on every trace (skewed, with scans, drifting), and a hit only increments a counter.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

_GONE: Final = -1
"""State of a key that was removed other than by eviction; its queue entry is dropped when it reaches the end."""
_GONE_MIN: Final = 1_024
_ASKED_MAX: Final = 3
_TRIAL_SHARE: Final = 0.1


class S3Fifo:
    """The keys of a bounded cache. Keys are hashes of at least 16 bytes.

    A new key enters a small queue. If it is requested before it reaches the end, it moves to the main queue. Otherwise
    it is evicted, and remembered for a while as a ghost: if it is added again in that time, it enters the main queue
    directly. A key at the end of the main queue that was requested is requeued, once for each request. So the keys of a
    scan only pass through the small queue.

    Ghosts are 32 bits of their key, in a table as long as the cache in which a newer ghost overwrites an older one.
    That takes 4 bytes per entry instead of another queue.
    """

    __slots__ = ("_asked", "_capacity", "_ghosts", "_gone", "_main", "_trial", "_trial_max")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._asked: dict[bytes, int] = {}
        self._trial: deque[bytes] = deque()
        self._main: deque[bytes] = deque()
        self._gone = 0

    def __len__(self) -> int:
        return len(self._asked) - self._gone

    def __contains__(self, key: bytes) -> bool:
        return self._asked.get(key, _GONE) != _GONE

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, asked in self._asked.items() if asked != _GONE)

    @property
    def capacity(self) -> int:
        """Maximum number of keys. After a reduction, later calls of `add` and `shrink` evict the excess."""
        return self._capacity

    @capacity.setter
    def capacity(self, capacity: int) -> None:
        self._capacity = capacity
        self._trial_max = max(1, int(capacity * _TRIAL_SHARE))
        self._ghosts = array("I", bytes(4))

    def restore(self, keys: Iterable[bytes]) -> None:
        """Adds keys that were in the cache before a restart, oldest first; evicts none."""
        missing = dict.fromkeys(key for key in keys if key not in self)
        self._gone -= sum(key in self._asked for key in missing) if self._gone else 0
        self._main.extend(key for key in missing if key not in self._asked)
        self._asked.update(dict.fromkeys(missing, 0))

    def touch(self, key: bytes) -> None:
        """Counts a request for a known key."""
        asked = self._asked[key]
        if asked < _ASKED_MAX:
            self._asked[key] = asked + 1

    def places_of_known(self, keys: Sequence[bytes]) -> list[int]:
        """The places in `keys` of known keys."""
        asked_of = self._asked.get
        return [place for place, key in enumerate(keys) if asked_of(key, _GONE) != _GONE]

    def add(self, key: bytes) -> list[bytes]:
        """Adds a key; returns the evicted keys. These are at most two, so that no call takes long after `restore`."""
        if key in self:
            return []
        evicted = self.shrink(self.capacity - 1, at_most=2) if len(self) >= self.capacity else []
        if key in self._asked:  # its old place in a queue still exists
            self._gone -= 1
        else:
            (self._main if self._is_ghost(key) else self._trial).append(key)
        self._asked[key] = 0
        return evicted

    def discard(self, key: bytes) -> bool:
        """Removes a key; returns whether it was known."""
        if key not in self:
            return False
        self._asked[key] = _GONE
        self._gone += 1
        # Amortised cost: the scan visits about as many keys as were removed since the last one.
        if self._gone > len(self) + _GONE_MIN:
            self._forget_gone()
        return True

    def shrink(self, entries_max: int, at_most: int) -> list[bytes]:
        """Evicts keys until `entries_max` are left, but at most `at_most` keys; returns the evicted keys."""
        evicted: list[bytes] = []
        while len(self) > entries_max and len(evicted) < at_most:
            key = self._evict_on_trial() if len(self._trial) >= self._trial_max or not self._main else None
            evicted.append(self._evict_from_main() if key is None else key)
        return evicted

    def _evict_on_trial(self) -> bytes | None:
        """Evicts a key from the small queue. None if all of its keys were requested, and moved to the main queue."""
        asked_of, trial = self._asked, self._trial
        while trial:
            key = trial.popleft()
            asked = asked_of[key]
            if asked > 0:
                asked_of[key] = 0
                self._main.append(key)
                continue
            del asked_of[key]
            if asked == 0:
                self._remember(key)
                return key
            self._gone -= 1
        return None

    def _evict_from_main(self) -> bytes:
        asked_of, main = self._asked, self._main
        while True:
            key = main.popleft()
            asked = asked_of[key]
            if asked > 0:
                asked_of[key] = asked - 1
                main.append(key)
                continue
            del asked_of[key]
            if asked == 0:
                return key
            self._gone -= 1

    def _remember(self, key: bytes) -> None:
        if len(self._ghosts) == 1:
            self._ghosts = array("I", bytes(4 << (self.capacity - 1).bit_length()))
        self._ghosts[self._ghost_place(key)] = int.from_bytes(key[-4:], "little")

    def _is_ghost(self, key: bytes) -> bool:
        return self._ghosts[self._ghost_place(key)] == int.from_bytes(key[-4:], "little")

    def _ghost_place(self, key: bytes) -> int:
        return int.from_bytes(key[-8:-4], "little") & (len(self._ghosts) - 1)

    def _forget_gone(self) -> None:
        asked_of = self._asked
        self._trial = deque(key for key in self._trial if asked_of[key] != _GONE)
        self._main = deque(key for key in self._main if asked_of[key] != _GONE)
        self._asked = {key: asked for key, asked in asked_of.items() if asked != _GONE}
        self._gone = 0

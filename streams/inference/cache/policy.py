"""Eviction policy of a cache of bounded size: S3-FIFO (Yang et al., SOSP 2023).

Chosen by measurement against LRU, CLOCK, SIEVE and W-TinyLFU (`python -m bench.cache_policies`): it has the best or
nearly the best hit ratio on every trace (skewed, with scans, drifting), and a hit only increments a counter.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress
from typing import Final

import numpy as np

from inferd.streams.inference.cache.asked_counts import AskedCounts
from inferd.streams.inference.cache.key_queue import KeyQueue, word_of

_TRIAL_SHARE: Final = 0.1
_SLOTS_PER_KEY: Final = 2
_SLOTS_MIN: Final = 1_024
_MANY: Final = 255
"""A saturated counter: the number of keys in the slot is unknown, and no longer updated."""

ValueOf = Callable[[bytes], bytes | None]
"""The cached value of a key; None if it is not cached."""


class S3Fifo:
    """The order in which the keys of one version are evicted.

    A new key enters a small queue. If it is requested before it reaches the end, it moves to the main queue. Otherwise
    it is evicted, and remembered for a while as a ghost: if it is added again in that time, it enters the main queue
    directly. A key at the end of the main queue that was requested is requeued, once for each request. So the keys of a
    scan only pass through the small queue.

    Only the table knows which keys are cached. That takes no memory here; queues may hold keys that are no longer in
    the table, which are skipped. A key takes 23 bytes in its queue, 2 to 4 slots of a byte, each of which counts the
    keys that share it, 4 to 8 bytes for the number of requests, and, once keys have been evicted, 4 to 8 bytes for
    ghosts. A key whose slot is empty is not cached: most misses need not ask the table. Ghosts are 32 bits of their
    key. Their table has at least as many entries as the cache; a newer ghost overwrites an older one in its entry.
    """

    __slots__ = ("_asked", "_capacity", "_ghosts", "_inspects_trial", "_main", "_slots", "_trial", "_trial_max")

    def __init__(self, capacity: int, prefix: bytes) -> None:
        """`prefix`: of all keys, `PREFIX_BYTES` long; keys are `KEY_BYTES` long and end with a hash."""
        self.capacity = capacity
        self._trial = KeyQueue(prefix)
        self._main = KeyQueue(prefix)
        self._asked = AskedCounts()
        self._slots = bytearray(_SLOTS_MIN)
        self._inspects_trial = False

    def __len__(self) -> int:
        """Number of keys in the queues, including removed ones that `inspect` has not met yet."""
        return len(self._trial) + len(self._main)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._main
        yield from self._trial

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        queues = self._trial.n_bytes + self._main.n_bytes
        return queues + self._asked.n_bytes + len(self._slots) + self._ghosts.itemsize * len(self._ghosts)

    @property
    def capacity(self) -> int:
        """Maximum number of keys; callers evict the excess."""
        return self._capacity

    @capacity.setter
    def capacity(self, capacity: int) -> None:
        self._capacity = capacity
        self._trial_max = max(1, int(capacity * _TRIAL_SHARE))
        self._ghosts = array("I", bytes(4))

    def restore(self, keys: Sequence[bytes]) -> None:
        """Adds keys that are in the table already, oldest first."""
        self._main.extend(keys)
        self._enter(keys)

    def add(self, keys: Sequence[bytes]) -> None:
        """Adds keys that are not cached."""
        ghosts = [self._is_ghost(key) for key in keys] if len(self._ghosts) > 1 else [False] * len(keys)
        self._main.extend(compress(keys, ghosts))
        self._trial.extend([key for key, is_ghost in zip(keys, ghosts, strict=True) if not is_ghost])
        self._enter(keys)

    def may_have(self, keys: Sequence[bytes]) -> list[int]:
        """Indexes of the keys that may be cached: of all that are, and of a few others."""
        slots, mask = self._slots, len(self._slots) - 1
        number = int.from_bytes  # as `word_of`, without a call for each key
        return [place for place, key in enumerate(keys) if slots[number(key[-12:-8], "little") & mask]]

    def touch(self, keys: Sequence[bytes]) -> None:
        """Counts a request for each of these cached keys."""
        self._asked.touch(keys)

    def evict(self, value_of: ValueOf) -> tuple[bytes, bytes] | None:
        """Removes the key to be evicted, and returns it with its value; None if no cached key is left."""
        evicted = None
        if len(self._trial) >= self._trial_max or not len(self._main):
            evicted = self._evict_on_trial(value_of)
        return evicted or self._evict_from_main(value_of)

    def pop(self, limit: int) -> list[bytes]:
        """Removes and returns up to `limit` keys."""
        keys: list[bytes] = []
        while len(self) and len(keys) < limit:
            keys.append((self._main if len(self._main) else self._trial).popleft())
        return keys

    def inspect(self, limit: int, keep: Callable[[list[bytes]], Sequence[bytes]]) -> int:
        """Like `KeyQueue.inspect`, over both queues. A key that moves between them may be missed in a round."""

        def keep_known(keys: list[bytes]) -> Sequence[bytes]:
            kept = keep(keys)
            if len(kept) < len(keys):
                remaining = set(kept)
                for key in keys:
                    if key not in remaining:
                        self._leave(key)
            return kept

        inspected = 0 if self._inspects_trial else self._main.inspect(limit, keep_known)
        if not inspected:
            inspected = self._trial.inspect(limit, keep_known)
            self._inspects_trial = inspected > 0
        return inspected

    def _evict_on_trial(self, value_of: ValueOf) -> tuple[bytes, bytes] | None:
        """Evicts a key from the small queue. None if each of its keys was moved to the main queue or is no
        longer cached."""
        while len(self._trial):
            key = self._trial.popleft()
            if self._asked.take(key, every=True):
                self._main.append(key)
                continue
            self._leave(key)
            if (value := value_of(key)) is not None:
                self._remember(key)
                return key, value
        return None

    def _evict_from_main(self, value_of: ValueOf) -> tuple[bytes, bytes] | None:
        while len(self._main):
            key = self._main.popleft()
            if self._asked.take(key, every=False):
                self._main.append(key)
                continue
            self._leave(key)
            if (value := value_of(key)) is not None:
                return key, value
        return None

    def _enter(self, keys: Sequence[bytes]) -> None:
        if self._grow():
            return
        slots, mask = self._slots, len(self._slots) - 1
        for key in keys:
            slot = int.from_bytes(key[-12:-8], "little") & mask
            if slots[slot] < _MANY:
                slots[slot] += 1

    def _leave(self, key: bytes) -> None:
        slot = word_of(key) & (len(self._slots) - 1)
        if 0 < self._slots[slot] < _MANY:
            self._slots[slot] -= 1

    def _grow(self) -> bool:
        """Makes room for more keys, if it is time; counts all keys again in that case, and returns True."""
        if len(self) * _SLOTS_PER_KEY <= len(self._slots):
            return False
        size = 1 << (len(self) * _SLOTS_PER_KEY).bit_length()
        counts = np.zeros(size, np.uint16)
        for words in chain(self._main.words(), self._trial.words()):
            np.add.at(counts, words & np.uint32(size - 1), np.uint16(1))
        self._slots = bytearray(np.minimum(counts, _MANY).astype(np.uint8))
        self._asked.grow(size)
        return True

    def _remember(self, key: bytes) -> None:
        if len(self._ghosts) == 1:
            self._ghosts = array("I", bytes(4 << (self.capacity - 1).bit_length()))
        self._ghosts[self._ghost_place(key)] = int.from_bytes(key[-4:], "little")

    def _is_ghost(self, key: bytes) -> bool:
        return self._ghosts[self._ghost_place(key)] == int.from_bytes(key[-4:], "little")

    def _ghost_place(self, key: bytes) -> int:
        return int.from_bytes(key[-8:-4], "little") & (len(self._ghosts) - 1)

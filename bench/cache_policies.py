"""Eviction policies for the prediction cache on synthetic traces: hit ratio, and cost of a lookup with its insert.

    python -m bench.cache_policies

S3-FIFO is inferd's policy (`inferd.streams.inference.cache.policy`). The others are short implementations for
comparison: LRU; CLOCK (Corbató 1968); SIEVE (Zhang et al., NSDI 2024);
W-TinyLFU (Einziger, Friedman, Manes, ACM TOS 2017) with a window of 1 % and an LRU main part.
"""

from __future__ import annotations

import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from inferd.streams.inference.cache import S3Fifo
from inferd.streams.inference.cache.keys import KEY_BYTES

OBJECTS = 100_000
ACCESSES = 400_000
CAPACITIES = (1_000, 10_000)
SEED = 20_240_229
PREFIX = b"version1"
HASH_BYTES = KEY_BYTES - len(PREFIX)


class Policy(Protocol):
    """Decides which keys a bounded cache keeps."""

    def __contains__(self, key: bytes) -> bool: ...
    def touch(self, key: bytes) -> None:
        """Records an access to a cached key."""

    def add(self, key: bytes) -> list[bytes]:
        """Inserts a new key; returns the evicted keys."""


class Lru:
    """Evicts the least recently used key."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def touch(self, key: bytes) -> None:
        self._keys.move_to_end(key)

    def add(self, key: bytes) -> list[bytes]:
        self._keys[key] = None
        return [self._keys.popitem(last=False)[0]] if len(self._keys) > self._capacity else []


class Clock:
    """First in, first out, with a second chance for keys that were accessed."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._visited: dict[bytes, bool] = {}
        self._queue: deque[bytes] = deque()

    def __contains__(self, key: bytes) -> bool:
        return key in self._visited

    def touch(self, key: bytes) -> None:
        self._visited[key] = True

    def add(self, key: bytes) -> list[bytes]:
        evicted = [self._evict()] if len(self._visited) >= self._capacity else []
        self._visited[key] = False
        self._queue.append(key)
        return evicted

    def _evict(self) -> bytes:
        while self._visited[key := self._queue.popleft()]:
            self._visited[key] = False
            self._queue.append(key)
        del self._visited[key]
        return key


class Sieve:
    """A hand moves from the oldest to the newest key, and evicts the first one not accessed since its last pass."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._visited: dict[bytes, bool] = {}
        # One queue, split in two at the hand.
        self._ahead: deque[bytes] = deque()
        self._behind: deque[bytes] = deque()

    def __contains__(self, key: bytes) -> bool:
        return key in self._visited

    def touch(self, key: bytes) -> None:
        self._visited[key] = True

    def add(self, key: bytes) -> list[bytes]:
        evicted = [self._evict()] if len(self._visited) >= self._capacity else []
        self._visited[key] = False
        self._ahead.append(key)
        return evicted

    def _evict(self) -> bytes:
        while True:
            if not self._ahead:
                self._ahead, self._behind = self._behind, self._ahead
            key = self._ahead.popleft()
            if not self._visited[key]:
                del self._visited[key]
                return key
            self._visited[key] = False
            self._behind.append(key)


class WTinyLfu:
    """A key leaving a small LRU window replaces the main LRU's victim only if it was accessed more often."""

    def __init__(self, capacity: int) -> None:
        self._window_max = max(1, capacity // 100)
        self._main_max = max(1, capacity - self._window_max)
        self._window: OrderedDict[bytes, None] = OrderedDict()
        self._main: OrderedDict[bytes, None] = OrderedDict()
        self._width = 1 << (capacity * 4 - 1).bit_length()
        self._counts = array("B", bytes(self._width))
        self._sampled, self._sample = 0, capacity * 10

    def __contains__(self, key: bytes) -> bool:
        return key in self._window or key in self._main

    def touch(self, key: bytes) -> None:
        self._count(key)
        (self._window if key in self._window else self._main).move_to_end(key)

    def add(self, key: bytes) -> list[bytes]:
        self._count(key)
        self._window[key] = None
        if len(self._window) <= self._window_max:
            return []
        candidate = self._window.popitem(last=False)[0]
        if len(self._main) < self._main_max:
            self._main[candidate] = None
            return []
        victim = next(iter(self._main))
        if self._frequency(candidate) <= self._frequency(victim):
            return [candidate]
        del self._main[victim]
        self._main[candidate] = None
        return [victim]

    def _places(self, key: bytes) -> Iterator[int]:
        # Keys are hashes: their bytes serve as hash values.
        return (int.from_bytes(key[start : start + 4], "little") & (self._width - 1) for start in (0, 4, 8, 12))

    def _frequency(self, key: bytes) -> int:
        return min(self._counts[place] for place in self._places(key))

    def _count(self, key: bytes) -> None:
        for place in self._places(key):
            if self._counts[place] < 15:
                self._counts[place] += 1
        self._sampled += 1
        if self._sampled >= self._sample:
            self._sampled = 0
            self._counts = array("B", (np.frombuffer(self._counts, np.uint8) >> 1).tobytes())


class S3FifoOfTable:
    """inferd's policy, with the keys that it keeps: in inferd these are only in the table."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: dict[bytes, bytes] = {}
        self._policy = S3Fifo(capacity, PREFIX)

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def touch(self, key: bytes) -> None:
        self._policy.touch([key])

    def add(self, key: bytes) -> list[bytes]:
        evicted = self._policy.evict(self._keys.get) if len(self._keys) >= self._capacity else None
        self._policy.add([key])
        self._keys[key] = key
        return [] if evicted is None else [self._keys.pop(evicted[0])]


POLICIES: dict[str, Callable[[int], Policy]] = {
    "LRU": Lru,
    "CLOCK": Clock,
    "SIEVE": Sieve,
    "S3-FIFO": S3FifoOfTable,
    "W-TinyLFU": WTinyLfu,
}


def zipf(alpha: float, random: np.random.Generator, accesses: int = ACCESSES) -> NDArray[np.int64]:
    """Object numbers, int64 (accesses,); object n is accessed with probability proportional to 1 / (n + 1) ** alpha."""
    weights = 1.0 / np.arange(1, OBJECTS + 1) ** alpha
    cumulated = np.cumsum(weights / weights.sum())
    return np.minimum(np.searchsorted(cumulated, random.random(accesses)), OBJECTS - 1).astype(np.int64)


def with_scans(numbers: NDArray[np.int64], scan: int, every: int) -> NDArray[np.int64]:
    """The trace with a scan of `scan` objects, each accessed once, after every `every` accesses."""
    parts = []
    for turn, start in enumerate(range(0, len(numbers), every)):
        first = OBJECTS + turn * scan
        parts += [numbers[start : start + every], np.arange(first, first + scan)]
    return np.concatenate(parts)


def drifting(numbers: NDArray[np.int64], step: int, every: int) -> NDArray[np.int64]:
    """The trace, with the popular objects replaced after every `every` accesses."""
    return (numbers + np.arange(len(numbers)) // every * step) % OBJECTS


def traces() -> dict[str, NDArray[np.int64]]:
    random = np.random.default_rng(SEED)
    plain = {f"Zipf {alpha}": zipf(alpha, random) for alpha in (0.6, 0.8, 1.0, 1.2)}
    return plain | {
        "Zipf 1.0 + scans": with_scans(plain["Zipf 1.0"], scan=5_000, every=20_000),
        "Zipf 1.0 drifting": drifting(plain["Zipf 1.0"], step=997, every=20_000),
    }


@dataclass(frozen=True)
class Measured:
    """The result of a policy on a trace."""

    hit_ratio: float
    access_us: float
    """Time of a lookup, including the insert after a miss."""


def measure(policy: Policy, keys: list[bytes]) -> Measured:
    hits, touch, add = 0, policy.touch, policy.add
    start = time.perf_counter()
    for key in keys:
        if key in policy:
            touch(key)
            hits += 1
        else:
            add(key)
    return Measured(hits / len(keys), (time.perf_counter() - start) / len(keys) * 1e6)


def main() -> None:
    names = np.random.default_rng(SEED).bytes(HASH_BYTES * 4 * OBJECTS)
    console = Console()
    for capacity in CAPACITIES:
        table = Table(title=f"hit ratio, µs per access; {capacity:,} entries for {OBJECTS:,} objects")
        for column in ("trace", *POLICIES):
            table.add_column(column, justify="left" if column == "trace" else "right")
        for trace, numbers in traces().items():
            keys = [PREFIX + names[HASH_BYTES * n : HASH_BYTES * (n + 1)] for n in numbers.tolist()]
            results = [measure(make(capacity), keys) for make in POLICIES.values()]
            table.add_row(trace, *[f"{each.hit_ratio:.1%} {each.access_us:.2f}" for each in results])
        console.print(table)


if __name__ == "__main__":
    main()

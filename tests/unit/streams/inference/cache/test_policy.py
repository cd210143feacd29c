"""S3-FIFO: always bounded, and no worse than LRU on the traces for which it was chosen."""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import cache_policies
from inferd.streams.inference.cache.policy import S3Fifo

PREFIX = cache_policies.PREFIX


def key(number: int) -> bytes:
    return PREFIX + hashlib.blake2b(number.to_bytes(8, "big"), digest_size=23).digest()


def cached_of(table: dict[bytes, bytes], keys: list[bytes]) -> list[bytes]:
    return [each for each in keys if each in table]


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["ask", "discard", "restore", "inspect", "evict", "pop"]), st.integers(0, 12)),
    max_size=80,
)


@given(capacity=st.integers(1, 8), actions=ACTIONS)
def test_keys_leave_once_and_only_the_cached_ones_are_evicted(capacity: int, actions: list[tuple[str, int]]) -> None:
    policy, table = S3Fifo(capacity, PREFIX), dict[bytes, bytes]()
    for action, number in actions:
        name = key(number)
        if action == "ask" and name in table:
            policy.touch([name])
        elif action == "ask":
            policy.add([name])
            table[name] = b"%d" % number
        elif action == "discard":
            table.pop(name, None)
        elif action == "restore":
            restored = [key(n) for n in range(number) if key(n) not in table]
            policy.restore(restored)
            table |= dict.fromkeys(restored, b"restored")
        elif action == "inspect":
            policy.inspect(number + 1, partial(cached_of, table))
        elif action == "evict" and table:
            evicted = policy.evict(table.get)
            assert evicted is not None
            assert table.pop(evicted[0]) == evicted[1]
        elif action == "pop":
            for each in policy.pop(number):
                table.pop(each, None)
        assert set(policy) >= table.keys()
        assert {key(n) for n in policy.may_have([key(n) for n in range(13)])} >= table.keys()


def test_evicting_everything_leaves_nothing() -> None:
    policy, table = S3Fifo(10, PREFIX), {key(n): b"" for n in range(10)}
    policy.restore([*table])
    policy.touch([key(n) for n in range(5)])
    gone = [policy.evict(table.get) for _ in range(10)]
    assert {each[0] for each in gone if each is not None} == table.keys()
    assert policy.evict(table.get) is None
    assert len(policy) == 0


def test_removed_entries_free_their_memory() -> None:
    policy = S3Fifo(1_000_000, PREFIX)
    keys = [key(number) for number in range(20_000)]
    policy.add(keys)
    before = policy.n_bytes
    while policy.inspect(1_000, lambda _: []):
        pass
    assert (len(policy), policy.may_have(keys)) == (0, [])
    assert before - policy.n_bytes > 20_000 * 23


def test_a_key_takes_few_bytes() -> None:
    policy, table = S3Fifo(50_000, PREFIX), dict[bytes, bytes]()
    for number in range(100_000):
        if len(table) == policy.capacity and (evicted := policy.evict(table.get)) is not None:
            del table[evicted[0]]
        policy.add([key(number)])
        table[key(number)] = b""
    assert policy.n_bytes / len(table) < 45


def test_a_scan_does_not_evict_requested_entries() -> None:
    policy, popular = cache_policies.S3FifoOfTable(100), [key(n) for n in range(50)]
    for name in popular:
        policy.add(name)
    for name in popular:
        policy.touch(name)
    for number in range(1_000, 3_000):
        policy.add(key(number))
        if number % 20 == 0:
            for name in popular:
                assert name in policy
                policy.touch(name)


@pytest.mark.parametrize("alpha", [0.8, 1.2])
def test_it_hits_at_least_as_often_as_lru(alpha: float) -> None:
    numbers = cache_policies.zipf(alpha, np.random.default_rng(1), accesses=20_000)
    keys = [key(number) for number in numbers.tolist()]
    chosen, lru = (
        cache_policies.measure(make(500), keys).hit_ratio for make in (cache_policies.S3FifoOfTable, cache_policies.Lru)
    )
    assert chosen > lru + 0.01


@pytest.mark.parametrize("name", cache_policies.POLICIES)
def test_every_policy_compared_is_bounded(name: str) -> None:
    policy, held = cache_policies.POLICIES[name](20), set[bytes]()
    for number in np.random.default_rng(2).integers(0, 60, 2_000).tolist():
        if key(number) in policy:
            assert key(number) in held
            policy.touch(key(number))
        else:
            held |= {key(number)}
            held -= set(policy.add(key(number)))
        assert len(held) <= 20

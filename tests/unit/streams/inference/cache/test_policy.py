"""S3-FIFO: always bounded, and no worse than LRU on the traces for which it was chosen."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import cache_policies
from inferd.streams.inference.cache.policy import S3Fifo


def key(number: int) -> bytes:
    return hashlib.blake2b(number.to_bytes(8, "big"), digest_size=31).digest()


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["ask", "discard", "restore", "shrink", "capacity"]), st.integers(0, 12)), max_size=80
)


@given(capacity=st.integers(1, 8), actions=ACTIONS)
def test_its_keys_are_those_of_the_cache_and_bounded(capacity: int, actions: list[tuple[str, int]]) -> None:
    policy, model = S3Fifo(capacity), set[bytes]()
    for action, number in actions:
        name = key(number)
        if action == "ask" and name in policy:
            policy.touch(name)
        elif action == "ask":
            before = len(model)
            evicted = policy.add(name)
            assert set(evicted) <= model
            assert len(evicted) == len(set(evicted)) == min(2, max(0, before - policy.capacity + 1))
            model = (model | {name}) - set(evicted)
        elif action == "discard":
            assert policy.discard(name) == (name in model)
            model.discard(name)
        elif action == "restore":
            restored = [key(n) for n in range(number)]
            policy.restore(restored)
            model |= set(restored)
        elif action == "shrink":
            model -= set(policy.shrink(number, at_most=100))
            assert len(model) <= number or number == 0
        else:
            policy.capacity = number + 1
        assert set(policy) == model
        assert len(policy) == len(model)
        assert policy.places_of_known([key(n) for n in range(13)]) == [n for n in range(13) if key(n) in model]


def test_shrinking_to_zero_removes_everything() -> None:
    policy = S3Fifo(10)
    policy.restore(key(n) for n in range(10))
    for n in range(5):
        policy.touch(key(n))
    assert set(policy.shrink(0, at_most=10)) == {key(n) for n in range(10)}


def test_removed_entries_free_their_memory() -> None:
    policy = S3Fifo(1_000_000)
    for number in range(20_000):
        policy.add(key(number))
        policy.discard(key(number))
    assert len(policy) == 0
    assert len(policy._asked) + len(policy._trial) + len(policy._main) < 5_000


def test_a_scan_does_not_evict_requested_entries() -> None:
    policy, popular = S3Fifo(100), [key(n) for n in range(50)]
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
    chosen, lru = (cache_policies.measure(make(500), keys).hit_ratio for make in (S3Fifo, cache_policies.Lru))
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

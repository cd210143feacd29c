"""The memory budget against a simple model: which versions are loaded and unloaded, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd.streams.models.memory_budget import CLAIM_S, Key, MemoryBudget

BYTES_MAX = 100
TENANTS = ("a", "b", "c")
SHARE = BYTES_MAX // len(TENANTS)
keys = st.builds(lambda tenant, number: (tenant, "m", number), st.sampled_from(TENANTS), st.integers(1, 5))


@dataclass
class Plain:
    """A loaded version as the model of the budget knows it."""

    n_bytes: int
    pins: int = 0
    claimed_until: float = 0.0


@dataclass
class World:
    """The expected state of the budget, as plain lists."""

    sizes: dict[Key, int] = field(default_factory=dict)
    loaded: dict[Key, Plain] = field(default_factory=dict)
    order: list[Key] = field(default_factory=list)
    """Loaded versions, the one that was used least recently first."""

    def of_tenant(self, tenant: str) -> int:
        return sum(each.n_bytes for key, each in self.loaded.items() if key[0] == tenant)

    def drop(self, key: Key) -> None:
        if self.loaded.pop(key, None) is not None:
            self.order.remove(key)

    def touch(self, key: Key) -> None:
        self.order.remove(key)
        self.order.append(key)


class Budget(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.budget = MemoryBudget(BYTES_MAX, len(TENANTS))
        self.world = World()
        self.now = 0.0

    @rule(key=keys, n_bytes=st.integers(1, BYTES_MAX))
    def add(self, key: Key, n_bytes: int) -> None:
        self.budget.add(key, n_bytes)
        self.world.drop(key)
        self.world.sizes[key] = n_bytes

    @rule(key=keys)
    def remove(self, key: Key) -> None:
        self.budget.remove(key)
        self.world.drop(key)
        self.world.sizes.pop(key, None)

    @rule(key=keys)
    def release(self, key: Key) -> None:
        self.budget.release(key)
        self.world.drop(key)

    @rule(seconds=st.sampled_from([0.1, CLAIM_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.world.loaded)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.world.loaded)))
        self.budget.use([key])
        self.world.touch(key)
        self.world.loaded[key].claimed_until = 0.0

    @precondition(lambda self: self.world.loaded)
    @rule(data=st.data(), down=st.booleans())
    def pin(self, data: st.DataObject, down: bool) -> None:
        key = data.draw(st.sampled_from(list(self.world.loaded)))
        plain = self.world.loaded[key]
        if down and plain.pins:
            self.budget.unpin([key])
            plain.pins -= 1
        else:
            self.budget.pin([key])
            plain.pins += 1

    @precondition(lambda self: self.world.sizes)
    @rule(data=st.data(), claim=st.booleans())
    def reserve(self, data: st.DataObject, claim: bool) -> None:
        key = data.draw(st.sampled_from(list(self.world.sizes)))
        n_bytes, world = self.world.sizes[key], self.world
        known = key in world.loaded
        free = [k for k in world.order if not world.loaded[k].pins and world.loaded[k].claimed_until <= self.now]
        used = sum(each.n_bytes for each in world.loaded.values())
        fits = self.budget.fits(key)
        victims = self.budget.reserve(key, self.now, claim=claim)
        if known:
            assert victims == []
            return
        assert fits == (used + n_bytes <= BYTES_MAX)
        if victims is None:
            assert used - sum(world.loaded[k].n_bytes for k in free) + n_bytes > BYTES_MAX, "there was room"
            return
        needed = used + n_bytes - BYTES_MAX
        for victim in victims:
            assert needed > 0, "no more than necessary is unloaded"
            assert victim in free, "neither pinned nor claimed versions are unloaded"
            use = {t: world.of_tenant(t) + (n_bytes if t == key[0] else 0) for t in TENANTS}
            greedy = [k for k in free if use[k[0]] > SHARE]
            assert victim == (greedy or free)[0], "the least recently used of tenants beyond their share"
            free.remove(victim)
            needed -= world.loaded[victim].n_bytes
            world.drop(victim)
        assert needed <= 0
        world.loaded[key] = Plain(n_bytes, claimed_until=self.now + CLAIM_S if claim else 0.0)
        if claim:
            world.order.append(key)
        else:  # before all that were used, after others that were not
            unused = len([k for k in world.order if self.budget._loaded[k].used == 0])
            world.order.insert(unused, key)

    @invariant()
    def never_more_than_allowed(self) -> None:
        assert self.budget.used_bytes == sum(each.n_bytes for each in self.world.loaded.values()) <= BYTES_MAX
        assert len(self.budget) == len(self.world.loaded)
        assert all(self.budget.is_loaded(key) for key in self.world.loaded)


Budget.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBudget = Budget.TestCase


def loaded(budget: MemoryBudget, *keys: Key, n_bytes: int = 30) -> None:
    for key in keys:
        budget.add(key, n_bytes)
        assert budget.reserve(key, 0.0, claim=False) == []
        budget.use([key])


def test_a_tenant_that_needs_many_versions_unloads_its_own() -> None:
    budget = MemoryBudget(BYTES_MAX, 2)
    loaded(budget, ("b", "m", 1), ("a", "m", 1), ("a", "m", 2))
    for number in range(3, 20):
        budget.add(("a", "m", number), 30)
        assert budget.reserve(("a", "m", number), 0.0, claim=False) is not None
    assert budget.is_loaded(("b", "m", 1))


def test_two_versions_that_fit_one_at_a_time_take_turns() -> None:
    budget = MemoryBudget(BYTES_MAX, 1)
    first, second = ("a", "m", 1), ("a", "m", 2)
    for key in (first, second):
        budget.add(key, 90)
    assert budget.reserve(first, 0.0) == []
    assert budget.reserve(second, 1.0) is None, "a request still waits for the first"
    budget.use([first])
    assert budget.reserve(second, 1.0) == [first]
    assert budget.reserve(first, 1.0 + CLAIM_S) == [second], "a claim expires if its request never comes"

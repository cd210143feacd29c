"""How many partitions are used, and that ids are found while partitions are added, against a plain model."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd.schemas.connection import KafkaConnection
from inferd.streams.kafka.partitioner import partition_of_key
from inferd.streams.kafka.used_partitions import (
    UsedPartitions,
    ancestors,
    belongs,
    since,
    topics_of,
    used_partitions,
)
from inferd.streams.settings import StreamSettings, TopicSettings

BASE = 3
SETTINGS = StreamSettings(
    KafkaConnection(), "w1", Path("unused"), namespace="ns", topics=TopicSettings(partitions=BASE), labels_window_s=60
)


@given(st.integers(1, 20), st.lists(st.integers(0, 200), max_size=4), st.integers(0, 200))
def test_more_partitions_never_mean_fewer_used(base: int, counts: list[int], more: int) -> None:
    used = used_partitions(base, counts)
    assert used == base or used <= min(counts)
    assert (used // base).bit_count() == 1
    assert used % base == 0
    grown = used_partitions(base, [count + more for count in counts])
    assert grown % used == 0


@given(st.binary(min_size=1, max_size=20), st.integers(1, 7), st.integers(0, 6))
def test_an_id_was_in_an_ancestor_of_its_partition_or_in_the_partition(key: bytes, base: int, doublings: int) -> None:
    number = partition_of_key(key, base << doublings)
    assert ancestors(number, base)[-1:] in ([], [partition_of_key(key, base)])
    for before in range(doublings):
        assert partition_of_key(key, base << before) in {number, *ancestors(number, base)}
    assert belongs(key, number, base)
    assert not ancestors(partition_of_key(key, base), base)
    assert since(number, base) <= base << doublings


def test_the_number_follows_all_topics_of_a_family_and_never_decreases() -> None:
    counts = dict.fromkeys(topics_of(SETTINGS, "default", "jobs"), 2 * BASE)
    used = UsedPartitions(SETTINGS, lambda topic: counts.get(topic, BASE))
    assert (used.of("default", "jobs"), used.of("default", "labels")) == (2 * BASE, BASE)
    assert used.most("ns.default.jobs") == used.most("ns.default.job-results") == 2 * BASE
    assert (used.most("ns.default.labels"), used.most("ns.default.requests")) == (BASE, None)
    assert used.most("ns.default.model-stats") == used.most("ns.default.rollouts") == 1
    for topic in counts:
        others = UsedPartitions(SETTINGS, lambda asked, topic=topic: BASE if asked == topic else 2 * BASE)  # type: ignore[misc]
        assert others.of("default", "jobs") == BASE, f"{topic} is needed"
    counts.clear()
    assert used.of("default", "jobs") == 2 * BASE, "a topic that was deleted moves nothing"


KEYS = [b"%d" % n for n in range(24)]


class Growing(RuleBasedStateMachine):
    """Partitions with logs and states, owners that know the number of partitions late, and handovers that are killed.

    Each id counts its messages in its state. The plain model counts what was sent. A handover is atomic for each state,
    and fences the older partition: its owner learns the number at its next message.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = BASE
        self.known = dict.fromkeys(range(BASE), BASE)
        """By partition, the number that its owner knows."""
        self.filled = set(range(BASE))
        self.log = defaultdict[int, list[bytes]](list)
        self.states = defaultdict[int, dict[bytes, int]](dict)
        self.sent = dict.fromkeys(KEYS, 0)

    @precondition(lambda self: self.count < 8 * BASE)
    @rule(doublings=st.integers(1, 2))
    def grow(self, doublings: int) -> None:
        self.count <<= doublings
        for number in range(self.count):
            self.known.setdefault(number, self.count)

    @rule(key=st.sampled_from(KEYS), by=st.integers(0, 3))
    def send(self, key: bytes, by: int) -> None:
        """A producer that knows the number, or one from before, or has another partitioner."""
        count = max(BASE, self.count >> by)
        self.log[partition_of_key(key, count) if by < 3 else len(key) % count].append(key)
        self.sent[key] += 1

    @rule(number=st.integers(0, 8 * BASE - 1), killed_after=st.integers(0, 12))
    def hand_over(self, number: int, killed_after: int) -> None:
        if number >= self.count or number in self.filled:
            return
        for old in ancestors(number, BASE):
            self.known[old] = self.count  # fenced
            for key in [key for key in self.states[old] if belongs(key, number, BASE)]:
                if not killed_after:
                    return
                killed_after -= 1
                assert key not in self.states[number]
                self.states[number][key] = self.states[old].pop(key)
        self.filled.add(number)

    @rule(number=st.integers(0, 8 * BASE - 1), learns=st.booleans())
    def take(self, number: int, learns: bool) -> None:
        """The owner of a partition takes its next message."""
        if number not in self.filled or not self.log[number]:
            return
        if learns:
            self.known[number] = self.count
        key = self.log[number].pop(0)
        home = partition_of_key(key, self.known[number])
        if home != number and key not in self.states[number]:
            self.log[home].append(key)
            return
        self.states[number][key] = self.states[number].get(key, 0) + 1

    @invariant()
    def each_id_has_one_state(self) -> None:
        holders = [key for states in self.states.values() for key in states]
        assert len(holders) == len(set(holders))

    def teardown(self) -> None:
        for number in range(self.count):
            self.hand_over(number, 10**6)
        for _ in range(10):
            for number in range(self.count):
                while self.log[number]:
                    self.take(number, learns=True)
        assert not any(self.log.values())
        total = {key: value for states in self.states.values() for key, value in states.items()}
        assert total == {key: sent for key, sent in self.sent.items() if sent}
        for number, states in self.states.items():
            assert {partition_of_key(key, self.count) for key in states} <= {number}
        super().teardown()


TestGrowing = Growing.TestCase
TestGrowing.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)

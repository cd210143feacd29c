"""The entries of a partition, and when each expires, beside a table whose changes may be dropped."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inferd.streams.labels import store as store_module
from inferd.streams.labels.join import Entry
from inferd.streams.labels.store import BUCKET_MS, LabelsPartition, encode_entry
from inferd.streams.state.stores import MemoryStore
from inferd.streams.state.tables import TablePartition

KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])


class Entries(RuleBasedStateMachine):
    """What is noted about expiry is always that of the table, also after changes were dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.partition = LabelsPartition(TablePartition("labels-changelog", 0, MemoryStore()))
        self.in_flight: list[list[tuple[bytes, bytes | None]]] = []
        self.now_ms = 0

    def write(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        self.partition.unacked.update(key for key, _ in changes)
        self.partition.table.stage(changes)
        self.in_flight.append(changes)

    @rule(keys=st.lists(KEYS, min_size=1, max_size=3, unique=True), buckets=st.integers(0, 5))
    def change(self, keys: list[bytes], buckets: int) -> None:
        entry = Entry(self.now_ms + buckets * BUCKET_MS)
        for key in keys:
            self.partition.add(key, entry)
        self.write([(key, encode_entry(entry)) for key in keys])

    @rule(most=st.integers(1, 3))
    def expire(self, most: int) -> None:
        gone = self.partition.expired(self.now_ms, most)
        assert all(self.partition.table.get(key) is not None for key in gone)
        if gone:
            self.write([(key, None) for key in gone])

    @rule()
    def acknowledge(self) -> None:
        if self.in_flight:
            changes = self.in_flight.pop(0)
            self.partition.table.apply(changes, 1)
            self.partition.acked(key for key, _ in changes)

    @rule()
    def rewind(self) -> None:
        self.in_flight.clear()
        self.partition.table.discard()
        self.partition.rewound()

    @rule(buckets=st.integers(1, 3))
    def pass_time(self, buckets: int) -> None:
        self.now_ms += buckets * BUCKET_MS

    @invariant()
    def every_entry_is_noted_where_it_expires(self) -> None:
        found = {key: entry for key in (b"a", b"b", b"c", b"d") if (entry := self.partition.get(key)) is not None}
        assert self.partition.expiry == {key: entry.expires_ms // BUCKET_MS for key, entry in found.items()}
        noted = {(number, key) for number, keys in self.partition.buckets.items() for key in keys}
        assert noted == {(number, key) for key, number in self.partition.expiry.items()}


TestEntries = Entries.TestCase
TestEntries.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_beyond_the_bound_those_that_expire_first_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "ENTRIES_MAX", 3)
    partition: Any = LabelsPartition(TablePartition("labels-changelog", 0, MemoryStore()))
    for number in range(5):
        partition.add(b"%d" % number, Entry((10 - number) * BUCKET_MS))
    assert partition.expired(0, 10) == [b"4", b"3"]
    assert partition.expired(0, 10) == []

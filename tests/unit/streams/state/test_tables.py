"""Tables of a lane: changes in flight are read before acknowledged ones; Faust neither reads nor recovers them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from faust.stores.base import Store
from faust.tables import recovery
from faust.tables.manager import TableManager
from faust.transport.consumer import Consumer
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.connection import KafkaConnection
from inferd.streams.faust_app import create_app
from inferd.streams.group.consumer import LaneConsumer
from inferd.streams.kafka.changelogs import changelog_name
from inferd.streams.settings import StreamSettings, TopicSettings
from inferd.streams.state.stores import MemoryStores
from inferd.streams.state.tables import LaneTable, TablePartition, make_table

KEYS = st.sampled_from([b"a", b"b", b"c"])
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=2)), max_size=4)


@pytest.fixture
async def table(tmp_path: Path) -> LaneTable:
    settings = StreamSettings(KafkaConnection(), "w1", tmp_path, topics=TopicSettings(partitions=3))
    return make_table(create_app(settings), settings, "default", "predictions", None)


@given(st.lists(st.tuples(CHANGES, st.booleans()), max_size=8), st.booleans())
def test_changes_in_flight_are_read_and_discarded_ones_are_not(
    batches: list[tuple[list[tuple[bytes, bytes | None]], bool]], discarded: bool
) -> None:
    """In-flight batches are staged in order and acknowledged in order; `True` means that the oldest is acknowledged
    after this one."""
    partition = TablePartition("changelog", 0, MemoryStores().open(0))
    newest: dict[bytes, bytes | None] = {}
    acked: dict[bytes, bytes | None] = {}
    waiting: list[list[tuple[bytes, bytes | None]]] = []
    offset = 0
    for changes, is_acked in batches:
        partition.stage(changes)
        waiting.append(changes)
        newest.update(changes)
        if is_acked:
            oldest = waiting.pop(0)
            offset += len(oldest)
            partition.apply(oldest, offset)
            acked.update(oldest)
        keys = [b"a", b"b", b"c"]
        assert partition.get_many(keys) == [partition.get(key) for key in keys] == [newest.get(key) for key in keys]
    if discarded:
        partition.discard()
        assert partition.pending == 0
        assert [partition.get(key) for key in (b"a", b"b", b"c")] == [acked.get(key) for key in (b"a", b"b", b"c")]
    assert dict(partition.store.items()) == {key: value for key, value in acked.items() if value is not None}


def test_discarded_changes_that_are_acknowledged_later_remain_in_the_changelog() -> None:
    partition = TablePartition("changelog", 0, MemoryStores().open(0))
    partition.stage([(b"a", b"1")])
    partition.discard()
    partition.apply([(b"a", b"1")], 7)
    assert (partition.get(b"a"), partition.store.offset, partition.pending) == (b"1", 7, 0)


async def test_a_table_is_fausts_by_name_and_changelog(table: LaneTable) -> None:
    assert table.name == "default.predictions"
    assert table.changelog == table.changelog_topic_name == changelog_name("inferd", "default", "predictions")
    assert table.app.tables[table.name] is table


async def test_partitions_that_stay_assigned_keep_their_entries(table: LaneTable) -> None:
    first, second = await table.retain({0, 1})
    second.restore([(b"a", b"1")], 3)
    (kept, new) = await table.retain({1, 2})
    assert kept is second
    assert (kept.get(b"a"), kept.store.offset) == (b"1", 3)
    assert (new.number, new.store.offset) == (2, None)
    assert set(table.owned) == {1, 2}
    await table.reopen(kept)
    assert (kept.get(b"a"), kept.store.offset) == (None, None)
    await table.close()
    assert table.owned == {}
    assert first.number == 0


async def test_the_mapping_reads_all_owned_partitions_and_cannot_be_written(table: LaneTable) -> None:
    first, second = await table.retain({0, 1})
    first.restore([(b"a", b"1")], 0)
    second.restore([(b"b", b"2")], 0)
    store: Any = table.data
    assert (store[b"a"], store[b"b"], len(store), set(store)) == (b"1", b"2", 2, {b"a", b"b"})
    assert b"a" in store
    assert b"c" not in store
    with pytest.raises(KeyError):
        store[b"c"]
    with pytest.raises(TypeError):
        store[b"a"] = b"2"
    with pytest.raises(TypeError):
        del store[b"a"]


async def test_faust_recovers_and_seeks_nothing(table: LaneTable) -> None:
    """The overridden methods exist in Faust, and behave in the way that makes overriding them necessary."""
    manager = table.app.tables
    assert not manager
    assert manager.changelog_topics == set(), "or the group's consumer would read changelogs"
    assert "if not self.tables or" in inspect.getsource(recovery)
    assert "await self.sleep(1.0)" in inspect.getsource(TableManager.on_start)
    assert "self.app.topics.add(chan)" in inspect.getsource(TableManager._update_channels)
    assert "consumer.perform_seek()" in inspect.getsource(recovery.Recovery._resume_streams)
    assert "await self.seek_to_committed()" in inspect.getsource(Consumer.perform_seek)
    assert "await" not in inspect.getsource(LaneConsumer.perform_seek)
    assert issubclass(type(table.data), Store)

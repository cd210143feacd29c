"""States that move to new partitions: all of them, once, however often it is killed."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from inferd.schemas.connection import KafkaConnection
from inferd.streams.kafka import UNCHECKED, belongs
from inferd.streams.kafka.partitioner import partition_of_key
from inferd.streams.lane import handover as module
from inferd.streams.lane.handover import Handover, KeyedTable, Move
from inferd.streams.settings import StreamSettings, TopicSettings

BASE = 2
KEYS = [b"id-%d" % n for n in range(64)]
SETTINGS = StreamSettings(KafkaConnection(), "w", Path("unused"), topics=TopicSettings(partitions=BASE))


class Kafka:
    """Changelogs, committed offsets, and who may write; fails before the n-th write."""

    def __init__(self) -> None:
        self.logs = defaultdict[tuple[str, int], dict[bytes, bytes]](dict)
        self.offsets = dict[TopicPartition, int]()
        self.fences = list[int]()
        self.fails_at = -1
        self.written = itertools.count()
        for key in KEYS:
            self.logs["changelog", partition_of_key(key, BASE)][key] = b"state of " + key

    async def fence(self, outputs: Mapping[TopicPartition, Any]) -> None:
        self.fences += [tp.partition for tp in outputs]

    async def release(self, _tps: Any) -> None: ...

    async def write(
        self, _tp: Any, records: Mapping[tuple[str, int], Sequence[Any]], offsets: Mapping[Any, Any]
    ) -> None:
        if next(self.written) == self.fails_at:
            raise ConnectionError("killed")
        for place, each in records.items():
            for key, value, _ in each:
                self.logs[place].pop(key, None)
                if value is not None:
                    self.logs[place][key] = value
        self.offsets |= {tp: offset.offset for tp, offset in offsets.items()}

    def offset_of(self, _tp: TopicPartition, offset: int, _topic_id: str) -> OffsetAndMetadata:
        return OffsetAndMetadata(offset, "")

    async def run(self, owned: Any) -> None:
        ((_, partition),) = owned
        partition.store.write(list(self.logs["changelog", partition.number].items()), 1)

    async def committed(self, _consumer: Any, tps: Any, _topics: Any) -> set[TopicPartition]:
        return set(tps) & self.offsets.keys()

    @property
    def states(self) -> list[bytes]:
        return [key for (topic, _), log in self.logs.items() if topic == "changelog" for key in log]


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()
    monkeypatch.setattr(module, "committed", kafka.committed)
    monkeypatch.setattr(module, "TRANSACTION_BYTES", 500)
    return kafka


def handover(kafka: Kafka) -> Handover:
    """That of a worker that has just started."""
    table: Any = SimpleNamespace(name="t", changelog="changelog")
    move = KeyedTable(
        table, ("jobs", "job-results"), lambda key, value, old, _new: Move(value + b", %d" % old), lambda: 4 * BASE
    )
    topics: Any = SimpleNamespace(id_of=lambda _topic: "")
    made = Handover(SETTINGS, topics, [move], UNCHECKED)
    made._once = made._restore = kafka  # type: ignore[assignment]
    return made


async def fill(made: Handover, number: int) -> None:
    tps = [TopicPartition(topic, number) for topic in ("jobs", "job-results", "requests")]
    await made.run(tps, lambda _tp: [], None)  # type: ignore[arg-type]


async def test_a_new_partition_gets_its_states_and_old_ones_keep_theirs(kafka: Kafka) -> None:
    made = handover(kafka)
    for number in range(2 * BASE):
        await fill(made, number)
    assert sorted(kafka.states) == sorted(KEYS)
    for number in range(2 * BASE):
        assert {partition_of_key(key, 2 * BASE) for key in kafka.logs["changelog", number]} == {number}
    assert kafka.fences == [0, 1]
    assert dict.fromkeys(kafka.offsets, 0) == kafka.offsets
    assert len(kafka.offsets) == 4, "of both topics"
    for again in (made, handover(kafka)):
        await fill(again, 2)
    assert kafka.fences == [0, 1], "a committed offset says that it has its states"


async def test_an_owner_that_was_fenced_notices_without_writing(kafka: Kafka) -> None:
    old, other = handover(kafka), handover(kafka)
    owned = [TopicPartition(topic, number) for topic in ("jobs", "job-results", "requests") for number in (0, 2)]
    consumer: Any = None
    await old.run(owned, lambda _tp: [], consumer)
    assert await old.left(owned, consumer) == set(), "it has filled partition 2 itself"
    await fill(other, 3)
    assert await old.left(owned, consumer) == set(), "that one had states of partition 1"
    await fill(other, 6)
    assert await old.left(owned, consumer) == {"jobs"}
    await old.run(owned, lambda _tp: [], consumer)
    assert await old.left(owned, consumer) == set()


@pytest.mark.parametrize("order", [(2, 3, 4, 5, 6, 7), (7, 6, 5, 4, 3, 2), (5, 2, 7, 3, 4, 6)])
async def test_partitions_are_filled_in_any_order(kafka: Kafka, order: Sequence[int]) -> None:
    for number in order:
        await fill(handover(kafka), number)
    assert sorted(kafka.states) == sorted(KEYS)
    for number in range(4 * BASE):
        assert {partition_of_key(key, 4 * BASE) for key in kafka.logs["changelog", number]} <= {number}


async def test_a_kill_between_two_transactions_leaves_each_state_in_one_place(kafka: Kafka) -> None:
    kafka.fails_at = 1
    with pytest.raises(ConnectionError):
        await fill(handover(kafka), 2)
    assert sorted(kafka.states) == sorted(KEYS)
    assert any(belongs(key, 2, BASE) for key in kafka.logs["changelog", 0]), "some are left"
    assert kafka.logs["changelog", 2]
    assert not kafka.offsets
    await fill(handover(kafka), 2)
    assert sorted(kafka.states) == sorted(KEYS)
    assert not any(belongs(key, 2, BASE) for key in kafka.logs["changelog", 0])
    assert set(kafka.logs["changelog", 2].values()) == {
        b"state of " + key + b", 0" for key in KEYS if partition_of_key(key, 4) == 2
    }

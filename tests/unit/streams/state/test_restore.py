"""Restoring tables from changelogs: the event loop runs in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from inferd.schemas.connection import KafkaConnection
from inferd.streams.faust_app import create_app
from inferd.streams.settings import StreamSettings, TopicSettings
from inferd.streams.state import Restore, make_table
from inferd.streams.state import restore as restore_module

RECORDS = 12


class FakeConsumer:
    """A consumer that has fetched all records of all partitions, so that no call suspends."""

    def __init__(self, **_: Any) -> None:
        self.polls = list[int]()
        self._positions = dict[TopicPartition, int]()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, tps: Sequence[TopicPartition]) -> None: ...

    async def beginning_offsets(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 0)

    async def end_offsets(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, RECORDS)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._positions[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        return self._positions[tp]

    async def getmany(self, *tps: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, Any]:
        tp, first = tps[0], self._positions[tps[0]]
        self._positions[tp] = last = min(first + max_records, RECORDS)
        self.polls.append(last - first)
        return {tp: [record(tp, offset) for offset in range(first, last)]}


def record(tp: TopicPartition, offset: int) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord(tp.topic, tp.partition, offset, 1, 0, b"%d" % offset, b"v", None, 1, 1, ())


async def test_the_event_loop_runs_after_each_poll_even_if_all_records_have_been_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    consumer = FakeConsumer()
    monkeypatch.setattr(restore_module, "AIOKafkaConsumer", lambda **_: consumer)
    monkeypatch.setattr(restore_module, "RECORDS_MAX", 4)
    settings = StreamSettings(KafkaConnection(), "w1", tmp_path, "ns", topics=TopicSettings(partitions=2))
    table = make_table(create_app(settings), settings, "default", "jobs", None)
    owned = [(table, partition) for partition in await table.retain({0, 1})]
    polls_seen = list[int]()

    async def watch() -> None:
        while True:
            polls_seen.append(len(consumer.polls))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await Restore(settings, lambda: None).run(owned)
    watching.cancel()
    assert consumer.polls == [4, 4, 4] * 2
    assert {*range(1, 7)} <= {*polls_seen}
    assert [len(partition.store) for _, partition in owned] == [RECORDS, RECORDS]

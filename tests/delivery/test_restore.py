"""Tables are restored from their changelogs exactly to the committed state, whatever the last records of the changelog
are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from inferd.schemas.connection import KafkaConnection
from inferd.streams.faust_app import create_app
from inferd.streams.kafka.changelogs import changelog_config
from inferd.streams.settings import (
    CacheSettings,
    GroupSettings,
    Store,
    StreamSettings,
    TopicSettings,
)
from inferd.streams.state.restore import Restore
from inferd.streams.state.tables import LaneTable, make_table

N = 2
"""Partitions."""


class Changelog:
    """A table, and the records written to its changelog."""

    def __init__(self, kafka: str, namespace: str, directory: Path, store: Store = "memory") -> None:
        self.kafka = kafka
        self.settings = StreamSettings(
            KafkaConnection(bootstrap_servers=kafka),
            "w1",
            directory,
            group=GroupSettings(group_id=namespace),
            topics=TopicSettings(partitions=N),
            cache=CacheSettings(store=store),
        )
        self.table = self.new_table(directory)
        config = dict(changelog_config("predictions", 3_600))
        topic = NewTopic(self.table.changelog, N, 1, config=config)
        admin = AdminClient({"bootstrap.servers": kafka})
        for created in admin.create_topics([topic]).values():
            created.result(30)
        self.progress = 0

    def new_table(self, directory: Path) -> LaneTable:
        """The table as opened by another process."""
        kept = directory if self.settings.cache.store == "rocksdb" else None
        return make_table(create_app(self.settings), self.settings, "default", "predictions", kept)

    async def restore(self, table: LaneTable, *numbers: int) -> dict[bytes, bytes]:
        """The entries of these partitions, restored."""
        owned = [(table, partition) for partition in await table.retain(set(numbers))]
        await asyncio.wait_for(Restore(self.settings, self._progressed).run(owned), 30)
        return {key: value for partition in table.owned.values() for key, value in partition.store.items()}

    async def write(self, number: int, *changes: tuple[bytes, bytes | None], abort: bool = False) -> None:
        """One transaction."""
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, transactional_id=f"{self.table.changelog}-{number}")
        await producer.start()
        await producer.begin_transaction()
        for key, value in changes:
            await producer.send_and_wait(self.table.changelog, value, key, number)
        await (producer.abort_transaction() if abort else producer.commit_transaction())
        await producer.stop()

    def _progressed(self) -> None:
        self.progress += 1


@pytest.fixture(params=["memory", "rocksdb"])
async def changelog(
    request: pytest.FixtureRequest, kafka: str, namespace: str, tmp_path: Path
) -> AsyncIterator[Changelog]:
    made = Changelog(kafka, namespace, tmp_path, request.param)
    yield made
    await made.table.close()


async def test_an_empty_changelog_is_restored_at_once(changelog: Changelog) -> None:
    assert await changelog.restore(changelog.table, 0, 1) == {}


async def test_exactly_the_committed_records_are_restored(changelog: Changelog) -> None:
    await changelog.write(0, (b"a", b"1"), (b"b", b"2"))
    await changelog.write(0, (b"a", b"3"), (b"b", None), (b"c", b"4"))
    await changelog.write(1, (b"d", b"5"))
    await changelog.write(0, (b"a", b"never"), (b"e", b"never"), abort=True)
    assert await changelog.restore(changelog.table, 0, 1) == {b"a": b"3", b"c": b"4", b"d": b"5"}


async def test_a_changelog_that_ends_in_aborted_records_and_markers_does_not_hang(changelog: Changelog) -> None:
    for _ in range(3):
        await changelog.write(0, (b"x", b"never"), abort=True)
    assert await changelog.restore(changelog.table, 0, 1) == {}


async def test_a_partition_that_stays_assigned_reads_only_new_records(changelog: Changelog) -> None:
    await changelog.write(0, (b"a", b"1"))
    await changelog.write(1, (b"b", b"1"))
    await changelog.restore(changelog.table, 0, 1)
    await changelog.write(0, (b"a", b"2"))
    read_before = changelog.progress
    assert await changelog.restore(changelog.table, 0) == {b"a": b"2"}
    assert changelog.progress == read_before + 1


async def test_a_store_older_than_the_start_of_the_log_is_rebuilt(changelog: Changelog) -> None:
    await changelog.write(0, (b"a", b"1"))
    await changelog.restore(changelog.table, 0)
    partition = changelog.table.partition(0)
    partition.restore([(b"stale", b"1")], 10_000)
    assert await changelog.restore(changelog.table, 0) == {b"a": b"1"}


async def test_records_in_rocksdb_are_not_read_again(kafka: str, namespace: str, tmp_path: Path) -> None:
    changelog = Changelog(kafka, namespace, tmp_path, "rocksdb")
    await changelog.write(0, (b"a", b"1"))
    await changelog.restore(changelog.table, 0)
    await changelog.table.close()
    again = changelog.new_table(tmp_path)
    read_before = changelog.progress
    assert await changelog.restore(again, 0) == {b"a": b"1"}
    assert changelog.progress == read_before
    await again.close()


async def test_a_corrupted_directory_is_rebuilt(kafka: str, namespace: str, tmp_path: Path) -> None:
    changelog = Changelog(kafka, namespace, tmp_path, "rocksdb")
    await changelog.write(0, *((b"k%d" % n, b"v" * 100) for n in range(200)))
    expected: Any = await changelog.restore(changelog.table, 0)
    await changelog.table.close()
    for path in (tmp_path / changelog.table.name / "0").glob("*"):
        if path.is_file() and path.suffix in (".sst", ".log", ""):
            data = bytearray(path.read_bytes())
            data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
            path.write_bytes(data)
    again = changelog.new_table(tmp_path)
    assert await changelog.restore(again, 0) == expected
    await again.close()

"""Incremental fetch sessions with a real broker: nothing is skipped or read twice, whatever becomes of a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

from inferd.schemas.connection import KafkaConnection
from inferd.streams.connection import client_options
from inferd.streams.connection.fetch_sessions import SessionRequest
from inferd.streams.connection.fetcher import SessionFetcher

pytestmark = pytest.mark.delivery

PARTITIONS = 40
TIMEOUT_S = 30


class Wire:
    """Counts what fetch requests name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.named: list[int] = []
        build = SessionRequest.build

        def counted(request: SessionRequest, version: Any) -> Any:
            struct = build(request, version)
            self.named.append(sum(len(parts) for _, parts in struct.topics))
            return struct

        monkeypatch.setattr(SessionRequest, "build", counted)


class Topic:
    """A topic with a consumer of all of its partitions."""

    def __init__(self, name: str, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer) -> None:
        self.name, self.producer, self.consumer = name, producer, consumer
        self.sent: dict[int, list[bytes]] = {}

    async def send(self, number: int, value: bytes) -> None:
        await self.producer.send_and_wait(self.name, value, partition=number)
        self.sent.setdefault(number, []).append(value)

    async def read(self, count: int) -> dict[int, list[bytes]]:
        """The next `count` values, by partition."""
        found: dict[int, list[bytes]] = {}
        async with asyncio.timeout(TIMEOUT_S):
            while sum(map(len, found.values())) < count:
                for tp, records in (await self.consumer.getmany(timeout_ms=200)).items():
                    found.setdefault(tp.partition, []).extend(bytes(record.value or b"") for record in records)
        return found


@asynccontextmanager
async def open_topic(kafka: str, name: str, partitions: int = PARTITIONS) -> AsyncIterator[Topic]:
    options = client_options(KafkaConnection(kafka))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1)])
    await admin.close()
    consumer = AIOKafkaConsumer(**options, auto_offset_reset="earliest", enable_auto_commit=False)
    async with consumer, AIOKafkaProducer(**options) as producer:
        consumer.assign([TopicPartition(name, number) for number in range(partitions)])
        yield Topic(name, producer, consumer)


async def test_lone_records_are_fetched_by_requests_that_name_few_partitions(
    kafka: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(monkeypatch)
    async with open_topic(kafka, namespace) as topic:
        for number in range(PARTITIONS):
            await topic.send(number, b"first")
        assert await topic.read(PARTITIONS) == topic.sent
        wire.named.clear()
        for number in range(PARTITIONS):
            await topic.send(number, b"%d" % number)
            assert await topic.read(1) == {number: [b"%d" % number]}
        assert sum(wire.named) / len(wire.named) <= 2


async def test_seeks_pauses_and_ends_are_followed(kafka: str, namespace: str) -> None:
    async with open_topic(kafka, namespace, 3) as topic:
        tp = TopicPartition(topic.name, 1)
        for number in (0, 1, 1, 2):
            await topic.send(number, b"v%d" % number)
        assert await topic.read(4) == topic.sent
        for _ in range(5):
            topic.consumer.seek(tp, 0)
            assert await topic.read(2) == {1: [b"v1", b"v1"]}
        topic.consumer.pause(tp)
        await topic.send(1, b"paused")
        await topic.send(2, b"flows")
        assert await topic.read(1) == {2: [b"flows"]}
        topic.consumer.resume(tp)
        assert await topic.read(1) == {1: [b"paused"]}
        assert [topic.consumer.highwater(TopicPartition(topic.name, number)) for number in range(3)] == [1, 3, 2]


@pytest.mark.parametrize("fault", ["unknown session", "epoch out of step", "unread response"])
async def test_a_session_that_is_lost_is_replaced(kafka: str, namespace: str, fault: str) -> None:
    async with open_topic(kafka, namespace, 5) as topic:
        for number in range(5):
            await topic.send(number, b"first")
        assert await topic.read(5) == topic.sent
        fetcher: Any = topic.consumer._fetcher
        for turn in range(3):
            (session,) = fetcher._sessions.values()
            if fault == "unknown session":
                session.id = 1
            elif fault == "epoch out of step":
                session._epoch += 7
            else:
                session.request({})
            await topic.send(turn, b"next")
            assert await topic.read(1) == {turn: [b"next"]}


async def test_new_partitions_join_the_session(kafka: str, namespace: str) -> None:
    async with open_topic(kafka, namespace, 2) as topic:
        await topic.send(0, b"first")
        assert await topic.read(1) == topic.sent
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        await admin.create_partitions({topic.name: NewPartitions(4)})
        await admin.close()
        topic.consumer.assign([TopicPartition(topic.name, number) for number in range(4)])
        topic.consumer.seek(TopicPartition(topic.name, 0), 1)
        async with asyncio.timeout(TIMEOUT_S):
            while 3 not in await topic.producer.partitions_for(topic.name):
                await topic.producer.client.force_metadata_update()
        await topic.send(3, b"new")
        assert await topic.read(1) == {3: [b"new"]}


async def test_unread_bulk_records_do_not_delay_other_topics(
    kafka: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk = f"{namespace}.bulk"
    monkeypatch.setattr(SessionFetcher, "bulk_topics", {bulk})
    async with open_topic(kafka, namespace, 2) as topic, open_topic(kafka, bulk, 2) as large:
        for number in range(2):
            await large.send(number, bytes(900_000))
        lone = [TopicPartition(topic.name, number) for number in range(2)]
        topic.consumer.assign([*lone, *(TopicPartition(bulk, number) for number in range(2))])
        for turn in range(20):
            await topic.send(turn % 2, b"%d" % turn)
            async with asyncio.timeout(TIMEOUT_S):
                while not (fetched := await topic.consumer.getmany(*lone, timeout_ms=200)):
                    pass
            assert [record.value for records in fetched.values() for record in records] == [b"%d" % turn]
        groups = {group for _, group in topic.consumer._client._conns}
        assert len(groups) == 2

"""After a failed batch, the producer fails each later batch of that partition: none is sent, none stays pending."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.producer.sender import SendProduceReqHandler

from inferd.streams.kafka import producer as publish

REFUSED, TAKEN, GIVEN_UP = TopicPartition("results", 0), TopicPartition("results", 1), TopicPartition("results", 2)
NODE = 1


class Batch:
    """The attributes of a batch that aiokafka's sender uses."""

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def failure(self, error: BaseException) -> None:
        self.future.set_exception(error)


class Sender:
    """Sends batches through aiokafka's sender; `answer` plays the broker's part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.producer: Any = AIOKafkaProducer(enable_idempotence=True)
        publish._fail_after_a_failure(self.producer)
        self.to_broker: list[set[TopicPartition]] = []
        self.monkeypatch = monkeypatch

    async def send(self, batches: dict[TopicPartition, Batch], answer: Any) -> None:
        async def do(handler: Any, _node_id: int) -> None:
            self.to_broker.append(set(handler._batches))
            answer(handler._batches)

        self.monkeypatch.setattr(SendProduceReqHandler, "do", do)
        sender = self.producer._sender
        sender._in_flight.add(NODE)
        sender._muted_partitions.update(batches)
        await sender._send_produce_req(NODE, batches)
        assert not sender._in_flight
        assert not sender._muted_partitions, "no partition waits forever"


async def test_a_partition_fails_every_batch_after_a_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(monkeypatch)
    refused = MessageSizeTooLargeError()

    def first(batches: dict[TopicPartition, Batch]) -> None:
        batches[REFUSED].future.set_exception(refused)
        batches[TAKEN].future.set_result(None)
        batches[GIVEN_UP].future.cancel()

    def take(batches: dict[TopicPartition, Batch]) -> None:
        for batch in batches.values():
            batch.future.set_result(None)

    await sender.send({REFUSED: Batch(), TAKEN: Batch(), GIVEN_UP: Batch()}, first)
    later = {REFUSED: Batch(), TAKEN: Batch(), GIVEN_UP: Batch()}
    await sender.send(later, take)
    alone = {REFUSED: Batch()}
    await sender.send(alone, take)
    assert sender.to_broker == [{REFUSED, TAKEN, GIVEN_UP}, {TAKEN}]
    assert later[REFUSED].future.exception() is alone[REFUSED].future.exception() is refused
    assert isinstance(later[GIVEN_UP].future.exception(), KafkaError)
    assert later[TAKEN].future.exception() is None
    sender.producer._closed = True  # it was never started


async def test_a_producer_that_cannot_deliver_leaves_no_task_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "CLOSE_TIMEOUT_S", 0.05)
    producer: Any = AIOKafkaProducer(enable_idempotence=True)
    producer._sender._sender_task = asyncio.create_task(asyncio.Event().wait())
    undelivered = Batch()
    producer._message_accumulator._batches[TAKEN].append(undelivered)
    await publish.close_producer(producer)
    assert isinstance(undelivered.future.exception(), KafkaError)
    async with asyncio.timeout(20):
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110  # tasks of the library, to which there is no reference
            await asyncio.sleep(0)

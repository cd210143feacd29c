"""What a producer of ours sends after a batch that the broker refused: nothing more to that partition."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.producer.sender import SendProduceReqHandler

from streams import publish

REFUSED, TAKEN, GIVEN_UP = TopicPartition("results", 0), TopicPartition("results", 1), TopicPartition("results", 2)


class Batch:
    """What aiokafka's sender holds of a batch."""

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


async def test_a_partition_that_refused_a_batch_takes_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    producer: Any = AIOKafkaProducer(enable_idempotence=True)
    publish._hold_partitions_that_failed(producer)
    batches = {REFUSED: Batch(), TAKEN: Batch(), GIVEN_UP: Batch()}

    async def answer(_handler: Any, _node_id: int) -> None:
        batches[REFUSED].future.set_exception(MessageSizeTooLargeError())
        batches[TAKEN].future.set_result(None)
        batches[GIVEN_UP].future.cancel()

    monkeypatch.setattr(SendProduceReqHandler, "do", answer)
    sender = producer._sender
    sender._in_flight.add(1)
    sender._muted_partitions.update(batches)
    await sender._send_produce_req(1, batches)
    assert sender._muted_partitions == {REFUSED, GIVEN_UP}
    assert not sender._in_flight
    producer._closed = True  # it was never started

"""Publishes rejected model records as dead letters, once per consumer group."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import BrokerResponseError

from inferd.schemas.errors import ModelServingError
from inferd.schemas.topics import TenantTopics, tenant_of_topic
from inferd.streams.kafka import (
    close_producer,
    open_producer,
    produce,
    producer_options,
)
from inferd.streams.lane import PUBLISH_ERRORS, dead_letter_of, outgoing_of
from inferd.streams.settings import StreamSettings

log = structlog.get_logger(__name__)

ModelRecord = ConsumerRecord[bytes | None, bytes | None]
OnRejected = Callable[[ModelRecord, ModelServingError], None]
WAITING_MAX = 1_000
RETRY_S = 2.0


class Rejections:
    """Rejected records to publish. Every worker rejects the same records; only the leader publishes them.

    A worker that joins reads all records again. Those before its start were rejected earlier, and are not published
    again.
    """

    def __init__(self, settings: StreamSettings, leads: Callable[[str], bool]) -> None:
        """`leads`: whether this worker is the group's leader for a tenant now."""
        self._settings = settings
        self._leads = leads
        self._waiting: deque[tuple[ModelRecord, ModelServingError]] = deque()
        self._arrived = asyncio.Event()
        self._live = False

    def reject(self, record: ModelRecord, error: ModelServingError) -> None:
        """Queues a rejected record for publication, if it arrived after the start and this worker is the leader."""
        if not (self._live and self._leads(tenant_of_topic(record.topic))):
            return
        if len(self._waiting) >= WAITING_MAX:
            log.error("rejection_dropped", topic=record.topic, offset=record.offset, reason="too many wait")
            return
        self._waiting.append((record, error))
        self._arrived.set()

    async def run(self) -> None:
        """Publishes records that are rejected after this call, until cancelled."""
        self._live = True
        while True:
            await self._arrived.wait()
            try:
                await self._publish_all()
            except PUBLISH_ERRORS as failure:
                if isinstance(failure, BrokerResponseError) and not failure.retriable:
                    self._drop_first(failure)
                    continue
                log.warning("rejections_unpublished", waiting=len(self._waiting), error=type(failure).__name__)
                await asyncio.sleep(RETRY_S)

    async def _publish_all(self) -> None:
        producer = await open_producer(producer_options(self._settings), self._settings.group.request_timeout_s)
        try:
            while self._waiting:
                await self._publish(producer, *self._waiting[0])
                self._waiting.popleft()
            self._arrived.clear()
        finally:
            await close_producer(producer)

    async def _publish(self, producer: AIOKafkaProducer, record: ModelRecord, error: ModelServingError) -> None:
        letter = dead_letter_of(record, TopicPartition(record.topic, record.partition), error, self._settings.worker_id)
        topic = TenantTopics(self._settings.namespace, tenant_of_topic(record.topic)).name("dead-letters")
        outgoing = outgoing_of(letter, self._settings.limits.dead_letter_bytes_max)
        # Sent as a batch: the producer's `send` refuses a record without key and value, and limits records to a
        # megabyte.
        for future in await produce(producer, topic, record.partition, [outgoing], int(time.time() * 1000)):
            await future

    def _drop_first(self, failure: BrokerResponseError) -> None:
        """Drops the first record: the broker will never accept it, and it must not block those behind it."""
        record, _ = self._waiting.popleft()
        log.error("rejection_dropped", topic=record.topic, offset=record.offset, reason=type(failure).__name__)

"""Publishes results of shadow versions, outside of transactions: whatever fails there is dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from inferd.streams.kafka import (
    Destinations,
    Outgoing,
    close_producer,
    fill_batches,
    open_producer,
    producer_options,
    send_batches,
)
from inferd.streams.settings import StreamSettings

log = structlog.get_logger(__name__)

RETRY_S: Final = 5.0
"""How long nothing is sent after a failure."""
Batches = Sequence[Any]
"""Filled record batches of aiokafka."""


class ShadowPublisher:
    """A producer of its own, which is opened for the first results."""

    def __init__(
        self, settings: StreamSettings, destinations: Destinations, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock`: seconds."""
        self._options = {**producer_options(settings), "client_id": f"inferd-{settings.worker_id}-shadow"}
        self._timeout_s = settings.group.request_timeout_s
        self._destinations = destinations
        self._clock = clock
        self._producer: AIOKafkaProducer | None = None
        self._closed_until = 0.0
        self._failing = False

    async def open(self) -> bool:
        """Whether records can be sent now; opens the producer if necessary."""
        if self._producer is None and self._clock() >= self._closed_until:
            try:
                self._producer = await open_producer(self._options, self._timeout_s)
            except (KafkaError, OSError) as error:
                await self._fail(error)
        return self._producer is not None

    def fits(self, topic: str, outgoing: Outgoing) -> bool:
        """Whether the topic accepts a record of this size."""
        return self._destinations.rejection(topic, outgoing) is None

    def fill(self, topic: str, records: Sequence[Outgoing]) -> Batches:
        """Encodes records; may be called in a thread. Only after `open` returned True."""
        if self._producer is None or not records:
            return ()
        return fill_batches(self._producer, records, int(time.time() * 1000), self._destinations.bytes_max(topic))

    async def send(self, topic: str, partition: int, batches: Batches) -> bool:
        """Sends filled batches; whether all were acknowledged. `partition`: of the request; any number."""
        if self._producer is None:
            return False
        number = max(0, partition) % max(1, self._destinations[topic].partitions)
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*await send_batches(self._producer, topic, number, batches))
        except (KafkaError, OSError) as error:
            await self._fail(error)
            return False
        self._failing = False
        return True

    async def close(self) -> None:
        """Closes the producer; what was not delivered is dropped."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer)

    async def _fail(self, error: BaseException) -> None:
        if not self._failing:
            log.warning("shadow_results_dropped", error=type(error).__name__, reason=str(error)[:200])
        self._failing = True
        self._closed_until = self._clock() + RETRY_S
        await self.close()

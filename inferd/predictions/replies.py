"""Reads the tenant's results topic and matches its records to the pending requests."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Event, Task
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from inferd.cluster import Cluster, codec_of_record
from inferd.errors import ClientClosedError
from inferd.predictions.pending import PendingRequests

logger = logging.getLogger(__name__)

POLL_MS = 1_000


class Replies:
    """A consumer without a group that starts at the end of the topic, before the first request is sent."""

    def __init__(self, cluster: Cluster, pending: PendingRequests) -> None:
        self._cluster = cluster
        self._pending = pending
        self._task: Task[None] | None = None

    async def start(self, partitions: Sequence[int]) -> None:
        """Start reading at the end of `partitions`; returns once the position is set."""
        positioned = Event()
        task = asyncio.create_task(self._read(partitions, positioned), name="inferd-replies")
        waiting = asyncio.create_task(positioned.wait())
        try:
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
        except BaseException:
            await _cancelled(task)
            raise
        finally:
            await _cancelled(waiting)
        self._task = task

    async def stop(self) -> None:
        """Stop reading; pending requests fail."""
        task, self._task = self._task, None
        if task is not None:
            await _cancelled(task)
        self._pending.fail_all(ClientClosedError("the client was closed before the result arrived"))

    @property
    def running(self) -> bool:
        """Whether results are being read."""
        return self._task is not None and not self._task.done()

    async def _read(self, partitions: Sequence[int], positioned: Event) -> None:
        try:
            async with self._cluster.consumer("results", partitions) as consumer:
                await _seek_to_end(consumer)
                positioned.set()
                await self._hand_out(consumer)
        except Exception as error:
            self._pending.fail_all(error)
            if not positioned.is_set():
                raise
            logger.warning("reading results stopped: %s", error)

    async def _hand_out(self, consumer: AIOKafkaConsumer) -> None:
        take = self._pending.take
        while True:
            batches = await consumer.getmany(timeout_ms=POLL_MS)
            for records in batches.values():
                for record in records:
                    take(record.value, codec_of_record(record.headers))


async def _seek_to_end(consumer: AIOKafkaConsumer) -> None:
    ends: dict[TopicPartition, int] = await consumer.end_offsets(list(consumer.assignment()))
    for partition, offset in ends.items():
        consumer.seek(partition, offset)


async def _cancelled(task: Task[object]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

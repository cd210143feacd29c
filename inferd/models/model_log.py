"""The topics `models` and `model-artifacts` of a tenant."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer

from inferd.cluster import FAULTS, Cluster, codec_of_record
from inferd.models.changes import Records
from inferd.models.model_list import ModelList
from inferd.schemas.limits import Limits
from inferd.schemas.topics import Stream

POLL_MS = 200
FETCH_WAIT_MS = 20


class ModelLog:
    """Reads and writes the topics of models; its consumer connects at the first read, and stays connected."""

    def __init__(self, cluster: Cluster, limits: Limits) -> None:
        self._cluster, self._limits = cluster, limits
        self._consumer: AIOKafkaConsumer | None = None
        self._written = -1
        """Offset of the last record that was written to `models`."""
        self._reading = asyncio.Lock()

    async def stop(self) -> None:
        """Disconnect."""
        self._written = -1  # by the next read, the topic may be another one
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def read(self, timeout_s: float) -> ModelList:
        """The models of the tenant, from the whole log as it is now.

        Everything that this client has written is part of it. A rollout may have a transaction open: until it ends,
        only records before it can be read, so that the read waits for it.
        """
        async with self._reading:
            try:
                self._consumer = self._consumer or await self._connect()
                async with asyncio.timeout(timeout_s):
                    return await self._read_to_end(self._consumer, ModelList(limits=self._limits))
            except BaseException as error:
                await self.stop()
                if isinstance(error, FAULTS):
                    raise self._cluster.typed(error, "reading the models") from error
                raise

    async def write(self, stream: Stream, records: Records) -> None:
        """Write records in order; returns once all are acknowledged."""
        sent = [await self._cluster.send(stream, key=str(key).encode(), value=value) for key, value in records.items()]
        acknowledged = await self._cluster.acknowledged(stream, sent)
        if stream == "models" and acknowledged:
            self._written = acknowledged[-1].offset

    async def _connect(self) -> AIOKafkaConsumer:
        partitions = await self._cluster.partitions("models")
        return await self._cluster.open_consumer("models", partitions, fetch_wait_ms=FETCH_WAIT_MS)

    async def _read_to_end(self, consumer: AIOKafkaConsumer, models: ModelList) -> ModelList:
        partitions = list(consumer.assignment())
        for partition, begin in (await consumer.beginning_offsets(partitions)).items():
            consumer.seek(partition, begin)
        consumer.resume(*partitions)
        try:
            # The end is asked for after each fetch: a record that compaction removed while we read is replaced by a
            # later one, which must be read too.
            while await self._is_behind(consumer):
                for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                    for record in records:
                        models.apply(record.key, record.value, codec_of_record(record.headers), record.timestamp)
        finally:
            consumer.pause(*partitions)  # otherwise it would keep fetching until the next read
        return models

    async def _is_behind(self, consumer: AIOKafkaConsumer) -> bool:
        """Whether there is more to read. The end is that of committed records, and may be before what was written."""
        ends, wanted = await consumer.end_offsets(list(consumer.assignment())), self._written + 1
        return any([await consumer.position(partition) < max(end, wanted) for partition, end in ends.items()])

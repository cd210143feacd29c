"""Reads single records by topic, partition and offset: rows that a chunk refers to, and results of chunks."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from inferd.streams.connection import client_options
from inferd.streams.settings import StreamSettings

CACHED_BYTES_MAX = 64 * 1_048_576
"""Neighbouring records kept from each fetch: the next read is mostly among them."""
FETCH_BYTES_MAX = 2 * 1_048_576
READ_TIMEOUT_S = 20.0
RECORD_OVERHEAD_BYTES = 300


class RecordReader:
    """Reads committed records at given offsets, one at a time; neighbours from the same fetch are cached."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()
        self._records: OrderedDict[tuple[TopicPartition, int], Any] = OrderedDict()
        self._n_bytes = 0

    async def read(self, tp: TopicPartition, offset: int) -> Any | None:
        """The record at an offset; None if it no longer exists. Raises `KafkaError` or `TimeoutError`."""
        async with self._lock:
            if (record := self._records.get((tp, offset))) is not None:
                self._records.move_to_end((tp, offset))
                return record
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    return await self._fetch(tp, offset)
            except BaseException:
                await self._close()
                raise

    def forget(self, topic: str) -> None:
        """Drops the cached records of a topic whose offsets have changed meaning."""
        for key in [key for key in self._records if key[0].topic == topic]:
            self._n_bytes -= _bytes_of(self._records.pop(key))

    async def close(self) -> None:
        """Closes the consumer and drops the cached records."""
        async with self._lock:
            await self._close()
            self._records.clear()
            self._n_bytes = 0

    async def _fetch(self, tp: TopicPartition, offset: int) -> Any | None:
        consumer = self._consumer or await self._open()
        consumer.assign([tp])
        beginnings, ends = await consumer.beginning_offsets([tp]), await consumer.end_offsets([tp])
        if not beginnings[tp] <= offset < ends[tp]:
            return None
        consumer.seek(tp, offset)
        found = None
        while found is None and await consumer.position(tp) <= offset:
            fetched = await consumer.getmany(tp, timeout_ms=1_000)
            for record in fetched.get(tp, ()):
                found = record if record.offset == offset else found
                self._keep(tp, record)
        return found

    def _keep(self, tp: TopicPartition, record: Any) -> None:
        key = (tp, record.offset)
        if key not in self._records:
            self._records[key] = record
            self._n_bytes += _bytes_of(record)
        while self._n_bytes > CACHED_BYTES_MAX and len(self._records) > 1:
            _, dropped = self._records.popitem(last=False)
            self._n_bytes -= _bytes_of(dropped)

    async def _open(self) -> AIOKafkaConsumer:
        consumer = self._consumer = AIOKafkaConsumer(
            **client_options(self._settings.connection),
            client_id=f"inferd-{self._settings.worker_id}-records",
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
        )
        await consumer.start()
        return consumer

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()


def _bytes_of(record: Any) -> int:
    return len(record.value or b"") + len(record.key or b"") + RECORD_OVERHEAD_BYTES

"""Restores table partitions from their changelogs, in bulk, exactly to the committed end.

A partition is restored when the position reaches the end offset that was read after the fence. Positions also pass
transaction markers, aborted and compacted records, so counting records would never finish.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from inferd.streams.connection import client_options
from inferd.streams.settings import StreamSettings
from inferd.streams.state.tables import LaneTable, TablePartition

log = structlog.get_logger(__name__)

POLL_MS = 500
FETCH_BYTES_MAX = 4 * 1_048_576
RECORDS_MAX = 1_000
"""Maximum records of one poll. The event loop runs between polls, so this limits how long it is blocked: some 20 ms."""

Owned = Sequence[tuple[LaneTable, TablePartition]]


class Restore:
    """Restores table partitions to the end of their changelogs; a failed attempt keeps its progress."""

    def __init__(self, settings: StreamSettings, on_progress: Callable[[], None]) -> None:
        """`on_progress` is called after every read."""
        self._settings = settings
        self._on_progress = on_progress
        self._behind: dict[object, int] = {}
        """For each restore in progress, the approximate number of records still to be read."""
        self.records = 0
        """Records read since the start."""

    async def run(self, owned: Owned) -> None:
        """Returns when all are restored; raises a `KafkaError` or `OSError` if the broker does not answer."""
        started, run = time.monotonic(), object()
        self._behind[run] = 0
        consumer = AIOKafkaConsumer(
            **client_options(self._settings.connection),
            client_id=f"inferd-{self._settings.worker_id}-restore",
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            request_timeout_ms=int(self._settings.group.request_timeout_s * 1000),
        )
        try:
            await consumer.start()
            read = await self._read(run, consumer, {_tp(partition): (table, partition) for table, partition in owned})
        finally:
            del self._behind[run]
            await consumer.stop()
        if read:
            log.info("tables_restored", records=read, ms=round((time.monotonic() - started) * 1000))

    @property
    def behind(self) -> int | None:
        """Approximate number of records still to be read; None if nothing is being restored."""
        return sum(self._behind.values()) if self._behind else None

    async def _read(
        self, run: object, consumer: AIOKafkaConsumer, by_tp: dict[TopicPartition, tuple[LaneTable, TablePartition]]
    ) -> int:
        ends = await self._seek(consumer, by_tp)
        read = 0
        while True:
            positions = {tp: await consumer.position(tp) for tp in ends}
            ends = {tp: end for tp, end in ends.items() if positions[tp] < end}
            self._behind[run] = sum(end - positions[tp] for tp, end in ends.items())
            if not ends:
                return read
            fetched = await consumer.getmany(*ends, timeout_ms=POLL_MS, max_records=RECORDS_MAX)
            for tp, records in fetched.items():
                changes = [(record.key, record.value) for record in records if record.key is not None]
                by_tp[tp][1].restore(changes, records[-1].offset)
                read += len(records)
                self.records += len(records)
                self._on_progress()
            await asyncio.sleep(0)  # aiokafka does not suspend while it has records: megabytes for each partition

    async def _seek(
        self, consumer: AIOKafkaConsumer, by_tp: dict[TopicPartition, tuple[LaneTable, TablePartition]]
    ) -> dict[TopicPartition, int]:
        """Seeks to the end of each store; returns the end offsets of partitions that lack records."""
        tps = list(by_tp)
        consumer.assign(tps)
        beginnings, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        for tp, (table, partition) in by_tp.items():
            offset = partition.store.offset
            if offset is not None and not beginnings[tp] <= offset + 1 <= ends[tp]:
                log.warning(
                    "table_rebuilt", table=table.name, partition=tp.partition, offset=offset,
                    beginning=beginnings[tp], end=ends[tp],
                    cause="the changelog no longer has the records that follow the local state",
                )  # fmt: skip
                await table.reopen(partition)
                offset = None
            consumer.seek(tp, beginnings[tp] if offset is None else offset + 1)
        return dict(ends)


def _tp(partition: TablePartition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)

"""Restoring table partitions from their changelogs, in bulk, exactly to what is committed.

A partition is restored once the position that was read reaches the end that the broker told after the fence: positions
pass transaction markers, aborted records and what compaction took, where counting records would wait for ever.
"""

from __future__ import annotations

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
RECORDS_MAX = 20_000
"""Of one poll: about what the event loop may be held for."""

Owned = Sequence[tuple[LaneTable, TablePartition]]


class Restore:
    """Brings table partitions up to the end of their changelogs; what a broken attempt has read is kept."""

    def __init__(self, settings: StreamSettings, progressed: Callable[[], None]) -> None:
        """`progressed` is called whenever something was read."""
        self._settings = settings
        self._progressed = progressed
        self._behind: dict[object, int] = {}
        """Of each run, how many records are still to be read, about."""
        self.records = 0
        """How many were read since the start."""

    async def run(self, owned: Owned) -> None:
        """Returns when all are restored; raises a `KafkaError` or `OSError` where the broker does not answer."""
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
        """Records that are still to be read, about; None while nothing is being restored."""
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
                self._progressed()

    async def _seek(
        self, consumer: AIOKafkaConsumer, by_tp: dict[TopicPartition, tuple[LaneTable, TablePartition]]
    ) -> dict[TopicPartition, int]:
        """Goes to where each store ends; gives the ends of those that lack something."""
        tps = list(by_tp)
        consumer.assign(tps)
        beginnings, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        for tp, (table, partition) in by_tp.items():
            offset = partition.store.offset
            if offset is not None and not beginnings[tp] <= offset + 1 <= ends[tp]:
                log.warning(
                    "table_rebuilt", table=table.name, partition=tp.partition, offset=offset,
                    beginning=beginnings[tp], end=ends[tp],
                    cause="the changelog no longer holds what follows on what is stored here",
                )  # fmt: skip
                await table.reopen(partition)
                offset = None
            consumer.seek(tp, beginnings[tp] if offset is None else offset + 1)
        return dict(ends)


def _tp(partition: TablePartition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)

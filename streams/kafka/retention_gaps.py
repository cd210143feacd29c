"""Offsets that a fetch skipped: transaction markers and what compaction took, or records that retention deleted unread.

aiokafka goes on at the beginning of a log by itself where retention has overtaken its position, and says nothing. So
each gap is held against where its log begins now: what lies below that was deleted before anybody read it.
"""

from __future__ import annotations

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

log = structlog.get_logger(__name__)

GAPS_MAX = 1_000
"""Of one partition, between two checks: under transactions, every one leaves a gap."""


def log_missing_records(tp: TopicPartition, first: int, count: int) -> None:
    """Logs that retention deleted `count` records from offset `first` on before they were read."""
    log.error(
        "records_missing", topic=tp.topic, partition=tp.partition, first=first, count=count,
        cause="retention deleted records before they were read; raise the topic's retention.ms",
    )  # fmt: skip


class RetentionGaps:
    """Unchecked offset gaps of a lane's partitions."""

    def __init__(self) -> None:
        self._noted: dict[TopicPartition, list[tuple[int, int]]] = {}

    def note(self, tp: TopicPartition, expected: int, got: int) -> None:
        """Records a gap: offset `expected` was due, and `got` was fetched."""
        noted = self._noted.setdefault(tp, [])
        if len(noted) >= GAPS_MAX:
            # Those of one partition follow on each other: as one, they hide nothing that retention deleted.
            noted[-1] = (noted[-1][0], got)
        else:
            noted.append((expected, got))

    @property
    def noted(self) -> bool:
        """Whether any gap is unchecked."""
        return any(self._noted.values())

    async def check(self, consumer: AIOKafkaConsumer) -> int:
        """Names what retention deleted unread in the log, partition by partition; gives the number of records.

        `KafkaError` where the broker does not answer; the gaps are kept then.
        """
        noted = {tp: list(gaps) for tp, gaps in self._noted.items() if gaps}
        if not noted:
            return 0
        beginnings = await consumer.beginning_offsets(list(noted))
        deleted = 0
        for tp, gaps in noted.items():
            self._noted[tp] = self._noted[tp][len(gaps) :]
            below = [(expected, min(got, beginnings[tp])) for expected, got in gaps if expected < beginnings[tp]]
            if below:
                count = sum(stop - start for start, stop in below)
                log_missing_records(tp, below[0][0], count)
                deleted += count
        return deleted

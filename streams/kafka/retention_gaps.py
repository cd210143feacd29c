"""Offset gaps in fetches: transaction markers and compaction, or records that retention deleted before they were read.

If retention has passed its position, aiokafka silently continues at the beginning of the log. Each gap is therefore
compared with the current beginning of the log: what lies below it was deleted unread.
"""

from __future__ import annotations

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

log = structlog.get_logger(__name__)

GAPS_MAX = 1_000
"""Maximum gaps per partition between two checks: every transaction leaves one."""


def log_missing_records(tp: TopicPartition, first: int, count: int) -> None:
    """Logs that retention deleted `count` unread records from offset `first` on."""
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
            # Merge consecutive gaps of a partition: that hides no deleted records.
            noted[-1] = (noted[-1][0], got)
        else:
            noted.append((expected, got))

    @property
    def noted(self) -> bool:
        """Whether any gap is unchecked."""
        return any(self._noted.values())

    async def check(self, consumer: AIOKafkaConsumer) -> int:
        """Logs the records that retention deleted unread, by partition; returns their number.

        Raises `KafkaError` if the broker does not answer; the gaps are kept then.
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

"""Which offsets that a fetch skipped were deleted unread."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError
from structlog.testing import capture_logs

from inferd.streams.kafka.retention_gaps import GAPS_MAX, RetentionGaps

TP = TopicPartition("requests", 0)


class FakeConsumer:
    """A broker whose log has a start offset."""

    def __init__(self, beginning: int) -> None:
        self.beginning = beginning
        self.asked = 0
        self.error: Exception | None = None

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return dict.fromkeys(tps, self.beginning)


async def check(gaps: RetentionGaps, consumer: FakeConsumer) -> tuple[int, list[tuple[int, int]]]:
    """The number of deleted records, and the first offset and number in the log message."""
    with capture_logs() as logs:
        count = await gaps.check(consumer)  # type: ignore[arg-type]
    assert all(entry["event"] == "records_missing" and entry["log_level"] == "error" for entry in logs)
    return count, [(entry["first"], entry["count"]) for entry in logs]


async def test_without_a_gap_no_request_is_sent() -> None:
    consumer = FakeConsumer(5)
    assert await check(RetentionGaps(), consumer) == (0, [])
    assert consumer.asked == 0


@pytest.mark.parametrize(("beginning", "deleted"), [(0, 0), (10, 0), (11, 1), (40, 30), (90, 40)])
async def test_records_before_the_start_of_the_log_were_deleted(beginning: int, deleted: int) -> None:
    gaps = RetentionGaps()
    gaps.note(TP, 10, 50)
    assert await check(gaps, FakeConsumer(beginning)) == (deleted, [(10, deleted)] if deleted else [])
    assert await check(gaps, FakeConsumer(beginning)) == (0, []), "each gap is reported once"


async def test_a_gap_is_kept_while_the_broker_does_not_answer() -> None:
    gaps, consumer = RetentionGaps(), FakeConsumer(40)
    gaps.note(TP, 10, 50)
    consumer.error = KafkaTimeoutError()
    with pytest.raises(KafkaTimeoutError):
        await check(gaps, consumer)
    consumer.error = None
    assert await check(gaps, consumer) == (30, [(10, 30)])


async def test_many_gaps_are_bounded_and_all_are_counted() -> None:
    gaps = RetentionGaps()
    for n in range(2 * GAPS_MAX):
        gaps.note(TP, 10 * n, 10 * n + 1)
    bounded = GAPS_MAX - 1  # each of one record, and all others as one range
    merged = 10 * (2 * GAPS_MAX - 1) + 1 - 10 * bounded
    assert await check(gaps, FakeConsumer(10**9)) == (bounded + merged, [(0, bounded + merged)])

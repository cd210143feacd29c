"""Where a group resumes: at its committed offset if the log still has it, otherwise at another position that is
logged."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from hypothesis import assume, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from inferd.streams.kafka.start_offsets import (
    PastTheEndError,
    Position,
    position_of,
    read_positions,
)
from tests.fixtures.lane import FakeConsumer, FakeTopics

Reset = Literal["earliest", "latest"]
RESETS = st.sampled_from(["earliest", "latest"])
LOG = st.tuples(st.integers(0, 1_000), st.integers(0, 1_000)).map(sorted)


@pytest.mark.parametrize(
    ("committed", "reset", "position"),
    [
        (50, "earliest", Position(50, 100)),
        (50, "latest", Position(50, 100)),
        (10, "earliest", Position(10, 100)),
        (100, "latest", Position(100, 100)),
        (None, "earliest", Position(10, 100)),
        (None, "latest", Position(100, 100)),
        (0, "latest", Position(10, 100, missing=10)),
        (3, "earliest", Position(10, 100, missing=7)),
    ],
)
def test_where_a_group_resumes_in_a_log_from_10_to_100(committed: int | None, reset: Reset, position: Position) -> None:
    assert position_of(committed, 10, 100, reset) == position


def test_an_offset_past_the_end_is_never_taken_for_a_new_log() -> None:
    with pytest.raises(PastTheEndError, match="offset 101 is committed, and the log ends at 100"):
        position_of(101, 10, 100, "earliest")


@given(st.none() | st.integers(0, 1_200), LOG, RESETS)
def test_it_is_always_in_the_log_and_skips_no_existing_record(
    committed: int | None, log: list[int], reset: Reset
) -> None:
    beginning, end = log
    assume(committed is None or committed <= end)
    position = position_of(committed, beginning, end, reset)
    assert beginning <= position.start <= end == position.end
    if committed is not None:
        assert position.start <= max(committed, beginning)
        assert position.missing == max(0, beginning - committed)


class ShortLogs(FakeConsumer):
    """Partitions 0, 1, …: each log begins at ten times its number and ends 5 later."""

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: 10 * tp.partition for tp in tps}

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: 10 * tp.partition + 5 for tp in tps}


def tps(*numbers: int) -> list[TopicPartition]:
    return [TopicPartition("t", number) for number in numbers]


async def read(
    consumer: Any, *numbers: int, reset: Reset = "earliest", topics: FakeTopics | None = None
) -> dict[int, Position]:
    found = await read_positions(consumer, dict.fromkeys(tps(*numbers)), reset, topics or FakeTopics())
    return {tp.partition: position for tp, position in found.items()}


async def test_each_partition_has_its_own() -> None:
    consumer = ShortLogs()
    consumer.committed_offsets = dict(zip(tps(0, 1, 2), [3, 4, 20], strict=True))
    with capture_logs() as logs:
        positions = await read(consumer, 0, 1, 2, 3)
    assert positions == {0: Position(3, 5), 1: Position(10, 15, missing=6), 2: Position(20, 25), 3: Position(30, 35)}
    assert [(entry["event"], entry["partition"], entry["count"]) for entry in logs] == [("records_missing", 1, 6)]
    assert "raise the topic's retention.ms" in logs[0]["cause"]
    assert (await read(consumer, 3, reset="latest")) == {3: Position(35, 35)}


async def test_the_error_of_an_offset_past_the_end_has_partition_and_remedy() -> None:
    consumer = ShortLogs()
    consumer.committed_offsets = {tps(2)[0]: 30}
    with pytest.raises(PastTheEndError, match=r"t/2: offset 30 is committed.*ends at 25; .*INFERD_GROUP_ID"):
        await read(consumer, 0, 2)


async def test_without_partitions_no_request_is_sent() -> None:
    assert await read(ShortLogs()) == {}


class Asked(ShortLogs):
    """Records the order of requests; the group has committed 7, which is the end of the log when the end is
    requested."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    async def committed(self, tp: TopicPartition) -> int | None:
        self.order.append("committed")
        return 7

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        self.order.append("ends")
        return dict.fromkeys(tps, 7)


async def test_committed_offsets_are_read_before_the_ends_of_the_logs() -> None:
    consumer = Asked()
    assert await read(consumer, 0) == {0: Position(7, 7)}, "the other way round, 7 might be past the end"
    assert consumer.order == ["committed", "ends"]


class Gone(ShortLogs):
    async def committed(self, tp: TopicPartition) -> int | None:
        raise KafkaConnectionError("gone")


async def test_a_broker_that_fails_is_for_the_caller() -> None:
    with pytest.raises(KafkaConnectionError):
        await read(Gone(), 0, 1)

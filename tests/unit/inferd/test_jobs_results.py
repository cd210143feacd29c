"""Selecting the valid results of a job, and reading them in row order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

import inferd.jobs.results as module
from inferd.jobs.results import ChunkIndex, JobRow, rows_of
from inferd.schemas.errors import JobExpiredError
from inferd.schemas.jobs.job import (
    ChunkOutcome,
    ChunkResult,
    JobError,
)
from inferd.schemas.requests import RowError

TP = TopicPartition("t", 0)


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class FakeConsumer:
    """One partition; returns some records at a time, starting at the position."""

    def __init__(self, records: list[Record], step: int) -> None:
        self._records, self._step, self._position = records, step, 10**9
        self.read = 0

    def seek(self, _tp: TopicPartition, offset: int) -> None:
        self._position = offset

    async def getmany(self, tp: TopicPartition, *, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        found = [record for record in self._records if record.offset >= self._position][: self._step]
        assert found, "read past the end"
        self._position = found[-1].offset + 1
        self.read += len(found)
        return {tp: found}


def outcome(chunk: int, attempt: int, digest: str = "d") -> ChunkOutcome:
    return ChunkOutcome("j", chunk, chunk * 10, attempt, digest, 10, 0)


@given(st.permutations(range(30)), st.integers(1, 7), st.integers(1, 40), st.integers(0, 8), st.integers(0, 299))
async def test_chunks_are_returned_in_row_order(
    finished: list[int], step: int, ahead: int, held: int, from_row: int
) -> None:
    index = ChunkIndex("d")
    for offset, chunk in enumerate(finished):
        index.add(outcome(chunk, 0), offset * 2)
    records = [Record(offset * 2, b"%d" % chunk) for offset, chunk in enumerate(finished)]
    consumer = FakeConsumer(records, step)
    reading: Any = module._InOrder(consumer, TP, index.in_order(from_row))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AHEAD_RECORDS_MAX", ahead)
        patch.setattr(module, "HELD_BYTES_MAX", held)
        got = [int(value) async for value, _ in reading.values()]
        assert reading._held_bytes == sum(len(record.value) for record in reading._held.values())
    assert got == list(range(from_row // 10, 30))


async def test_buffered_records_are_read_once() -> None:
    index = ChunkIndex("d")
    for offset, chunk in enumerate([3, 0, 2, 1]):
        index.add(outcome(chunk, 0), offset)
    consumer = FakeConsumer([Record(offset, b"%d" % chunk) for offset, chunk in enumerate([3, 0, 2, 1])], 2)
    reading = module._InOrder(consumer, TP, index.in_order())  # type: ignore[arg-type]
    assert [value async for value, _ in reading.values()] == [b"0", b"1", b"2", b"3"]
    # From the first requested record to the end, then back to an earlier one.
    assert consumer.read <= 6


async def test_a_missing_result_is_an_error() -> None:
    index = ChunkIndex("d")
    index.add(outcome(0, 0), 4)
    reading = module._InOrder(FakeConsumer([Record(7, b"x")], 1), TP, index.in_order())  # type: ignore[arg-type]
    with pytest.raises(JobExpiredError, match="offset 4"):
        [value async for value in reading.values()]


def test_the_latest_attempt_and_its_first_record_count() -> None:
    index = ChunkIndex("d")
    for offset, (chunk, attempt, digest) in enumerate(
        [(0, 0, "d"), (0, 0, "d"), (1, 0, "other"), (1, 0, "d"), (0, 1, "d"), (0, 1, "d"), (0, 0, "d")]
    ):
        index.add(outcome(chunk, attempt, digest), offset)
    assert [(place.chunk, place.offset) for place in index.in_order()] == [(0, 4), (1, 3)]
    assert [place.chunk for place in index.in_order(10)] == [1]
    assert len(index) == 2


def test_rows_of_a_chunk() -> None:
    chunk = ChunkResult(
        "j",
        1,
        5,
        0,
        1,
        "d",
        {"prediction": [0.5, None, 0.25], "raw": [1.0, None, 2.0]},
        [RowError(6, "invalid_value", "no")],
    )
    assert list(rows_of(chunk)) == [
        JobRow(5, {"prediction": 0.5, "raw": 1.0}),
        JobRow(6, {}, JobError("invalid_value", "no")),
        JobRow(7, {"prediction": 0.25, "raw": 2.0}),
    ]
    assert [row.row for row in rows_of(chunk, 7)] == [7]

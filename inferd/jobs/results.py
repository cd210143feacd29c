"""Reads the results of a job in row order from `job-results`, where they are in order of completion."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec import UNSET

from inferd.cluster import Cluster, codec_of_record
from inferd.jobs.feed import (
    FETCH_WAIT_MS,
    POLL_MS,
    partition_of,
    records_between,
)
from inferd.schemas.errors import InferenceError, JobExpiredError
from inferd.schemas.jobs import (
    ChunkOutcome,
    ChunkResult,
    JobError,
    JobStatus,
    decode_chunk_result,
    decode_outcome,
)
from inferd.schemas.limits import Limits

HELD_BYTES_MAX = 64 * 1_048_576
"""Buffer for results that were read ahead of their order."""
AHEAD_RECORDS_MAX = 256
"""A record further ahead than this is read by a seek instead of reading all records up to it."""
CLOCK_SLACK_MS = 600_000
"""Maximum clock skew between workers."""


class JobRow(msgspec.Struct, frozen=True):
    """The result of one row of a job: its `outputs`, or its `error`."""

    row: int
    """Index in the job."""
    outputs: dict[str, Any]
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a chunk's latest result is, and its rows."""

    chunk: int
    first_row: int
    rows: int
    attempt: int
    offset: int
    partition: int = 0


class ChunkIndex:
    """An index of a job's results: for each chunk the latest attempt, and the first record of that attempt."""

    def __init__(self, digest: str | None) -> None:
        """`digest` of the job's pinned model version; results with another digest belong to another job."""
        self._digest = digest
        self._places: dict[int, ChunkPlace] = {}

    def add(self, outcome: ChunkOutcome, offset: int, partition: int = 0) -> None:
        """Add the result at `offset`; offsets of a partition must be increasing."""
        known = self._places.get(outcome.chunk)
        if outcome.digest != self._digest or (known is not None and known.attempt >= outcome.attempt):
            return
        self._places[outcome.chunk] = ChunkPlace(
            outcome.chunk, outcome.first_row, outcome.row_count, outcome.attempt, offset, partition
        )

    def in_order(self, from_row: int = 0) -> list[ChunkPlace]:
        """The chunks with rows at or after `from_row`, in row order."""
        places = sorted(self._places.values(), key=lambda place: place.first_row)
        return [place for place in places if place.first_row + place.rows > from_row]

    def __len__(self) -> int:
        return len(self._places)


async def chunk_results(
    cluster: Cluster, status: JobStatus, from_row: int, limits: Limits
) -> AsyncGenerator[ChunkResult, None]:
    """The chunk results of an ended job in row order, starting with the chunk that contains `from_row`.

    The topic is read twice: once to index the offsets, once for the results. `JobExpiredError` if some are deleted.
    """
    topic, home = cluster.topics.name("job-results"), await partition_of(cluster, status.job_id)
    others = [] if status.results_in is UNSET else status.results_in
    tps = [TopicPartition(topic, number) for number in dict.fromkeys((home, *others))]
    await cluster.partitions("job-results")
    async with cluster.consumer("job-results", [tp.partition for tp in tps], fetch_wait_ms=FETCH_WAIT_MS) as consumer:
        places = await _places(consumer, tps, status, from_row, limits)
        async with aclosing(_InOrder(consumer, topic, places).values()) as values:
            async for value, codec in values:
                yield decode_chunk_result(value, codec, limits)


async def _places(
    consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition], status: JobStatus, from_row: int, limits: Limits
) -> list[ChunkPlace]:
    """Where the results are: a job that was moved has some in each of several partitions."""
    index, key = ChunkIndex(status.digest), status.job_id.encode()
    for tp in tps:
        end = (await consumer.end_offsets([tp]))[tp]
        async for record in records_between(consumer, tp, await _begin(consumer, tp, status), end):
            if record.key == key and (outcome := _outcome_in(record, limits)) is not None:
                index.add(outcome, record.offset, tp.partition)
    if status.status in ("completed", "completed_with_errors") and len(index) < status.chunks_total:
        raise JobExpiredError(
            f"job {status.job_id}: {status.chunks_total - len(index)} of {status.chunks_total} results are past the"
            f" retention of {tps[0].topic}"
        )
    return index.in_order(from_row)


async def _begin(consumer: AIOKafkaConsumer, tp: TopicPartition, status: JobStatus) -> int:
    """A lower bound of the offsets of the job's results."""
    begin: int = (await consumer.beginning_offsets([tp]))[tp]
    since = max(status.submitted_at - CLOCK_SLACK_MS, 0)
    found = (await consumer.offsets_for_times({tp: since})).get(tp)
    return begin if found is None else max(begin, found.offset)


def _outcome_in(record: Any, limits: Limits) -> ChunkOutcome | None:
    try:
        outcome = decode_outcome(record.value, codec_of_record(record.headers), limits)
    except InferenceError:
        return None
    return outcome if isinstance(outcome, ChunkOutcome) else None


class _InOrder:
    """Reads records at given offsets in a given order, sequentially where possible.

    Records that are needed later are buffered, up to `HELD_BYTES_MAX`; those that do not fit are read again.
    """

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, places: list[ChunkPlace]) -> None:
        self._consumer, self._topic, self._places = consumer, topic, places
        self._wanted = {(place.partition, place.offset): number for number, place in enumerate(places)}
        self._held: dict[tuple[int, int], Any] = {}
        self._held_bytes = 0
        self._positions: dict[int, int] = {}

    async def values(self) -> AsyncGenerator[tuple[bytes, Any], None]:
        """(value, codec) of each record, in the given order."""
        for number, place in enumerate(self._places):
            record = self._held.pop((place.partition, place.offset), None)
            if record is None:
                record = await self._read(TopicPartition(self._topic, place.partition), place.offset, number)
            else:
                self._held_bytes -= len(record.value)
            yield record.value, codec_of_record(record.headers)

    async def _read(self, tp: TopicPartition, offset: int, number: int) -> Any:
        position = self._positions.get(tp.partition)
        if position is None or not position <= offset <= position + AHEAD_RECORDS_MAX:
            self._consumer.seek(tp, offset)
            position = offset
        while True:
            batch = await self._consumer.getmany(tp, timeout_ms=POLL_MS)
            wanted = None
            for record in batch.get(tp, ()):
                position = record.offset + 1
                if record.offset == offset:
                    wanted = record
                elif self._wanted.get((tp.partition, record.offset), -1) > number:
                    self._hold((tp.partition, record.offset), record)
            self._positions[tp.partition] = position
            if wanted is not None:
                return wanted
            if position > offset:
                raise JobExpiredError(f"the result of the job at offset {offset} of {tp.topic} is deleted")

    def _hold(self, place: tuple[int, int], record: Any) -> None:
        if place not in self._held and self._held_bytes + len(record.value) <= HELD_BYTES_MAX:
            self._held[place] = record
            self._held_bytes += len(record.value)


def rows_of(result: ChunkResult, from_row: int = 0) -> Iterator[JobRow]:
    """The rows of a chunk from `from_row` on, in order."""
    errors = {error.row: JobError(error.code, error.message) for error in result.errors}
    names: list[str] = list(result.outputs)
    for row, values in enumerate(zip(*result.outputs.values(), strict=True), result.first_row):
        if row < from_row:
            continue
        error = errors.get(row)
        yield JobRow(row, {}, error) if error else JobRow(row, dict(zip(names, values, strict=True)))

"""Reads the published events of jobs: statuses, and dead letters of their messages."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from inferd.cluster import Cluster, codec_of_record
from inferd.schemas.dead_letters import DeadLetter
from inferd.schemas.errors import InferenceError, ModelServingError, error_of_code
from inferd.schemas.jobs import JobStatus, decode_status
from inferd.schemas.limits import Limits
from inferd.schemas.topics import Stream

logger = logging.getLogger(__name__)

POLL_MS = 200
FETCH_WAIT_MS = 50
WINDOW_RECORDS = 1_000
"""The latest status of a job is searched backwards from the end, first in this many records, then in larger windows."""
OF_A_JOB: tuple[Stream, ...] = ("jobs", "job-results", "job-status")
_by_key = DefaultPartitioner()

JobEvent = JobStatus | ModelServingError
"""A status of the job, or the error that rejected one of its messages."""


async def partition_of(cluster: Cluster, job_id: str) -> int:
    """The partition of a job in all job topics: the one that Kafka's default partitioner selects for its key.

    Partitions that were added to `jobs` only are not used: workers do not serve them.
    """
    await cluster.look_again()
    return (await _places(cluster, job_id))[0]


async def _places(cluster: Cluster, job_id: str) -> list[int]:
    """The partition of a job now, and those where it was if partitions have been added: their number is doubled."""
    count = min([len(await cluster.partitions(stream)) for stream in OF_A_JOB])
    places: list[int] = []
    while True:
        number: int = _by_key(job_id.encode(), [*range(count)], [*range(count)])
        if number not in places:
            places.append(number)
        if count % 2:
            return places
        count //= 2


class JobFeed:
    """The events of one job, starting with its latest status. It follows the job to another partition."""

    def __init__(self, consumer: AIOKafkaConsumer, cluster: Cluster, job_id: str, limits: Limits) -> None:
        self.status: JobStatus | None = None
        """The latest status; None if the job is unknown."""
        self._consumer = consumer
        self._cluster = cluster
        self._job_id = job_id
        self._key = job_id.encode()
        self._limits = limits
        self._jobs = cluster.topics.name("jobs")
        self._statuses: TopicPartition
        self._letters: list[TopicPartition] = []
        self._is_gone = False
        """Whether its status was removed: the job was forgotten, or is in another partition now."""

    async def start(self) -> None:
        """Find the latest status; `poll` returns the events after it."""
        await self._cluster.look_again()
        home, *before = await _places(self._cluster, self._job_id)
        await self._follow(home)
        for number in before:
            if self.status is not None:
                return
            await self._follow(number, home)
        if before and self.status is None:
            await self._follow(home)

    async def _follow(self, number: int, *others: int) -> None:
        """Finds the latest status in a partition, and follows it there; dead letters also in `others`."""
        self._statuses = TopicPartition(self._cluster.topics.name("job-status"), number)
        letters = self._cluster.topics.name("dead-letters")
        self._letters = [TopicPartition(letters, each) for each in {number, *others}]
        tps = [self._statuses, *self._letters]
        begins, ends = await self._consumer.beginning_offsets(tps), await self._consumer.end_offsets(tps)
        self._consumer.assign([self._statuses])
        await self._find_latest(begins[self._statuses], ends[self._statuses])
        self._consumer.assign(tps)
        for tp in tps:
            self._consumer.seek(tp, ends[tp])

    async def poll(self, timeout_ms: int = POLL_MS) -> list[JobEvent]:
        """New events; waits up to `timeout_ms` for them."""
        batches = await self._consumer.getmany(timeout_ms=timeout_ms)
        events: list[JobEvent] = [
            *self._read_statuses(batches.get(self._statuses, ())),
            *(letter for tp in self._letters for letter in self._read_letters(batches.get(tp, ()))),
        ]
        if self._is_gone:
            self._is_gone = False
            await self._cluster.look_again(within_s=0)
            home = (await _places(self._cluster, self._job_id))[0]
            if home != self._statuses.partition:
                await self._follow(home)
                events += [self.status] if self.status is not None else []
        return events

    async def catch_up(self) -> list[JobEvent]:
        """All events that have been published until now."""
        ends = await self._consumer.end_offsets([self._statuses, *self._letters])
        events: list[JobEvent] = []
        while any([await self._consumer.position(tp) < end for tp, end in ends.items() if tp in self._assigned]):
            events += await self.poll()
        return events

    @property
    def _assigned(self) -> set[TopicPartition]:
        return {self._statuses, *self._letters}

    async def _find_latest(self, begin: int, stop: int) -> None:
        """Search the records at offsets `begin` to `stop` (exclusive) backwards, window by window."""
        tp, consumer, window = self._statuses, self._consumer, WINDOW_RECORDS
        while stop > begin:
            start = max(begin, stop - window)
            found = None
            async for record in records_between(consumer, tp, start, stop):
                found = record if record.key == self._key else found
            if found is not None:
                list(self._read_statuses([found]))
                break
            stop, window = start, window * 4

    def _read_statuses(self, records: Sequence[Any]) -> Iterator[JobStatus]:
        for record in records:
            if record.key != self._key:
                continue
            self.status = _status_in(record, self._limits)
            self._is_gone = self.status is None
            if self.status is not None:
                yield self.status

    def _read_letters(self, records: Sequence[Any]) -> Iterator[ModelServingError]:
        for record in records:
            if record.key != self._key:
                continue
            try:
                letter = DeadLetter.parse(record.key, record.value, record.headers)
            except InferenceError:
                continue
            if letter.topic == self._jobs:
                yield error_of_code(letter.code, letter.message)


@asynccontextmanager
async def job_feed(cluster: Cluster, job_id: str, limits: Limits) -> AsyncIterator[JobFeed]:
    """The feed of a job; errors of the broker are raised as `ServerError`s."""
    await cluster.partitions("dead-letters")
    await cluster.partitions("job-status")
    async with cluster.consumer("job-status", [], fetch_wait_ms=FETCH_WAIT_MS) as consumer:
        feed = JobFeed(consumer, cluster, job_id, limits)
        await feed.start()
        yield feed


async def latest_statuses(cluster: Cluster, limits: Limits) -> dict[str, JobStatus]:
    """The latest status of every job, by id."""
    found: dict[str, JobStatus] = {}
    stream: Stream = "job-status"
    await cluster.look_again()
    partitions = await cluster.partitions(stream)
    async with cluster.consumer(stream, partitions, fetch_wait_ms=FETCH_WAIT_MS) as consumer:
        tps = sorted(consumer.assignment())
        begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        for tp in tps:
            async for record in records_between(consumer, tp, begins[tp], ends[tp]):
                key = (record.key or b"").decode("utf-8", "replace")
                status = _status_in(record, limits)
                found.pop(key, None)
                if status is not None:
                    found[key] = status
    return found


async def records_between(
    consumer: AIOKafkaConsumer, tp: TopicPartition, start: int, stop: int
) -> AsyncGenerator[Any, None]:
    """Records of a partition at offsets `start` to `stop` (exclusive)."""
    if start >= stop:
        return
    consumer.seek(tp, start)
    while await consumer.position(tp) < stop:
        for record in (await consumer.getmany(tp, timeout_ms=POLL_MS)).get(tp, ()):
            if record.offset >= stop:
                return
            yield record


def _status_in(record: Any, limits: Limits) -> JobStatus | None:
    if record.value is None:
        return None
    try:
        return decode_status(record.value, codec_of_record(record.headers), limits)
    except InferenceError as error:
        logger.warning("cannot decode a record of job-status: %s", error)
        return None

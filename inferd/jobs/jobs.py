"""Jobs of the client: submit rows, watch a job, read its results, cancel and retry it.

A job's messages have the job id as key, and Kafka's default partitioner (murmur2) selects their partition. Programs
that use librdkafka should set `partitioner=murmur2_random`: messages in other partitions are sent on, and take longer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka.structs import RecordMetadata

from inferd.cluster import Cluster
from inferd.errors import ResultTimeoutError
from inferd.jobs.feed import (
    JobEvent,
    JobFeed,
    job_feed,
    latest_statuses,
    partition_of,
)
from inferd.jobs.packing import PackedRows, packed_rows, rows_message
from inferd.jobs.results import chunk_results
from inferd.schemas.codecs import MSGPACK, Codec
from inferd.schemas.errors import (
    InferenceError,
    JobClosedError,
    JobConflictError,
    JobExpiredError,
    JobNotFoundError,
    ModelServingError,
)
from inferd.schemas.headers import RawHeaders
from inferd.schemas.jobs import (
    ChunkResult,
    JobStatus,
    encode_cancel,
    encode_close,
    encode_open,
    encode_retry,
)
from inferd.schemas.limits import Limits
from inferd.schemas.requests import ModelReference, Output, check_job_id

logger = logging.getLogger(__name__)

FIRST_STATUS_WAIT_S = 3.0
"""How long to wait for the first status of a new job before sending rows, so that a rejected job gets none."""
REJECTION_WAIT_S = 1.0
"""How long to wait for rejections if the job existed before: accepted repeats publish nothing."""
WINDOW = 4
"""Maximum number of unacknowledged messages."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Options of a new job."""

    outputs: Sequence[Output] | None = None
    chunk_rows: int | None = None
    deadline_ms: int | None = None
    """Unix milliseconds."""
    labels: Mapping[str, str] | None = None
    headers: RawHeaders = ()
    """Headers of each message, such as `traceparent` and `correlation-id`."""


@dataclass(frozen=True, slots=True)
class SubmitProgress:
    """Progress of a submission."""

    rows: int
    """Rows that the broker has acknowledged, skipped ones included."""
    skipped: int
    """Rows that the job had already."""


OnProgress = Callable[[SubmitProgress], None]


def new_job_id() -> str:
    """A random job id."""
    return f"job-{secrets.token_hex(8)}"


class Jobs:
    """The jobs of one tenant."""

    def __init__(self, cluster: Cluster, codec: Codec, limits: Limits) -> None:
        self._cluster = cluster
        self._codec = codec
        self._limits = limits

    async def submit(
        self,
        model_id: str,
        rows: Any,
        job_id: str | None,
        options: JobOptions,
        timeout_s: float,
        *,
        resume: bool = False,
        on_progress: OnProgress | None = None,
    ) -> str:
        """See `Client.submit_job`.

        A failure cancels the job that this call opened if the rows are rejected, or if the id was generated here.
        """
        ModelReference.parse(model_id)
        is_new_id = job_id is None
        job_id = new_job_id() if job_id is None else check_job_id(job_id)
        async with job_feed(self._cluster, job_id, self._limits) as feed:
            submission = _Submission(self, feed, job_id, options.headers, resume, on_progress or _ignore)
            await submission.open(model_id, options, self._codec)
            try:
                async with aclosing(packed_rows(rows, self._codec)) as messages:
                    async for packed in messages:
                        await submission.send(packed)
            except Exception as error:
                if is_new_id or isinstance(error, InferenceError):
                    await submission.abandon()
                raise
            await submission.close(timeout_s)
        return job_id

    async def status(self, job_id: str) -> JobStatus:
        """The latest status; `JobNotFoundError`."""
        async with job_feed(self._cluster, check_job_id(job_id), self._limits) as feed:
            return _known(feed.status, job_id)

    async def list(self) -> list[JobStatus]:
        """The latest status of every job, in order of submission."""
        found = await latest_statuses(self._cluster, self._limits)
        return sorted(found.values(), key=lambda status: (status.submitted_at, status.job_id))

    async def watch(self, job_id: str) -> AsyncGenerator[JobStatus, None]:
        """The latest status and all following ones up to the terminal one; `JobNotFoundError`."""
        async with job_feed(self._cluster, check_job_id(job_id), self._limits) as feed:
            status = _known(feed.status, job_id)
            yield status
            while not status.ended:
                for event in await feed.poll():
                    if isinstance(event, JobStatus) and not status.ended:
                        status = event
                        yield status

    async def result_chunks(self, job_id: str, from_row: int) -> AsyncGenerator[ChunkResult, None]:
        """The chunk results of an ended job, in row order."""
        status = await self.status(job_id)
        if status.status == "expired":
            raise JobExpiredError(f"the results of job {job_id} are past their retention")
        if not status.ended:
            raise JobConflictError(f"job {job_id} is {status.status}: its results can be read once it has ended")
        async with aclosing(chunk_results(self._cluster, status, from_row, self._limits)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def cancel(self, job_id: str, timeout_s: float) -> JobStatus:
        """Cancel a job; returns its status once it is cancelled."""
        return await self._command(job_id, encode_cancel(), "cancel", _is_cancelled, timeout_s)

    async def retry(self, job_id: str, timeout_s: float) -> JobStatus:
        """Retry a job; returns the first status of the new attempt."""
        return await self._command(job_id, encode_retry(), "retry", _is_new_attempt, timeout_s)

    async def _command(
        self,
        job_id: str,
        value: bytes,
        what: str,
        done: Callable[[JobStatus | None, JobStatus], bool],
        timeout_s: float,
    ) -> JobStatus:
        """Send a command and wait for the status that confirms it, or for its rejection."""
        async with job_feed(self._cluster, check_job_id(job_id), self._limits) as feed:
            before, deadline = feed.status, time.monotonic() + timeout_s
            if before is not None and done(before, before):
                return before
            await self._cluster.acknowledged("jobs", [await self.send(job_id, value)])
            while time.monotonic() < deadline:
                for event in await feed.poll():
                    if isinstance(event, ModelServingError):
                        raise event
                    if done(before, event):
                        return event
                    if before is not None and not before.ended and event.ended:
                        raise JobClosedError(f"job {job_id} ended before the {what} took effect: it is {event.status}")
        raise _no_response(job_id, f"the {what}", timeout_s)

    async def send(
        self, job_id: str, value: bytes, codec: Codec = MSGPACK, headers: RawHeaders = ()
    ) -> asyncio.Future[RecordMetadata]:
        """Pass a message of a job to the producer."""
        headers = (codec.header, *headers)
        partition = await partition_of(self._cluster, job_id)
        return await self._cluster.send(
            "jobs", key=job_id.encode(), value=value, headers=headers, partition=partition
        )  # fmt: skip

    async def acknowledged(self, sent: Sequence[asyncio.Future[RecordMetadata]]) -> None:
        """Wait until the broker has acknowledged the messages."""
        await self._cluster.acknowledged("jobs", sent)


class _Submission:
    """Sends the messages of one job."""

    def __init__(
        self, jobs: Jobs, feed: JobFeed, job_id: str, headers: RawHeaders, resume: bool, on_progress: OnProgress
    ) -> None:
        self._jobs, self._feed, self._job_id, self._on_progress = jobs, feed, job_id, on_progress
        self._send = partial(jobs.send, job_id, headers=headers)
        self._before = feed.status
        self._rows_before = feed.status.input_count if feed.status is not None and resume else 0
        self._last_skipped: deque[PackedRows] = deque()
        """The last message that was skipped because the job has it."""
        self._unacknowledged: deque[tuple[asyncio.Future[RecordMetadata], int]] = deque()
        self._seq = self._rows = self._skipped = self._acknowledged = 0

    async def open(self, model_id: str, options: JobOptions, codec: Codec) -> None:
        """Open the job and wait briefly for its first status."""
        _check_name(self._before, model_id)
        if self._before is None or options.deadline_ms is None:
            value = encode_open(
                model_id,
                outputs=options.outputs,
                chunk_rows=options.chunk_rows,
                deadline_ms=options.deadline_ms,
                labels=options.labels,
                codec=codec,
            )
            await self._jobs.acknowledged([await self._send(value, codec)])
        if self._before is None:
            await self._wait(FIRST_STATUS_WAIT_S, lambda: self._feed.status is not None)

    async def send(self, packed: PackedRows) -> None:
        """Send the next message, unless the job has it."""
        seq, self._seq = self._seq, self._seq + 1
        if self._rows + packed.count <= self._rows_before:
            self._rows += packed.count
            self._skipped = self._acknowledged = self._rows
            self._last_skipped = deque([packed], 1)
            self._report_progress()
            return
        if self._last_skipped:
            # The last skipped message is sent again: if the rows have changed since, the worker rejects it.
            await self._put(seq - 1, self._last_skipped.pop(), 0)
        self._rows += packed.count
        await self._put(seq, packed, packed.count)
        self._raise_errors(await self._feed.poll(0))

    async def _put(self, seq: int, packed: PackedRows, rows: int) -> None:
        value = rows_message(seq, packed)
        self._unacknowledged.append((await self._send(value, packed.codec), rows))
        while len(self._unacknowledged) >= WINDOW:
            await self._await_oldest()

    async def _await_oldest(self) -> None:
        sent, rows = self._unacknowledged.popleft()
        await self._jobs.acknowledged([sent])
        self._acknowledged += rows
        self._report_progress()

    async def close(self, timeout_s: float) -> None:
        """Send the `close` message and wait until a worker has the job."""
        if self._last_skipped:
            await self._put(self._seq - 1, self._last_skipped.pop(), 0)
        sent = await self._send(encode_close(self._seq))
        while self._unacknowledged:
            await self._await_oldest()
        await self._jobs.acknowledged([sent])
        self._raise_errors(await self._feed.catch_up())
        if self._before is not None:
            await self._wait(REJECTION_WAIT_S, lambda: False)
            return
        if not await self._wait(timeout_s, lambda: self._feed.status is not None):
            raise _no_response(self._job_id, "it", timeout_s)

    async def abandon(self) -> None:
        """Cancel the job if this submission has opened it and it has not ended."""
        if self._before is not None or (self._feed.status is not None and self._feed.status.ended):
            return
        try:
            await self._jobs.acknowledged([await self._send(encode_cancel())])
            await self._wait_for_end(FIRST_STATUS_WAIT_S)
        except ModelServingError as error:
            logger.warning("job %s stays open, because it cannot be cancelled: %s", self._job_id, error)

    async def _wait_for_end(self, timeout_s: float) -> None:
        """Wait for a terminal status, at most `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (self._feed.status is None or not self._feed.status.ended) and time.monotonic() < deadline:
            await self._feed.poll(50)

    async def _wait(self, timeout_s: float, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline:
            self._raise_errors(await self._feed.poll(50))
        return condition()

    def _raise_errors(self, events: Sequence[JobEvent]) -> None:
        """Raise the error that rejected the job or one of its messages."""
        for event in events:
            if isinstance(event, ModelServingError):
                raise event
        status = self._feed.status
        if status is None or not status.ended or status.status in ("completed", "completed_with_errors"):
            return
        if status.status == "failed" and status.error:
            raise status.error.error()
        raise JobClosedError(f"job {self._job_id} has ended: it is {status.status}")

    def _report_progress(self) -> None:
        self._on_progress(SubmitProgress(self._acknowledged, self._skipped))


def _check_name(status: JobStatus | None, model_id: str) -> None:
    """`JobConflictError` for an existing job of another model; workers check everything else."""
    name = ModelReference.parse(model_id).name
    if status is not None and status.model_id is not None and status.model_id != name:
        raise JobConflictError(f"job {status.job_id} is a job of model {status.model_id!r}, not of {name!r}")


def _known(status: JobStatus | None, job_id: str) -> JobStatus:
    if status is None:
        raise JobNotFoundError(f"there is no job {job_id!r}, or no worker has read it yet")
    return status


def _is_cancelled(_before: JobStatus | None, status: JobStatus) -> bool:
    return status.status == "cancelled"


def _is_new_attempt(before: JobStatus | None, status: JobStatus) -> bool:
    return before is not None and (status.attempt or 0) > (before.attempt or 0)


def _no_response(job_id: str, what: str, timeout_s: float) -> ResultTimeoutError:
    return ResultTimeoutError(
        f"job {job_id}: the broker has {what}, but no worker has responded within {timeout_s:g} s. Does a worker serve"
        " this tenant? Check with `inferd doctor`"
    )


def _ignore(_progress: SubmitProgress) -> None: ...

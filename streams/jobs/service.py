"""Jobs over HTTP in a worker: statuses, results and messages.

A job is owned by the worker that has its partition of `jobs`. Other workers raise `NotOwnerError` with the owner's URL,
which workers publish in the group metadata.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import RecordMetadata

from inferd.schemas.codecs import JSON, MSGPACK, Codec, codec_named
from inferd.schemas.errors import (
    InvalidValueError,
    JobClosedError,
    JobConflictError,
    JobExpiredError,
    JobNotFoundError,
    ModelServingError,
    TooLargeError,
)
from inferd.schemas.jobs import (
    CancelJob,
    ChunkResult,
    OpenJob,
    RetryJob,
    decode_chunk_result,
    decode_job_message,
    encode_cancel,
    encode_close,
    encode_retry,
    encode_status,
)
from inferd.schemas.topics import TenantTopics
from inferd.streams.jobs.errors import NotOwnerError, RetryLaterError
from inferd.streams.jobs.job_store import JobStore
from inferd.streams.jobs.reader import RecordReader
from inferd.streams.jobs.state import JobState, place_of, status_of
from inferd.streams.jobs.upload import JobMessageSender
from inferd.streams.kafka import close_producer, open_producer, partition_of_key, producer_options
from inferd.streams.lane import PUBLISH_ERRORS, describe
from inferd.streams.settings import StreamSettings
from inferd.streams.telemetry import CALLER

RECORD_OVERHEAD_BYTES = 4_096
IDS_A_PARTITION = 64
"""Ids tried per partition when searching for one that belongs to this worker."""
RESULTS_OF = frozenset(("completed", "completed_with_errors", "incomplete", "cancelled", "failed"))


OwnerUrl = Callable[[TopicPartition], str | None]


class JobService:
    """Jobs of every tenant of this worker; implements the interface of `daemon/http/routes/services.py`."""

    def __init__(
        self,
        settings: StreamSettings,
        owned: Callable[[], Mapping[str, JobStore]],
        reader: RecordReader,
        owner_url: OwnerUrl,
        retrieved: Callable[[float], None] = lambda _began: None,
        used: Callable[[str], int] | None = None,
    ) -> None:
        """`owned`: stores by tenant; `owner_url`: URL of the owner of a partition of `jobs`; `retrieved`: called with
        the start time (`perf_counter`) after each read of a chunk's result; `used`: how many partitions of a tenant's
        `jobs` are used, by default those of the settings."""
        self._used = used if used is not None else lambda _tenant: settings.topics.partitions
        self._settings = settings
        self._owned = owned
        self._reader = reader
        self._owner_url = owner_url
        self._retrieved = retrieved
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Closes the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer)

    # ------------------------------------------------------------------ questions

    async def outputs(self, tenant: str, job_id: str) -> Sequence[str]:
        """The outputs of the job's results, `prediction` first."""
        return self._find(tenant, job_id)[1].outputs

    async def status(self, tenant: str, job_id: str) -> bytes:
        """The status of a job, in JSON."""
        return _status(self._find(tenant, job_id)[1])

    async def list_jobs(self, tenant: str, *, status: str | None, limit: int, after: str | None) -> Sequence[bytes]:
        """Statuses (JSON), by job id, of the jobs that this worker owns."""
        owned = self._jobs_of(tenant)
        listed: list[bytes] = []
        names = (job_id for partition in owned.partitions.values() for job_id in partition.job_ids())
        for job_id in sorted(name for name in names if after is None or name > after):
            found = owned.find(job_id)
            if found is not None and status in (None, found[1].phase):
                listed.append(_status(found[1]))
                if len(listed) == limit:
                    break
        return listed

    async def results(self, tenant: str, job_id: str, *, from_row: int = 0) -> AsyncIterator[bytes]:
        """NDJSON lines in row order from `from_row` on, one chunk at a time."""
        number, state = self._find(tenant, job_id)
        if state.phase == "expired":
            raise JobExpiredError(f"the results of job {job_id!r} are past their retention")
        if state.phase not in RESULTS_OF:
            raise JobConflictError(f"job {job_id!r} is {state.phase}: its results can be read once it has ended")
        tp = TopicPartition(TenantTopics(self._settings.namespace, tenant).name("job-results"), number)
        behind = state.chunks["first_row"] + state.chunks["rows"] > from_row
        for place in np.flatnonzero(behind & (state.chunks["result"] >= 0)).tolist():
            at = place_of(int(state.chunks[place]["result"]))
            of = tp if at.partition is None else TopicPartition(tp.topic, at.partition)
            result = await self._result(of, at.offset, state)
            yield b"".join(_lines(result, from_row))

    async def _result(self, tp: TopicPartition, offset: int, state: JobState) -> ChunkResult:
        started = time.perf_counter()
        try:
            record = await self._reader.read(tp, offset)
        except PUBLISH_ERRORS as error:
            raise RetryLaterError(f"the results cannot be read: {describe(error)}; retry later") from error
        if record is None:
            raise JobExpiredError(f"results of job {state.job_id!r} are past the retention of {tp.topic}")
        result = decode_chunk_result(record.value, codec_named(state.encoding), self._settings.limits)
        self._retrieved(started)
        return result

    # ------------------------------------------------------------------ messages

    async def submit(self, tenant: str, job_id: str | None, message: bytes, codec: Codec) -> bytes:
        """The status (JSON) after the owner has accepted `message`: `submit`, or `open`, `rows`, `close` of a job."""
        decoded = decode_job_message(message, codec, self._settings.limits)
        if isinstance(decoded, CancelJob | RetryJob):
            raise InvalidValueError("type: cancel and retry have their own routes")
        return await self._send(tenant, job_id or self._new_id(tenant), message, codec)

    async def cancel(self, tenant: str, job_id: str) -> bytes:
        """The status (JSON) after the cancellation was accepted."""
        number, state = self._find(tenant, job_id)
        if state.ended and state.phase != "cancelled":
            raise JobClosedError(f"job {job_id!r} has ended: it is {state.phase}")
        return await self._send(tenant, job_id, encode_cancel(), MSGPACK, number)

    async def retry(self, tenant: str, job_id: str) -> bytes:
        """The status (JSON) after the retry was accepted."""
        number, _ = self._find(tenant, job_id)
        return await self._send(tenant, job_id, encode_retry(), MSGPACK, number)

    async def upload(self, tenant: str, job_id: str | None, opening: bytes, rows: AsyncIterator[bytes]) -> bytes:
        """The status (JSON) after the owner has accepted `opening` (`open`, MessagePack), all `rows` (JSON) and a
        close.

        `rows` are read only once it is known that the job belongs to this worker. If they raise `InvalidValueError` or
        `TooLargeError`, the job is cancelled unless it was complete before. If they end early, it is cancelled unless a
        `job_id` was given, with which they can be sent again.
        """
        if not isinstance(decode_job_message(opening, MSGPACK, self._settings.limits), OpenJob):
            raise InvalidValueError("type: an upload begins with `open`")
        is_named = job_id is not None
        job_id = job_id or self._new_id(tenant)
        messages = self._messages(tenant, job_id)
        try:
            await messages.send(opening, MSGPACK)
            await messages.all_taken()
            if self._find(tenant, job_id)[1].phase != "failed":
                await self._send_rows(messages, rows)
        except JobClosedError as error:
            raise self._why_closed(tenant, job_id, error) from None
        except Exception as error:
            if isinstance(error, InvalidValueError | TooLargeError):
                await self._cancel_unfinished(tenant, job_id)
            elif not is_named:
                with suppress(ModelServingError):
                    await self._cancel_unfinished(tenant, job_id)
            raise
        finally:
            await messages.forget()
        return _status(self._find(tenant, job_id)[1])

    async def _send_rows(self, messages: JobMessageSender, rows: AsyncIterator[bytes]) -> None:
        count = 0
        async for value in rows:
            await messages.send(value, JSON)
            count += 1
        await messages.send(encode_close(count), MSGPACK)
        await messages.all_taken()

    async def _cancel_unfinished(self, tenant: str, job_id: str) -> None:
        _, state = self._find(tenant, job_id)
        if state.message_count is None and not state.ended:
            await self._send(tenant, job_id, encode_cancel(), MSGPACK)

    def _why_closed(self, tenant: str, job_id: str, error: JobClosedError) -> ModelServingError:
        """Why a job that rejects rows has ended."""
        _, state = self._find(tenant, job_id)
        return state.error.error() if state.phase == "failed" and state.error is not None else error

    async def _send(self, tenant: str, job_id: str, value: bytes, codec: Codec, number: int | None = None) -> bytes:
        messages = self._messages(tenant, job_id, number)
        try:
            await messages.send(value, codec)
            await messages.all_taken()
        finally:
            await messages.forget()
        return _status(self._find(tenant, job_id)[1])

    def _messages(self, tenant: str, job_id: str, number: int | None = None) -> JobMessageSender:
        owned = self._jobs_of(tenant)
        number = self.partition_of(tenant, job_id) if number is None else number
        if number not in owned.partitions:
            raise self._not_owner(tenant, number)
        topic = TenantTopics(self._settings.namespace, tenant).name("jobs")

        async def produce(value: bytes, codec: Codec) -> asyncio.Future[RecordMetadata]:
            producer = await self._opened()
            headers = [codec.header, *CALLER.get()]
            sent: asyncio.Future[RecordMetadata] = await producer.send(
                topic, value, job_id.encode(), number, headers=headers
            )
            return sent

        return JobMessageSender(owned.partitions[number].handled, produce)

    async def _opened(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                room = self._settings.limits.message_bytes_max + RECORD_OVERHEAD_BYTES
                options = {**producer_options(self._settings), "max_request_size": room}
                self._producer = await open_producer(options, self._settings.group.request_timeout_s)
            return self._producer

    # ------------------------------------------------------------------ whose

    def partition_of(self, tenant: str, job_id: str) -> int:
        """The partition that Kafka's default partitioner chooses for a job."""
        return partition_of_key(job_id.encode(), self._used(tenant))

    def owned_partitions(self, tenant: str) -> frozenset[int]:
        """The partitions of `jobs` whose jobs this worker owns."""
        owned = self._owned().get(tenant)
        return frozenset() if owned is None else frozenset(owned.partitions)

    def partitions(self, tenant: str) -> int:
        """How many partitions of a tenant's `jobs` are used."""
        return self._used(tenant)

    def _new_id(self, tenant: str) -> str:
        """An unused job id; it belongs to this worker if this worker owns a partition."""
        mine = self._jobs_of(tenant).partitions
        for _ in range(IDS_A_PARTITION * self._used(tenant)):
            job_id = f"job-{secrets.token_hex(8)}"
            if not mine or self.partition_of(tenant, job_id) in mine:
                break
        return job_id

    def _jobs_of(self, tenant: str) -> JobStore:
        owned = self._owned().get(tenant)
        if owned is None:
            raise NotOwnerError(None)
        return owned

    def _find(self, tenant: str, job_id: str) -> tuple[int, JobState]:
        owned = self._jobs_of(tenant)
        found = owned.find(job_id)
        if found is not None:
            return found
        number = self.partition_of(tenant, job_id)
        if number not in owned.partitions:
            raise self._not_owner(tenant, number)
        raise JobNotFoundError(f"there is no job {job_id!r}")

    def _not_owner(self, tenant: str, number: int) -> NotOwnerError:
        topic = TenantTopics(self._settings.namespace, tenant).name("jobs")
        url = self._owner_url(TopicPartition(topic, number))
        # The states may not be restored yet.
        return NotOwnerError(None if url == self._settings.url else url)


def _status(state: JobState) -> bytes:
    return encode_status(status_of(state), JSON)


def _lines(result: ChunkResult, from_row: int) -> list[bytes]:
    """One line per row of a chunk, from `from_row` on."""
    errors = {error.row: {"code": error.code, "message": error.message} for error in result.errors}
    names, columns = list(result.outputs), list(result.outputs.values())
    lines = []
    for row, values in enumerate(zip(*columns, strict=True), result.first_row):
        if row < from_row:
            continue
        error = errors.get(row)
        body = {"row": row, **dict(zip(names, values, strict=True))} if error is None else {"row": row, "error": error}
        lines.append(msgspec.json.encode(body) + b"\n")
    return lines

"""Jobs in the partitions owned by this worker: their states, when each is due, and their use of quotas."""

from __future__ import annotations

import asyncio
import heapq
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import structlog

from inferd.schemas.errors import ModelServingError
from inferd.schemas.limits import Limits
from inferd.streams.jobs.state import (
    NOTHING_USED,
    JobState,
    Usage,
    decode_state,
    encode_state,
    usage_of,
    wakes_at,
)
from inferd.streams.state import Change, LaneTable, TablePartition
from inferd.streams.tasks import Slices
from inferd.streams.telemetry import JobCounters

log = structlog.get_logger(__name__)

REJECTIONS_MAX = 1_000
"""Maximum number of rejections kept for senders."""


class PartitionRevokedError(Exception):
    """The partition was revoked."""


class MessageOutcomes:
    """Notifies senders of job messages when a message was processed, and whether it was rejected."""

    def __init__(self) -> None:
        self._next = -1
        self._waiting: list[tuple[int, asyncio.Future[ModelServingError | None]]] = []
        self._rejections: OrderedDict[int, ModelServingError] = OrderedDict()

    def reject(self, offset: int, rejection: ModelServingError) -> None:
        """Records that the message at an offset is being rejected."""
        self._rejections[offset] = rejection
        if len(self._rejections) > REJECTIONS_MAX:
            self._rejections.popitem(last=False)

    def up_to(self, next_offset: int) -> None:
        """The output of all messages below an offset is acknowledged."""
        self._next = max(self._next, next_offset)
        for offset, future in self._waiting:
            if offset < self._next and not future.done():
                future.set_result(self._rejections.get(offset))
        self._waiting = [waiting for waiting in self._waiting if not waiting[1].done()]

    def give_up(self) -> None:
        """The partition was revoked: waiting senders get `PartitionRevokedError`."""
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(PartitionRevokedError)
        self._waiting.clear()

    async def wait(self, offset: int) -> ModelServingError | None:
        """Why the message at an offset was rejected; None if it was accepted. `PartitionRevokedError` if unknown."""
        if offset < self._next:
            return self._rejections.get(offset)
        future: asyncio.Future[ModelServingError | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((offset, future))
        return await future


@dataclass(slots=True, eq=False)
class JobsPartition:
    """Jobs of one partition. States that may change soon are kept decoded; the others are read from the table."""

    table: TablePartition
    limits: Limits
    epoch: int
    """Changes whenever the states are read again; barriers sent before that are ignored."""
    handled: MessageOutcomes
    active: dict[str, JobState | None] = field(default_factory=dict)
    """Open jobs, and new states that the table has not acknowledged yet."""
    in_use: Usage = NOTHING_USED
    _wakes: dict[str, int] = field(default_factory=dict)
    _queue: list[tuple[int, str]] = field(default_factory=list)

    def state(self, job_id: str) -> JobState | None:
        """The state of a job; None if there is none."""
        if job_id in self.active:
            return self.active[job_id]
        value = self.table.get(job_id.encode())
        return decode_state(value) if value is not None else None

    def put(self, before: JobState | None, after: JobState | None, job_id: str) -> None:
        """Sets the state of a job; None removes it."""
        self.in_use = self.in_use - usage_of(before) + usage_of(after)
        self.active[job_id] = after
        if after is None:
            self._wakes.pop(job_id, None)
        else:
            self._wake_at(job_id, wakes_at(after, self.limits))

    def acked(self, job_ids: Iterable[str]) -> None:
        """The table has acknowledged the states of these jobs."""
        for job_id in job_ids:
            state = self.active.get(job_id)
            if state is None or state.ended:
                self.active.pop(job_id, None)

    def due(self, now_ms: int, jobs_max: int) -> list[str]:
        """Jobs that are due; each is returned once, until its state is set again."""
        due: list[str] = []
        while self._queue and self._queue[0][0] <= now_ms and len(due) < jobs_max:
            at, job_id = heapq.heappop(self._queue)
            if self._wakes.get(job_id) == at:
                del self._wakes[job_id]
                due.append(job_id)
        return due

    def job_ids(self) -> Iterator[str]:
        """Every job in the table."""
        return (key.decode() for key, _ in self.table.store.items())

    def _wake_at(self, job_id: str, at: int) -> None:
        if self._wakes.get(job_id) != at:
            self._wakes[job_id] = at
            heapq.heappush(self._queue, (at, job_id))


class JobStore:
    """The jobs of one tenant, by partition of `jobs`."""

    def __init__(self, tenant: str, table: LaneTable, limits: Limits) -> None:
        self.slices = Slices()
        """Shared with other tenants of the worker."""
        self.tenant = tenant
        self.table = table
        self.limits = limits
        self.counters = JobCounters()
        self.partitions: dict[int, JobsPartition] = {}

    async def open(self, number: int) -> None:
        """Reads every state of a restored partition; again if it is open already."""
        partition = self._unread(number)
        await self.slices.run(partition.table.store.items(), partial(self._read, partition))
        self.partitions[number] = partition

    def reopen(self, number: int) -> None:
        """Reads every state of an open partition again, at once."""
        partition = self._unread(number)
        self._read(partition, partition.table.store.items())
        self.partitions[number] = partition

    def _unread(self, number: int) -> JobsPartition:
        before = self.partitions.get(number)
        handled = before.handled if before is not None else MessageOutcomes()
        return JobsPartition(self.table.partition(number), self.limits, secrets.randbits(63), handled)

    def _read(self, partition: JobsPartition, items: Iterable[tuple[bytes, bytes]]) -> None:
        read = []
        for key, value in items:
            try:
                partition.put(None, decode_state(value), key.decode())
            except Exception:  # A state that cannot be read must not stop the other jobs.
                log.exception(
                    "job_state_unreadable", tenant=self.tenant, partition=partition.table.number, job=key[:80]
                )
            else:
                read.append(key.decode())
        partition.acked(read)

    def close(self, number: int) -> None:
        """Drops a revoked partition."""
        partition = self.partitions.pop(number, None)
        if partition is not None:
            partition.handled.give_up()

    @property
    def in_use(self) -> Usage:
        """Quota use of the open jobs."""
        return sum((partition.in_use for partition in self.partitions.values()), NOTHING_USED)

    def find(self, job_id: str) -> tuple[int, JobState] | None:
        """The partition and state of a job, if this worker owns it."""
        for number, partition in self.partitions.items():
            if (state := partition.state(job_id)) is not None:
                return number, state
        return None


def change_of(job_id: str, state: JobState | None) -> Change:
    """Encodes the changelog entry of a job: its key and state, or a tombstone."""
    return job_id.encode(), None if state is None else encode_state(state)

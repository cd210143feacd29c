"""The worker's own services behind the routes that are there before the streams are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from inferd.daemon.http.core import UnavailableError
from inferd.daemon.http.routes import Jobs, Predictions
from inferd.schemas.headers import Encoding

STARTING = "the worker is starting: GET /readyz says what it waits for"


class StreamsPredictions:
    """Predictions by the streams that run now; `UnavailableError` while there are none."""

    def __init__(self) -> None:
        self._streams: Predictions | None = None

    def follow(self, streams: Predictions | None) -> None:
        """Predictions are `streams`' from now on."""
        self._streams = streams

    async def predict(self, tenant: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> bytes:
        """See `Predictions`."""
        if self._streams is None:
            raise UnavailableError(STARTING)
        return await self._streams.predict(tenant, value, headers)


class StreamsOfJobs(Protocol):
    """Streams as far as jobs go; `inferd.streams.app.Streams` is one."""

    @property
    def jobs(self) -> OwnersJobs:
        """The jobs that this worker owns."""

    def peers(self) -> frozenset[str]:
        """URLs of the other workers of the group."""


class OwnersJobs(Jobs, Protocol):
    """Jobs by partitions; `inferd.streams.jobs.service.JobService` is one. Of other workers' jobs: `NotOwnerError`."""

    @property
    def partitions(self) -> int:
        """How many there are."""

    def owned_partitions(self, tenant: str) -> frozenset[int]:
        """Those that this worker owns."""


class StreamsJobs:
    """Jobs of the streams that run now; `UnavailableError` while there are none. Also the `Group` for forwarding."""

    def __init__(self) -> None:
        self._streams: StreamsOfJobs | None = None

    def follow(self, streams: StreamsOfJobs | None) -> None:
        """Jobs are `streams`' from now on."""
        self._streams = streams

    async def submit(self, tenant: str, job_id: str | None, message: bytes, encoding: Encoding) -> bytes:
        """See `Jobs`."""
        return await self._jobs.submit(tenant, job_id, message, encoding)

    async def upload(self, tenant: str, job_id: str | None, opening: bytes, rows: AsyncIterator[bytes]) -> bytes:
        """See `Jobs`."""
        return await self._jobs.upload(tenant, job_id, opening, rows)

    async def list_jobs(self, tenant: str, *, status: str | None, limit: int, after: str | None) -> Sequence[bytes]:
        """See `Jobs`."""
        return await self._jobs.list_jobs(tenant, status=status, limit=limit, after=after)

    async def status(self, tenant: str, job_id: str) -> bytes:
        """See `Jobs`."""
        return await self._jobs.status(tenant, job_id)

    async def outputs(self, tenant: str, job_id: str) -> Sequence[str]:
        """See `Jobs`."""
        return await self._jobs.outputs(tenant, job_id)

    async def results(self, tenant: str, job_id: str, *, from_row: int = 0) -> AsyncIterator[bytes]:
        """See `Jobs`."""
        async for lines in self._jobs.results(tenant, job_id, from_row=from_row):
            yield lines

    async def cancel(self, tenant: str, job_id: str) -> bytes:
        """See `Jobs`."""
        return await self._jobs.cancel(tenant, job_id)

    async def retry(self, tenant: str, job_id: str) -> bytes:
        """See `Jobs`."""
        return await self._jobs.retry(tenant, job_id)

    def peers(self) -> frozenset[str]:
        """See `Group`."""
        return frozenset() if self._streams is None else self._streams.peers()

    def owned_partitions(self, tenant: str) -> frozenset[int]:
        """See `Group`."""
        return self._jobs.owned_partitions(tenant)

    @property
    def partitions(self) -> int:
        """See `Group`."""
        return self._jobs.partitions

    @property
    def _jobs(self) -> OwnersJobs:
        if self._streams is None:
            raise UnavailableError(STARTING)
        return self._streams.jobs

"""Backends of the worker's routes; they exist before the streams start, and delegate to the running streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from inferd.daemon.http.core import UnavailableError
from inferd.daemon.http.routes import Jobs, Predictions
from inferd.schemas.codecs import Codec
from inferd.streams.http_requests import HttpAnswer

STARTING = "the worker is starting: GET /readyz shows what it waits for"


class StreamsPredictions:
    """Delegates predictions to the running streams; raises `UnavailableError` while there are none."""

    def __init__(self) -> None:
        self._streams: Predictions | None = None

    def attach(self, streams: Predictions | None) -> None:
        """Delegates to `streams` from now on."""
        self._streams = streams

    async def predict(self, tenant: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> HttpAnswer:
        """See `Predictions`."""
        if self._streams is None:
            raise UnavailableError(STARTING)
        return await self._streams.predict(tenant, value, headers)


class JobStreams(Protocol):
    """The jobs interface of the streams; implemented by `inferd.streams.app.Streams`."""

    @property
    def jobs(self) -> OwnedJobs:
        """The jobs that this worker owns."""

    def peers(self) -> frozenset[str]:
        """URLs of the other workers of the group."""


class OwnedJobs(Jobs, Protocol):
    """The jobs of the partitions that this worker owns; raises `NotOwnerError` for other jobs.

    Implemented by `inferd.streams.jobs.service.JobService`.
    """

    def partitions(self, tenant: str) -> int:
        """How many partitions of a tenant's jobs are used."""

    def owned_partitions(self, tenant: str) -> frozenset[int]:
        """The partitions that this worker owns."""


class StreamsJobs:
    """Delegates jobs to the running streams; raises `UnavailableError` while there are none. Is a `Group` too."""

    def __init__(self) -> None:
        self._streams: JobStreams | None = None

    def attach(self, streams: JobStreams | None) -> None:
        """Delegates to `streams` from now on."""
        self._streams = streams

    async def submit(self, tenant: str, job_id: str | None, message: bytes, codec: Codec) -> bytes:
        """See `Jobs`."""
        return await self._jobs.submit(tenant, job_id, message, codec)

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

    def partitions(self, tenant: str) -> int:
        """See `Group`."""
        return self._jobs.partitions(tenant)

    @property
    def _jobs(self) -> OwnedJobs:
        if self._streams is None:
            raise UnavailableError(STARTING)
        return self._streams.jobs

"""Backend of the jobs routes in a script: its `BatchPredictor`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from inferd.schemas.codecs import JSON, MSGPACK, Codec, Decoders
from inferd.schemas.errors import InvalidValueError, JobConflictError, MalformedError
from inferd.schemas.jobs import JobRows, OpenJob, RowBatch, SubmitJob, decode_job_message, job_message_limits
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests import DEFAULT_OUTPUTS, TensorRows, decode_input_data
from inferd.streams.jobs.state import opening_hash
from inferd.streams.serving import BatchPredictor, JobSpec

_ROWS = Decoders(list[Any])
PIECE_ROWS = 1_000
"""Rows per piece of a streamed response."""


class LocalJobs:
    """Implements `inferd.daemon.http.routes.services.Jobs` with a `BatchPredictor`."""

    def __init__(self, predictor: BatchPredictor, limits: Limits = DEFAULT_LIMITS) -> None:
        self._predictor, self._limits = predictor, limits

    async def submit(self, tenant: str, job_id: str | None, message: bytes, codec: Codec) -> bytes:
        """See `Jobs`."""
        return await asyncio.to_thread(self._submit, job_id, message, codec)

    async def upload(self, tenant: str, job_id: str | None, opening: bytes, rows: AsyncIterator[bytes]) -> bytes:
        """See `Jobs`."""
        opened = decode_job_message(opening, MSGPACK, self._limits)
        if not isinstance(opened, OpenJob):
            raise MalformedError("an upload must begin with an `open` message")
        held, digest = list[Any](), hashlib.blake2b(digest_size=8)
        async for value in rows:
            message = decode_job_message(value, JSON, self._limits)
            assert isinstance(message, JobRows)
            held += _rows(message.batch, self._limits)
            digest.update(message.batch.digest.to_bytes(8, "big"))
        whole = RowBatch(JSON, len(held), int.from_bytes(digest.digest(), "big"), 0, b"")
        return await asyncio.to_thread(self._open, job_id, opened, whole, lambda: held)

    async def list_jobs(self, tenant: str, *, status: str | None, limit: int, after: str | None) -> Sequence[bytes]:
        """See `Jobs`."""
        statuses = sorted((each.status() for each in self._predictor.jobs.all()), key=lambda each: str(each["job_id"]))
        wanted = (
            each for each in statuses if status in (None, each["status"]) and (after is None or each["job_id"] > after)
        )
        return [msgspec.json.encode(each) for each in islice(wanted, limit)]

    async def status(self, tenant: str, job_id: str) -> bytes:
        """See `Jobs`."""
        return msgspec.json.encode(self._predictor.get_batch_status(job_id))

    async def outputs(self, tenant: str, job_id: str) -> Sequence[str]:
        """See `Jobs`."""
        self._predictor.jobs.find(job_id)
        return DEFAULT_OUTPUTS

    async def results(self, tenant: str, job_id: str, *, from_row: int = 0) -> AsyncIterator[bytes]:
        """See `Jobs`."""
        job = self._predictor.jobs.find(job_id)
        if not job.ended.is_set():
            raise JobConflictError(f"job {job_id!r} is {job.status()['status']}: results are available once it ends")
        lines = iter([line for line in await asyncio.to_thread(lambda: list(job.lines())) if line["row"] >= from_row])
        while piece := b"".join(msgspec.json.encode(line) + b"\n" for line in islice(lines, PIECE_ROWS)):
            yield piece

    async def cancel(self, tenant: str, job_id: str) -> bytes:
        """See `Jobs`."""
        self._predictor.cancel_batch(job_id)
        return await self.status(tenant, job_id)

    async def retry(self, tenant: str, job_id: str) -> bytes:
        """See `Jobs`."""
        self._predictor.retry_batch(job_id)
        return await self.status(tenant, job_id)

    def _submit(self, job_id: str | None, message: bytes, codec: Codec) -> bytes:
        submitted = decode_job_message(message, codec, self._limits)
        if not isinstance(submitted, SubmitJob):
            raise MalformedError("body: expected model_id and input_batch")
        batch = submitted.batch
        return self._open(job_id, submitted.open, batch, lambda: _rows(batch, self._limits))

    def _open(self, job_id: str | None, opening: OpenJob, batch: RowBatch, rows: Callable[[], list[Any]]) -> bytes:
        if opening.outputs != DEFAULT_OUTPUTS:
            raise InvalidValueError("outputs: jobs of a ModelServer support the output `prediction` only")
        jobs, opened_with = self._predictor.jobs, opening_hash(opening, batch)
        existing = next((each for each in jobs.all() if each.job_id == job_id), None)
        if existing is None or existing.opened_with != opened_with:
            pinned = self._predictor.pinned(str(opening.model))
            job_id = jobs.submit(job_id, JobSpec(pinned, rows(), opening, batch.digest))
        assert job_id is not None
        return msgspec.json.encode(jobs.find(job_id).status())


def _rows(batch: RowBatch, limits: Limits) -> list[Any]:
    """The rows of a message; their values are validated when they are scored."""
    data = batch.cut(0, batch.count)
    if batch.tensor is not None:
        tensor = decode_input_data(data, batch.codec, job_message_limits(limits))
        assert isinstance(tensor, TensorRows)
        rows: list[Any] = np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape).tolist()
        return rows
    decoded: list[Any] = _ROWS[batch.codec](data)
    return decoded

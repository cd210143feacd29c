"""The asyncio client: predictions, jobs and deploys over Kafka. Needs neither Faust nor LightGBM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inferd.cluster import Cluster
from inferd.jobs import JobOptions, JobRow, Jobs, OnProgress, rows_of
from inferd.models import (
    ModelList,
    aliases_to_move,
    check_alias_target,
    check_deployable,
    keys_to_remove,
    orphaned_parts,
    read_models,
    send_alias,
    send_artifact,
    send_manifest,
    send_tombstones,
)
from inferd.predictions import Call, Exchange, PendingRequests, SentCall, sent_ahead
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.headers import ROW_ERRORS, Encoding, RawHeaders
from inferd.schemas.jobs import ChunkResult, JobStatus
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import (
    Alias,
    AliasKey,
    Manifest,
    VersionKey,
    check_alias,
    check_model_name,
)
from inferd.schemas.requests import (
    Failure,
    ModelReference,
    Output,
    Prediction,
    Result,
    decode_result,
    frame_items,
    is_frame,
)
from inferd.schemas.topics import DEFAULT_TENANT, TenantTopics

DEFAULT_CONNECTION = KafkaConnection()
TIMEOUT_S = 30.0
WINDOW = 512


class Client:
    """One tenant's way to its models. Use it with `async with`, or call `start` and `stop`.

    `connection` is a `KafkaConnection` or just `host:port,…`. Results are read from the tenant's results topic by a
    consumer without a group; `partitions` restricts the client to those partitions of requests and results, so that it
    reads fewer results of others. Every method raises `BrokerUnreachableError` (`TlsError` where it is
    TLS that fails), `AccessDeniedError` or `TopicNotFoundError` (all `ServerError`s) where the cluster does not do its
    part. Where the brokers come back under other addresses, the client asks the bootstrap servers again.
    """

    def __init__(
        self,
        connection: KafkaConnection | str = DEFAULT_CONNECTION,
        *,
        namespace: str = "inferd",
        tenant: str = DEFAULT_TENANT,
        encoding: Encoding = "msgpack",
        partitions: Sequence[int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        connect_timeout_s: float = 10.0,
    ) -> None:
        if isinstance(connection, str):
            connection = KafkaConnection(connection)
        self._limits = limits
        pending = PendingRequests(partial(decode_result, limits=limits))
        client_id = f"inferd-client-{pending.client_id}"
        self._cluster = Cluster(connection, TenantTopics(namespace, tenant), client_id, limits, connect_timeout_s)
        self._exchange = Exchange(self._cluster, pending, encoding, limits, partitions)
        self._jobs = Jobs(self._cluster, encoding, limits)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def limits(self) -> Limits:
        """Bounds of what is sent and read."""
        return self._limits

    async def start(self) -> None:
        """Connects to the cluster."""
        await self._cluster.start()

    async def stop(self) -> None:
        """Disconnects; requests that still wait for their result get `ClientClosedError`."""
        await self._exchange.stop()
        await self._cluster.stop()

    async def predict(
        self,
        model_id: str,
        input_data: Any,
        *,
        outputs: Sequence[Output] | None = None,
        key: str | bytes | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        row_errors: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> Prediction:
        """What the model says to a row (list or dict), to rows, to an array (rows, features), or to a data frame.

        `model_id` is `name`, `name:version` or `name@alias`; `key` becomes the record's key, so that requests of one
        key are answered in order. Headers such as `deadline` and `correlation-id` go along.
        With `row_errors` a bad row among several fails alone: `errors` of the prediction names it, and its values are
        None. Raises the typed `InferenceError` that the worker answered with (after sending again what may pass, such
        as `model_not_ready`), or `ResultTimeoutError`.
        """
        call = Call(model_id, input_data, outputs, _bytes(key), _raw_headers(headers, row_errors=row_errors))
        result = await self._exchange.result(await self._exchange.send(call, timeout_s))
        if isinstance(result, Failure):
            raise result.error()
        return result

    async def predict_many(
        self,
        model_id: str,
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        outputs: Sequence[Output] | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        row_errors: bool = False,
        timeout_s: float = TIMEOUT_S,
        window: int = WINDOW,
    ) -> AsyncGenerator[Result, None]:
        """The result of each item of `rows` (each is one request's `input_data`), in their order; of a data frame, the
        result of each row.

        What a worker refuses comes as a `Failure` among the results; with `row_errors` a bad row of an item fails
        alone. At most `window` requests are on their way at a
        time. `ResultTimeoutError` when a result did not come within `timeout_s` of its request.
        """
        raw_headers = _raw_headers(headers, row_errors=row_errors)
        calls = partial(Call, model_id, outputs=outputs, headers=raw_headers)

        async def send(item: Any) -> SentCall:
            sent = await self._exchange.send(calls(item), timeout_s)
            self._exchange.watch(sent)
            return sent

        items = frame_items(rows) if is_frame(rows) else rows
        async with aclosing(sent_ahead(send, items, window, self._exchange.abandon)) as on_their_way:
            async for sent in on_their_way:
                yield await self._exchange.result(sent)

    async def submit_job(  # noqa: PLR0913  (each is an option of the job)
        self,
        model_id: str,
        rows: Any,
        *,
        job_id: str | None = None,
        outputs: Sequence[Output] | None = None,
        chunk_rows: int | None = None,
        deadline: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        resume: bool = False,
        on_progress: OnProgress | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> str:
        """Has `rows` scored as a batch job; its id, once the broker has everything and a worker knows of the job.

        `rows` are rows (lists, dicts), a two-dimensional array, a data frame, or an iterable, which may be
        asynchronous, of rows or of batches (lists of rows, two-dimensional arrays, data frames); a few messages of it
        are in memory at a time.
        `chunk_rows`: rows scored and published together; `deadline`: when all rows must have come, else the job ends
        as `incomplete`; `labels` come back in its statuses, and `headers` (`traceparent`, `tracestate`,
        `correlation-id`) with the results of its chunks.

        Where `rows` raise an `InferenceError`, or no `job_id` was given, a failure while they are sent cancels the job.
        After an interruption, call it again with the same rows, options and `job_id`: what the job has, changes
        nothing. With `resume` messages that the job has, as its status says, are not sent again. `on_progress` is told
        how far it is. Raises what the job is refused with: `JobConflictError` (the id is another job's),
        `ChunkConflictError` (rows differ from those sent before), `JobClosedError`, `ModelNotFoundError`,
        `QuotaExceededError`, …; `ResultTimeoutError` where everything is sent and no worker says anything within
        `timeout_s`: the job waits for one then.
        """
        deadline_ms = None if deadline is None else _unix_ms(deadline)
        options = JobOptions(outputs, chunk_rows, deadline_ms, labels, _raw_headers(headers))
        return await self._jobs.submit(
            model_id, rows, job_id, options, timeout_s, resume=resume, on_progress=on_progress
        )

    async def job_status(self, job_id: str) -> JobStatus:
        """How a job stands, as its workers told last; `JobNotFoundError`."""
        return await self._jobs.status(job_id)

    async def list_jobs(self) -> list[JobStatus]:
        """The status of each job of the tenant, in the order of submission."""
        return await self._jobs.list()

    async def watch_job(self, job_id: str) -> AsyncGenerator[JobStatus, None]:
        """The status of a job and those that follow it, about one a second, to the terminal one; `JobNotFoundError`."""
        async with aclosing(self._jobs.watch(job_id)) as statuses:
            async for status in statuses:
                yield status

    async def job_results(self, job_id: str, from_row: int = 0) -> AsyncGenerator[JobRow, None]:
        """What became of each row of a job that has ended, in row order from `from_row` on, retries included.

        Of a job that is `cancelled`, `incomplete` or `failed`, the rows that were scored. `JobNotFoundError`;
        `JobConflictError` while it goes on; `JobExpiredError` where results are past their retention.
        """
        async with aclosing(self._jobs.result_chunks(job_id, from_row)) as chunks:
            async for chunk in chunks:
                for row in rows_of(chunk, from_row):
                    yield row

    async def job_result_chunks(self, job_id: str, from_row: int = 0) -> AsyncGenerator[ChunkResult, None]:
        """As `job_results`, by chunks as they were scored: lists of values. The first one has `from_row` in it."""
        async with aclosing(self._jobs.result_chunks(job_id, from_row)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def cancel_job(self, job_id: str, *, timeout_s: float = TIMEOUT_S) -> JobStatus:
        """Ends a job; its status once it is `cancelled`, after which no result follows.

        `JobNotFoundError`; `JobClosedError` where it has ended otherwise; `ResultTimeoutError`.
        """
        return await self._jobs.cancel(job_id, timeout_s)

    async def retry_job(self, job_id: str, *, timeout_s: float = TIMEOUT_S) -> JobStatus:
        """Scores the failed rows of a job once more; a status of that attempt.

        `JobNotFoundError`; `JobConflictError` or `JobClosedError` where it is not `completed_with_errors`;
        `ResultTimeoutError`.
        """
        return await self._jobs.retry(job_id, timeout_s)

    async def deploy_model(
        self, model: bytes | str | Path, manifest: Manifest, *, alias: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Manifest:
        """Deploys the version that `manifest` describes, and points `alias` at it; returns once the broker has it all.

        `model` is the model file's bytes or its path. Workers try the version before they serve it. `InvalidValueError`
        where the manifest is not this model's, `VersionExistsError` where the version is there and differs. For a
        manifest made from the model file see `inferd.deploy.manifest_from_file`.
        """
        data = model if isinstance(model, bytes) else await asyncio.to_thread(Path(model).read_bytes)
        key = None if alias is None else AliasKey(manifest.model_id, check_model_name(alias))
        check_deployable(await self.models(timeout_s=timeout_s), data, manifest, self._limits)
        await send_artifact(self._cluster, data, manifest.sha256, self._limits.artifact_part_bytes_max)
        await send_manifest(self._cluster, manifest, self._limits)
        if key is not None:
            await send_alias(self._cluster, key, Alias(version=manifest.version), self._limits)
        return manifest

    async def set_alias(self, model_id: str, alias: str, target: Alias, *, timeout_s: float = TIMEOUT_S) -> None:
        """Points `model_id@alias` at a version, or splits it; returns once the broker has it.

        `ModelNotFoundError` or `VersionNotFoundError` where a version that `target` names is not there.
        """
        key = AliasKey(check_model_name(model_id), check_model_name(alias))
        check_alias_target(await self.models(timeout_s=timeout_s), key, check_alias(target))
        await send_alias(self._cluster, key, target, self._limits)

    async def remove_model(
        self,
        reference: str,
        *,
        everything: bool = False,
        move_aliases_to: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[str]:
        """Removes `name:version`, `name@alias`, or, where `everything` is asked for, all of `name`.

        A version that an alias leads to is removed only with `move_aliases_to`, another version: the aliases lead there
        before the version goes. Returns the keys of the removed records. `ModelNotFoundError` or
        `VersionNotFoundError` where there is none, `VersionInUseError` where an alias would lead nowhere.
        """
        models = await self.models(timeout_s=timeout_s)
        removed = keys_to_remove(models, ModelReference.parse(reference), everything=everything)
        for key, alias in aliases_to_move(models, removed, move_aliases_to).items():
            await send_alias(self._cluster, key, alias, self._limits)
        await send_tombstones(self._cluster, "models", removed)
        orphans = orphaned_parts(models, removed, self._limits.artifact_part_bytes_max)
        await send_tombstones(self._cluster, "model-artifacts", orphans)
        return [str(key) for key in removed]

    async def list_models(self, *, timeout_s: float = TIMEOUT_S) -> list[Manifest]:
        """The deployed versions, by name and number. Whether a worker serves them is in its `/status`."""
        models = await self.models(timeout_s=timeout_s)
        return [models.versions[key] for key in sorted(models.versions, key=_version_order)]

    async def models(self, *, timeout_s: float = TIMEOUT_S) -> ModelList:
        """Versions, aliases and unreadable records of the `models` topic as it is now."""
        return await read_models(self._cluster, timeout_s, self._limits)


def _unix_ms(time: datetime) -> int:
    """Times without a zone are local."""
    return round(time.timestamp() * 1_000)


def _version_order(key: VersionKey) -> tuple[str, int]:
    return key.model_id, key.version


def _bytes(text: str | bytes | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text


def _raw_headers(headers: Mapping[str, str | bytes] | None, *, row_errors: bool = False) -> RawHeaders:
    given = tuple(
        (name, value.encode() if isinstance(value, str) else value) for name, value in (headers or {}).items()
    )
    return (*given, (ROW_ERRORS, b"true")) if row_errors else given

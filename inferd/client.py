"""The asyncio client: predictions, jobs and deploys over Kafka. Needs neither Faust nor LightGBM."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inferd.audit import AuditLog
from inferd.capture import read_captured
from inferd.cluster import Cluster
from inferd.jobs import JobOptions, JobRow, Jobs, OnProgress, rows_of
from inferd.labels import send_labels
from inferd.models import Author, ModelChanges, ModelList, ModelLog
from inferd.monitoring import DriftReport, WindowLog
from inferd.predictions import Call, Exchange, PendingRequests, SentCall, sent_ahead
from inferd.redrive import OnRedriven, Redrive, Selection
from inferd.replay import Replay, Replayed
from inferd.rollouts import Rollouts
from inferd.routes import RouteLog, Start
from inferd.schemas.audit import AuditRecord
from inferd.schemas.capture import CapturedRequest
from inferd.schemas.codecs import MSGPACK, codec_named
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import InvalidValueError
from inferd.schemas.headers import ROW_ERRORS, RawHeaders
from inferd.schemas.jobs import ChunkResult, JobStatus
from inferd.schemas.labels import Label
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import (
    Alias,
    AliasKey,
    AliasTarget,
    Manifest,
    Pause,
    PauseKey,
    VersionKey,
    alias_text,
    check_model_name,
    check_target,
)
from inferd.schemas.monitoring import Baseline, QualityReport, WindowStats, quality_reports
from inferd.schemas.redrive import ATTEMPTS_MAX, RedriveReport
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
from inferd.schemas.routes import Route, RouteNotFoundError, check_route_name
from inferd.schemas.topics import DEFAULT_TENANT, TenantTopics

DEFAULT_CONNECTION = KafkaConnection()
TIMEOUT_S = 30.0
WINDOW = 512


class Client:
    """A client of one tenant. Use it with `async with`, or call `start` and `stop`.

    `connection` is a `KafkaConnection` or a string `host:port,…`. Results are read from the tenant's results topic by a
    consumer without a group. `partitions` restricts the client to these partitions of requests and results, so that it
    reads fewer results of other clients. Every method raises `BrokerUnreachableError` (`TlsError` if TLS fails),
    `AccessDeniedError` or `TopicNotFoundError` (all `ServerError`s) for problems of the cluster. If brokers return with
    other addresses, the client asks the bootstrap servers again.
    """

    def __init__(
        self,
        connection: KafkaConnection | str = DEFAULT_CONNECTION,
        *,
        namespace: str = "inferd",
        tenant: str = DEFAULT_TENANT,
        encoding: str = MSGPACK.name,
        partitions: Sequence[int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        connect_timeout_s: float = 10.0,
    ) -> None:
        if isinstance(connection, str):
            connection = KafkaConnection(connection)
        self._limits, codec = limits, codec_named(encoding)
        pending = PendingRequests(partial(decode_result, limits=limits))
        client_id = f"inferd-client-{pending.client_id}"
        self._cluster = Cluster(connection, TenantTopics(namespace, tenant), client_id, limits, connect_timeout_s)
        self._model_log = ModelLog(self._cluster, limits)
        self._model_changes = ModelChanges(self._model_log, limits)
        self._aliases = self._model_changes.aliases
        self._exchange = Exchange(self._cluster, self._model_log, pending, codec, limits, partitions)
        self._jobs = Jobs(self._cluster, codec, limits)
        self._windows = WindowLog(self._cluster, self._model_log)
        self._routes = RouteLog(self._cluster, self._model_log, limits)
        self.audit = AuditLog(self._cluster, client_id)
        """Writes who changed what; `audit_records` reads it."""
        self._replay = Replay(self._cluster, self._jobs, limits)
        self._redrive = Redrive(self._cluster, self.audit)
        self.rollouts = Rollouts(self._cluster, self._model_log, self.audit)
        """Starts, steers and shows rollouts."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def limits(self) -> Limits:
        """Limits of records that are sent and read."""
        return self._limits

    async def start(self) -> None:
        """Connect to the cluster."""
        await self._cluster.start()

    async def stop(self) -> None:
        """Disconnect; pending requests fail with `ClientClosedError`."""
        await self._exchange.stop()
        await self._model_log.stop()
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
        """The prediction for a row (list or dict), for rows, an array (rows, features), or a data frame.

        `model_id` is `name`, `name:version` or `name@alias`. `key` is the record's key; requests with the same key are
        answered in order. `headers` are record headers, such as `deadline` and `correlation-id`. With `row_errors` a
        bad row fails alone: `errors` of the prediction names it, and its values are None. Raises the `InferenceError`
        of the error result, after retrying transient ones such as `model_not_ready`, or `ResultTimeoutError`.
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
        """The results for the items of `rows`, in order; each item is the `input_data` of one request. A data frame has
        one item per row.

        An error result is a `Failure` among the results; with `row_errors` a bad row of an item fails alone. At most
        `window` requests are in flight. `ResultTimeoutError` if a result does not arrive within `timeout_s` of its
        request.
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
        """Submit `rows` as a batch job; returns its id once the broker has all messages and a worker has the job.

        `rows` are rows (lists, dicts), a two-dimensional array, a data frame, or an iterable, sync or async, of rows or
        of batches (lists of rows, two-dimensional arrays, data frames); only a few messages are in memory at a time.
        `chunk_rows`: rows scored and published together; `deadline`: time by which all rows must have arrived, else the
        job ends as `incomplete`; `labels` are returned in its statuses, and `headers` (`traceparent`, `tracestate`,
        `correlation-id`) are propagated to the results of its chunks.

        A failure during submission cancels the job if `rows` raised an `InferenceError` or no `job_id` was given. After
        an interruption, call it again with the same rows, options and `job_id`: messages that the job already has are
        ignored. With `resume` they are not even sent, according to the job's status. `on_progress` is called with the
        progress. Raises the error that rejects the job: `JobConflictError` (the id belongs to another job),
        `ChunkConflictError` (rows differ from those sent before), `JobClosedError`, `ModelNotFoundError`,
        `QuotaExceededError`, …; `ResultTimeoutError` if everything was sent but no worker responded within `timeout_s`:
        the job then waits for a worker.
        """
        deadline_ms = None if deadline is None else _unix_ms(deadline)
        options = JobOptions(outputs, chunk_rows, deadline_ms, labels, _raw_headers(headers))
        return await self._jobs.submit(
            model_id, rows, job_id, options, timeout_s, resume=resume, on_progress=on_progress
        )

    async def job_status(self, job_id: str) -> JobStatus:
        """The latest status of a job; `JobNotFoundError`."""
        return await self._jobs.status(job_id)

    async def list_jobs(self) -> list[JobStatus]:
        """The latest statuses of the tenant's jobs, in order of submission."""
        return await self._jobs.list()

    async def watch_job(self, job_id: str) -> AsyncGenerator[JobStatus, None]:
        """The statuses of a job as they are published, about one per second, up to the terminal one;
        `JobNotFoundError`."""
        async with aclosing(self._jobs.watch(job_id)) as statuses:
            async for status in statuses:
                yield status

    async def job_results(self, job_id: str, from_row: int = 0) -> AsyncGenerator[JobRow, None]:
        """The result of each row of an ended job, in row order from `from_row` on, retries included.

        A `cancelled`, `incomplete` or `failed` job has the rows that were scored. `JobNotFoundError`;
        `JobConflictError` if it has not ended; `JobExpiredError` if results are past their retention.
        """
        async with aclosing(self._jobs.result_chunks(job_id, from_row)) as chunks:
            async for chunk in chunks:
                for row in rows_of(chunk, from_row):
                    yield row

    async def job_result_chunks(self, job_id: str, from_row: int = 0) -> AsyncGenerator[ChunkResult, None]:
        """Like `job_results`, but one item per chunk, with lists of values. The first chunk contains `from_row`."""
        async with aclosing(self._jobs.result_chunks(job_id, from_row)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def cancel_job(self, job_id: str, *, timeout_s: float = TIMEOUT_S) -> JobStatus:
        """Cancel a job; returns its status once it is `cancelled`. No result is published after that.

        `JobNotFoundError`; `JobClosedError` if it has ended otherwise; `ResultTimeoutError`.
        """
        status = await self._jobs.cancel(job_id, timeout_s)
        await self.audit.note("cancel", job_id)
        return status

    async def retry_job(self, job_id: str, *, timeout_s: float = TIMEOUT_S) -> JobStatus:
        """Score the failed rows of a job again; returns the first status of the new attempt.

        `JobNotFoundError`; `JobConflictError` or `JobClosedError` if it is not `completed_with_errors`;
        `ResultTimeoutError`.
        """
        status = await self._jobs.retry(job_id, timeout_s)
        await self.audit.note("retry", job_id)
        return status

    async def deploy_model(
        self, model: bytes | str | Path, manifest: Manifest, *, alias: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Manifest:
        """Deploy the version that `manifest` describes and point `alias` at it; returns once all is acknowledged.

        `model` is the model file's bytes or its path. Workers try the version before they serve it. `InvalidValueError`
        if the manifest does not match the model file. `VersionExistsError` if the version has other content, also if it
        was removed, or another client deploys it at the same time. Returns the manifest of the version, which has an
        earlier `created_at` if the same content was deployed before. `inferd.deploy.deploy_file` derives the manifest
        from the model file.
        """
        data = model if isinstance(model, bytes) else await asyncio.to_thread(Path(model).read_bytes)
        if alias is not None:
            check_model_name(alias)
        deployed = await self._model_changes.deploy(data, manifest, alias, timeout_s)
        subject = f"{deployed.model_id}:{deployed.version}"
        await self.audit.note("deploy", subject, alias=alias, sha256=deployed.sha256, bytes=deployed.size)
        return deployed

    async def set_baseline(
        self, model_id: str, version: int, baseline: Baseline, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Set what the features and predictions of a version are compared with. It replaces an earlier baseline.

        `inferd.deploy.baseline_of` makes one of rows. `VersionNotFoundError` if the version is not deployed.
        """
        await self._model_changes.set_baseline(VersionKey(check_model_name(model_id), version), baseline, timeout_s)
        await self.audit.note("baseline", f"{model_id}:{version}", rows=baseline.rows)

    async def model_windows(
        self,
        model_id: str,
        *,
        version: int | None = None,
        since_s: float = 3_600.0,
        group: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[WindowStats]:
        """What versions of a model scored in the last `since_s` seconds: one window for each minute, version, variant
        and alias revision, in order of time. They add up (`inferd.schemas.monitoring.merge`).

        `group`: the consumer group of the workers; default: the namespace.
        """
        return await self._windows.windows(check_model_name(model_id), version, since_s, group, timeout_s)

    async def model_drift(
        self,
        model_id: str,
        *,
        version: int | None = None,
        since_s: float = 3_600.0,
        group: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[DriftReport]:
        """How far what versions scored in the last `since_s` seconds is from their baselines; one report for each
        version that has scored. `VersionNotFoundError`. `group` as for `model_windows`."""
        return await self._windows.drift(check_model_name(model_id), version, since_s, group, timeout_s)

    async def model_quality(
        self,
        model_id: str,
        *,
        version: int | None = None,
        since_s: float = 3_600.0,
        group: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[QualityReport]:
        """How good predictions of the last `since_s` seconds were, by the labels that have come: one report for each
        version, alias and variant that has labels. `group` as for `model_windows`."""
        windows = await self.model_windows(
            model_id, version=version, since_s=since_s, group=group, timeout_s=timeout_s
        )  # fmt: skip
        return quality_reports(windows)

    async def set_alias(
        self,
        model_id: str,
        alias: str,
        target: AliasTarget | int,
        *,
        revision: int | None = None,
        changed_by: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Alias:
        """Point `model_id@alias` at a version, or at an `AliasTarget` such as a split; returns the alias as it is then.

        `revision`: the one that the caller knows; 0 for an alias that was never set. `changed_by` is kept in the
        history; default: user and machine. If the alias has that target already, nothing changes. `AliasChangedError`
        if it has another revision, or is changed by somebody else at the same time. `ModelNotFoundError` or
        `VersionNotFoundError` if a version that `target` names does not exist.
        """
        checked = check_target(AliasTarget(version=target) if isinstance(target, int) else target)
        key = _alias_key(model_id, alias)
        changed = await self._aliases.set(key, checked, Author(changed_by, revision), timeout_s)
        return await self._note_alias(key, changed, "set", changed_by)

    async def rollback_alias(
        self,
        model_id: str,
        alias: str,
        *,
        revision: int | None = None,
        changed_by: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Alias:
        """Point `model_id@alias` at what it pointed at before its last change; returns the alias as it is then.

        Again, it undoes the change before that one: it never returns to a target that was rolled back. Options and
        errors as for `set_alias`; `NoEarlierTargetError` if no earlier target is known.
        """
        key = _alias_key(model_id, alias)
        changed = await self._aliases.rollback(key, Author(changed_by, revision), timeout_s)
        return await self._note_alias(key, changed, "rollback", changed_by)

    async def promote_alias(
        self,
        model_id: str,
        alias: str,
        to: str,
        *,
        revision: int | None = None,
        changed_by: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Alias:
        """Point `model_id@to` at what `model_id@alias` points at; returns the former as it is then.

        Options and errors as for `set_alias`; `revision` is that of `model_id@to`.
        """
        source, key = _alias_key(model_id, alias), _alias_key(model_id, to)
        changed = await self._aliases.promote(source, key, Author(changed_by, revision), timeout_s)
        return await self._note_alias(key, changed, f"promote {source.alias}", changed_by)

    async def remove_model(
        self,
        reference: str,
        *,
        everything: bool = False,
        move_aliases_to: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[str]:
        """Remove `name:version`, `name@alias`, or with `everything` all of `name`; returns the removed record keys.

        A version that an alias points at is removed only with `move_aliases_to`, another version, at which the aliases
        are pointed first; otherwise `VersionInUseError`. `ModelNotFoundError` or `VersionNotFoundError` if nothing
        matches.
        """
        removed = await self._model_changes.remove(
            ModelReference.parse(reference), move_aliases_to, timeout_s, everything=everything
        )
        await self.audit.note("remove", reference, removed=", ".join(removed), aliases_moved_to=move_aliases_to)
        return removed

    async def list_models(self, *, timeout_s: float = TIMEOUT_S) -> list[Manifest]:
        """The deployed versions, by name and number. A worker's `/status` shows which ones it serves."""
        models = await self.models(timeout_s=timeout_s)
        return [models.versions[key] for key in sorted(models.versions, key=_version_order)]

    async def models(self, *, timeout_s: float = TIMEOUT_S) -> ModelList:
        """Versions, aliases and undecodable records of the `models` topic."""
        return await self._model_log.read(timeout_s)

    async def send_labels(self, labels: Iterable[Label] | AsyncIterable[Label]) -> int:
        """Sends what was true of requests, by their ids; returns how many labels once all are acknowledged. Workers
        join them with predictions if `INFERD_LABELS_WINDOW_S` is above 0. `InvalidValueError` for an invalid label:
        those before it are sent."""
        return await send_labels(self._cluster, labels, self._limits)

    async def captured(self, model: str, *, since: datetime | None = None) -> AsyncGenerator[CapturedRequest, None]:
        """Captured requests to a model `name`, or to a version `name:version`, that are in the topic now, partition by
        partition; `since`: written since then. Workers capture the share `INFERD_CAPTURE_SHARE` of the requests.
        """
        async with aclosing(read_captured(self._cluster, ModelReference.parse(model), since)) as found:
            async for captured in found:
                yield captured

    async def create_route(
        self, route: Route, *, start: Start = "latest", replace: bool = False, timeout_s: float = TIMEOUT_S
    ) -> Route:
        """Create a route; returns it, with the offsets from which it reads, once the broker has acknowledged it.

        `start`: `latest` (records from now on), `earliest`, or a time. Every running worker whose settings allow its
        topics begins to process it. With `replace` a route of the same name is changed, and keeps its offsets.
        Raises `RouteExistsError` if the name is taken, if another route reads one of the topics, or if the route closes
        a circle; `TopicNotFoundError` for a source or a sink; `ModelNotFoundError` or `VersionNotFoundError`;
        `SchemaMismatchError` for a feature and `InvalidValueError` for an output that the model does not have;
        `InvalidValueError` for topics of inferd itself.
        """
        created = await self._routes.create(route, start, timeout_s, replace=replace)
        await self.audit.note("route", route.name, change="replace" if replace else "create", model=route.model)
        return created

    async def routes(self, *, timeout_s: float = TIMEOUT_S) -> list[Route]:
        """The routes of the tenant, by name."""
        return list((await self._routes.read(timeout_s)).values())

    async def remove_route(self, name: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Remove a route; workers stop processing it. `RouteNotFoundError`."""
        await self._routes.remove(name, timeout_s)
        await self.audit.note("route", name, change="remove")

    async def audit_records(self, *, since: datetime | None = None) -> AsyncGenerator[AuditRecord, None]:
        """Who changed what, oldest first: the records that are in the audit topic now; `since`: written since then."""
        async with aclosing(self.audit.read(since)) as found:
            async for record in found:
                yield record

    async def redrive_dead_letters(
        self,
        *,
        code: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
        route: str | None = None,
        attempts_max: int = ATTEMPTS_MAX,
        dry_run: bool = False,
        on_progress: OnRedriven = lambda _report: None,
    ) -> RedriveReport:
        """Send dead letters again to the partition that they were read from; returns how many.

        `code`: only those with this error code; `since`: written since then; `limit`: at most so many. Without `route`,
        those of the tenant's own topics; with it, those of the route's sources, which other readers of these topics
        see again, too. A record that was redriven `attempts_max` times is skipped. Each dead letter is redriven once,
        however often this is called, also if it is killed in between; a later call ends one that is running. With
        `dry_run` nothing is sent. `RouteNotFoundError`.
        """
        topics = None
        if route is not None:
            topics = (await self._existing_route(route)).source.topics
        selection = Selection(code, since, limit, attempts_max)
        return await self._redrive.run(selection, topics, dry_run=dry_run, on_progress=on_progress)

    async def replay(
        self,
        model: str,
        *,
        since: datetime,
        until: datetime | None = None,
        limit: int | None = None,
        compare: bool = False,
        job_id: str | None = None,
        timeout_s: float = TIMEOUT_S,
        on_progress: Callable[[str], None] = lambda _line: None,
    ) -> Replayed:
        """Score past requests to a model again with `model` (`name:version` or `name@alias`), as a job.

        They are read from the topic of requests, between two times and partition by partition; no worker is stopped,
        and no offset is moved. Requests in other protocols are left out. With `compare` it waits for the job, and
        compares its predictions with the results that are still in their topic, and with labels. `limit`: at most so
        many requests. `InvalidValueError` if there are none, and the errors of `submit_job`.
        """
        reference = ModelReference.parse(model)
        done = await self._replay.run(
            reference, since, until, job_id=job_id, limit=limit, compare=compare, timeout_s=timeout_s,
            on_progress=on_progress,
        )  # fmt: skip
        await self.audit.note("replay", model, job=done.job_id, requests=done.requests, since=since.isoformat())
        return done

    async def pause(
        self,
        *,
        model: str | None = None,
        route: str | None = None,
        reason: str | None = None,
        changed_by: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Pause:
        """Let the requests and the jobs' chunks of a model wait, or the records of a route; returns the pause.

        Workers leave them in their topics until `resume`, also after restarts. Requests behind them in their partition
        wait, too; those over HTTP fail with `ModelNotReadyError`. `ModelNotFoundError`, `RouteNotFoundError`.
        """
        key = _pause_key(model, route)
        if route is not None:
            await self._existing_route(route, timeout_s)
        pause = Pause(at=int(time.time() * 1_000), by=self.audit.actor(changed_by).name, reason=reason)
        await self._model_changes.pause(key, pause, timeout_s)
        await self.audit.note("pause", f"{key.kind} {key.name}", changed_by=changed_by, reason=reason)
        return pause

    async def resume(
        self,
        *,
        model: str | None = None,
        route: str | None = None,
        changed_by: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> bool:
        """Process what waits since `pause`; False if it was not paused."""
        key = _pause_key(model, route)
        resumed = await self._model_changes.resume(key, timeout_s)
        if resumed:
            await self.audit.note("resume", f"{key.kind} {key.name}", changed_by=changed_by)
        return resumed

    async def pauses(self, *, timeout_s: float = TIMEOUT_S) -> dict[PauseKey, Pause]:
        """What is paused: models and routes, since when and by whom."""
        return dict(sorted((await self.models(timeout_s=timeout_s)).pauses.items()))

    async def _existing_route(self, name: str, timeout_s: float = TIMEOUT_S) -> Route:
        """The route; `RouteNotFoundError`."""
        for route in await self.routes(timeout_s=timeout_s):
            if route.name == name:
                return route
        raise RouteNotFoundError(f"there is no route {name!r}; `inferd routes list` shows what there is")

    async def _note_alias(self, key: AliasKey, changed: Alias, change: str, changed_by: str | None) -> Alias:
        await self.audit.note(
            "alias", str(key), changed_by=changed_by, change=change, target=alias_text(changed),
            revision=changed.revision,
        )  # fmt: skip
        return changed


def _unix_ms(time: datetime) -> int:
    """A time without a time zone is local time."""
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


def _pause_key(model: str | None, route: str | None) -> PauseKey:
    """The key of the one that is given; `InvalidValueError` unless it is exactly one."""
    if model is not None and route is None:
        return PauseKey("model", check_model_name(model))
    if route is not None and model is None:
        return PauseKey("route", check_route_name(route))
    raise InvalidValueError("name either a model or a route")


def _alias_key(model_id: str, alias: str) -> AliasKey:
    return AliasKey(check_model_name(model_id), check_model_name(alias))

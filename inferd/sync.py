"""The synchronous client: the methods of `Client` for programs without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from inferd.client import (
    DEFAULT_CONNECTION,
    TIMEOUT_S,
    WINDOW,
    Client,
)
from inferd.errors import ClientClosedError
from inferd.jobs import JobRow, OnProgress
from inferd.models import ModelList
from inferd.monitoring import DriftReport
from inferd.replay import Replayed
from inferd.rollouts import Rollouts
from inferd.routes import Start
from inferd.schemas.audit import AuditRecord
from inferd.schemas.capture import CapturedRequest
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.jobs import ChunkResult, JobStatus
from inferd.schemas.labels import Label
from inferd.schemas.models import Alias, AliasTarget, Manifest, Pause, PauseKey
from inferd.schemas.monitoring import Baseline, QualityReport, WindowStats
from inferd.schemas.redrive import RedriveReport
from inferd.schemas.requests import Output, Prediction, Result
from inferd.schemas.rollouts import RolloutStatus
from inferd.schemas.routes import Route

T = TypeVar("T")

CHUNK_RESULTS = 256
# How long a chunk that is not empty waits for more results.
CHUNK_WAIT_S = 0.002


class SyncClient:
    """`inferd.Client` without `await`; its event loop runs in a background thread. Thread-safe.

    Use it with `with`, or call `start` and `stop`. Options are those of `Client`.
    """

    def __init__(self, connection: KafkaConnection | str = DEFAULT_CONNECTION, **options: Any) -> None:
        self._client = Client(connection, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.rollouts = SyncRollouts(self._client.rollouts, self._wait, self._iterate)
        """Like `Client.rollouts`."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the background thread and connect to the cluster."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="inferd-client", daemon=True)
        self._thread.start()
        try:
            self._wait(self._client.start())
        except BaseException:
            self._end_thread()
            raise

    def stop(self) -> None:
        """Disconnect and end the background thread; idempotent."""
        if self._loop is None:
            return
        try:
            self._wait(self._client.stop())
        finally:
            self._end_thread()

    def predict(
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
        """Like `Client.predict`."""
        return self._wait(
            self._client.predict(
                model_id,
                input_data,
                outputs=outputs,
                key=key,
                headers=headers,
                row_errors=row_errors,
                timeout_s=timeout_s,
            )
        )

    def predict_many(
        self,
        model_id: str,
        rows: Iterable[Any],
        *,
        outputs: Sequence[Output] | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        row_errors: bool = False,
        timeout_s: float = TIMEOUT_S,
        window: int = WINDOW,
    ) -> Iterator[Result]:
        """Like `Client.predict_many`; `rows` is iterated in the background thread."""
        results = self._client.predict_many(
            model_id,
            rows,
            outputs=outputs,
            headers=headers,
            row_errors=row_errors,
            timeout_s=timeout_s,
            window=window,
        )
        return self._iterate(results)

    def submit_job(  # noqa: PLR0913  (as `Client.submit_job`)
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
        """Like `Client.submit_job`; `rows` is iterated and `on_progress` called in the background thread."""
        return self._wait(
            self._client.submit_job(
                model_id,
                rows,
                job_id=job_id,
                outputs=outputs,
                chunk_rows=chunk_rows,
                deadline=deadline,
                labels=labels,
                headers=headers,
                resume=resume,
                on_progress=on_progress,
                timeout_s=timeout_s,
            )
        )

    def job_status(self, job_id: str) -> JobStatus:
        """Like `Client.job_status`."""
        return self._wait(self._client.job_status(job_id))

    def list_jobs(self) -> list[JobStatus]:
        """Like `Client.list_jobs`."""
        return self._wait(self._client.list_jobs())

    def watch_job(self, job_id: str) -> Iterator[JobStatus]:
        """Like `Client.watch_job`."""
        return self._iterate(self._client.watch_job(job_id))

    def job_results(self, job_id: str, from_row: int = 0) -> Iterator[JobRow]:
        """Like `Client.job_results`."""
        return self._iterate(self._client.job_results(job_id, from_row))

    def job_result_chunks(self, job_id: str, from_row: int = 0) -> Iterator[ChunkResult]:
        """Like `Client.job_result_chunks`."""
        return self._iterate(self._client.job_result_chunks(job_id, from_row))

    def send_labels(self, labels: Iterable[Label]) -> int:
        """Like `Client.send_labels`."""
        return self._wait(self._client.send_labels(labels))

    def captured(self, model: str, *, since: datetime | None = None) -> Iterator[CapturedRequest]:
        """Like `Client.captured`."""
        return self._iterate(self._client.captured(model, since=since))

    def cancel_job(self, job_id: str, *, timeout_s: float = TIMEOUT_S) -> JobStatus:
        """Like `Client.cancel_job`."""
        return self._wait(self._client.cancel_job(job_id, timeout_s=timeout_s))

    def retry_job(self, job_id: str, *, timeout_s: float = TIMEOUT_S) -> JobStatus:
        """Like `Client.retry_job`."""
        return self._wait(self._client.retry_job(job_id, timeout_s=timeout_s))

    def deploy_model(
        self, model: bytes | str | Path, manifest: Manifest, *, alias: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Manifest:
        """Like `Client.deploy_model`."""
        return self._wait(self._client.deploy_model(model, manifest, alias=alias, timeout_s=timeout_s))

    def set_alias(
        self,
        model_id: str,
        alias: str,
        target: AliasTarget | int,
        *,
        revision: int | None = None,
        changed_by: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Alias:
        """Like `Client.set_alias`."""
        return self._wait(
            self._client.set_alias(
                model_id, alias, target, revision=revision, changed_by=changed_by, timeout_s=timeout_s
            )
        )

    def set_baseline(self, model_id: str, version: int, baseline: Baseline, *, timeout_s: float = TIMEOUT_S) -> None:
        """Like `Client.set_baseline`."""
        self._wait(self._client.set_baseline(model_id, version, baseline, timeout_s=timeout_s))

    def model_windows(
        self,
        model_id: str,
        *,
        version: int | None = None,
        since_s: float = 3_600.0,
        group: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[WindowStats]:
        """Like `Client.model_windows`."""
        return self._wait(
            self._client.model_windows(model_id, version=version, since_s=since_s, group=group, timeout_s=timeout_s)
        )

    def model_drift(
        self,
        model_id: str,
        *,
        version: int | None = None,
        since_s: float = 3_600.0,
        group: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[DriftReport]:
        """Like `Client.model_drift`."""
        return self._wait(
            self._client.model_drift(model_id, version=version, since_s=since_s, group=group, timeout_s=timeout_s)
        )

    def model_quality(
        self,
        model_id: str,
        *,
        version: int | None = None,
        since_s: float = 3_600.0,
        group: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[QualityReport]:
        """Like `Client.model_quality`."""
        return self._wait(
            self._client.model_quality(model_id, version=version, since_s=since_s, group=group, timeout_s=timeout_s)
        )

    def rollback_alias(
        self,
        model_id: str,
        alias: str,
        *,
        revision: int | None = None,
        changed_by: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Alias:
        """Like `Client.rollback_alias`."""
        return self._wait(
            self._client.rollback_alias(model_id, alias, revision=revision, changed_by=changed_by, timeout_s=timeout_s)
        )

    def promote_alias(
        self,
        model_id: str,
        alias: str,
        to: str,
        *,
        revision: int | None = None,
        changed_by: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Alias:
        """Like `Client.promote_alias`."""
        return self._wait(
            self._client.promote_alias(
                model_id, alias, to, revision=revision, changed_by=changed_by, timeout_s=timeout_s
            )
        )

    def remove_model(
        self,
        reference: str,
        *,
        everything: bool = False,
        move_aliases_to: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[str]:
        """Like `Client.remove_model`."""
        removal = self._client.remove_model(
            reference, everything=everything, move_aliases_to=move_aliases_to, timeout_s=timeout_s
        )
        return self._wait(removal)

    def list_models(self, *, timeout_s: float = TIMEOUT_S) -> list[Manifest]:
        """Like `Client.list_models`."""
        return self._wait(self._client.list_models(timeout_s=timeout_s))

    def models(self, *, timeout_s: float = TIMEOUT_S) -> ModelList:
        """Like `Client.models`."""
        return self._wait(self._client.models(timeout_s=timeout_s))

    def create_route(
        self, route: Route, *, start: Start = "latest", replace: bool = False, timeout_s: float = TIMEOUT_S
    ) -> Route:
        """Like `Client.create_route`."""
        return self._wait(self._client.create_route(route, start=start, replace=replace, timeout_s=timeout_s))

    def routes(self, *, timeout_s: float = TIMEOUT_S) -> list[Route]:
        """Like `Client.routes`."""
        return self._wait(self._client.routes(timeout_s=timeout_s))

    def remove_route(self, name: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Like `Client.remove_route`."""
        self._wait(self._client.remove_route(name, timeout_s=timeout_s))

    def audit_records(self, *, since: datetime | None = None) -> Iterator[AuditRecord]:
        """Like `Client.audit_records`."""
        return self._iterate(self._client.audit_records(since=since))

    def redrive_dead_letters(self, **options: Any) -> RedriveReport:
        """Like `Client.redrive_dead_letters`."""
        return self._wait(self._client.redrive_dead_letters(**options))

    def replay(self, model: str, **options: Any) -> Replayed:
        """Like `Client.replay`."""
        return self._wait(self._client.replay(model, **options))

    def pause(self, **options: Any) -> Pause:
        """Like `Client.pause`."""
        return self._wait(self._client.pause(**options))

    def resume(self, **options: Any) -> bool:
        """Like `Client.resume`."""
        return self._wait(self._client.resume(**options))

    def pauses(self, *, timeout_s: float = TIMEOUT_S) -> dict[PauseKey, Pause]:
        """Like `Client.pauses`."""
        return self._wait(self._client.pauses(timeout_s=timeout_s))

    def _iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        chunks = _Chunks(items)
        try:
            while chunk := self._wait(chunks.next()):
                yield from chunk
        finally:
            self._wait(chunks.close())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise ClientClosedError("the client is not connected: use `with SyncClient(…)`, or call start() first")
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def _end_thread(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()


class SyncRollouts:
    """`inferd.rollouts.Rollouts` without `await`."""

    def __init__(
        self,
        rollouts: Rollouts,
        wait: Callable[[Coroutine[Any, Any, Any]], Any],
        iterate: Callable[[AsyncGenerator[RolloutStatus, None]], Iterator[RolloutStatus]],
    ) -> None:
        self._rollouts, self._wait, self._iterate = rollouts, wait, iterate

    def start(self, model_id: str, **options: Any) -> RolloutStatus:
        """Like `Rollouts.start`."""
        started: RolloutStatus = self._wait(self._rollouts.start(model_id, **options))
        return started

    def pause(self, model_id: str, **options: Any) -> RolloutStatus:
        """Like `Rollouts.pause`."""
        paused: RolloutStatus = self._wait(self._rollouts.pause(model_id, **options))
        return paused

    def resume(self, model_id: str, **options: Any) -> RolloutStatus:
        """Like `Rollouts.resume`."""
        resumed: RolloutStatus = self._wait(self._rollouts.resume(model_id, **options))
        return resumed

    def promote(self, model_id: str, **options: Any) -> RolloutStatus:
        """Like `Rollouts.promote`."""
        promoted: RolloutStatus = self._wait(self._rollouts.promote(model_id, **options))
        return promoted

    def abort(self, model_id: str, **options: Any) -> RolloutStatus:
        """Like `Rollouts.abort`."""
        aborted: RolloutStatus = self._wait(self._rollouts.abort(model_id, **options))
        return aborted

    def status(self, model_id: str, **options: Any) -> RolloutStatus:
        """Like `Rollouts.status`."""
        found: RolloutStatus = self._wait(self._rollouts.status(model_id, **options))
        return found

    def list(self, **options: Any) -> dict[str, RolloutStatus]:
        """Like `Rollouts.list`."""
        found: dict[str, RolloutStatus] = self._wait(self._rollouts.list(**options))
        return found

    def watch(self, model_id: str, **options: Any) -> Iterator[RolloutStatus]:
        """Like `Rollouts.watch`."""
        return self._iterate(self._rollouts.watch(model_id, **options))


class _Chunks(Generic[T]):
    """Groups results into lists, so that the calling thread is woken once for many results."""

    def __init__(self, results: AsyncGenerator[T, None]) -> None:
        self._results = results
        self._next: asyncio.Task[T] | None = None

    async def next(self) -> list[T]:
        """At least one result, and those that follow within `CHUNK_WAIT_S`; empty at the end."""
        chunk: list[T] = []
        while len(chunk) < CHUNK_RESULTS:
            task = self._next or asyncio.ensure_future(anext(self._results))
            self._next = task
            await asyncio.wait([task], timeout=CHUNK_WAIT_S if chunk else None)
            if not task.done():
                break
            self._next = None
            try:
                chunk.append(task.result())
            except StopAsyncIteration:
                break
        return chunk

    async def close(self) -> None:
        """Close the generator of results; idempotent."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self._results.aclose()

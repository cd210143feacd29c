"""Deploying is producing a record: every worker reads `models` and `model-artifacts` in full, and follows them after.

A version serves once its artifact is whole, its digest right, and it has been loaded and run in a disposable
subprocess; until then, and where that fails, what served before goes on serving.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.codec import check_manifest_key, decode_alias, decode_manifest
from schemas.errors import InferenceError, InternalError
from schemas.headers import Encoding, parse_headers
from schemas.models import Manifest, VersionKey, parse_artifact_key, parse_model_key
from schemas.topics import TenantTopics
from streams.artifacts import ArtifactStore
from streams.inference.catalog import ModelCatalog, ServedModel, Version
from streams.inference.loading import load_model
from streams.inference.trial import TrialCase, try_models
from streams.inference.trial_process import TrialLimits
from streams.refusals import ModelRecord
from streams.settings import StreamSettings

log = structlog.get_logger(__name__)

POLL_MS = 1_000
PING_TIMEOUT_S = 5.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Pending:
    """A version that has to be fetched, tried and loaded."""

    tenant: str
    key: VersionKey


@dataclass(frozen=True, slots=True)
class _Found:
    """What became of pending versions when their artifacts were looked for."""

    complete: list[tuple[_Pending, Manifest, Path]]
    refused: list[tuple[_Pending, InferenceError]]


class Deploys:
    """Follows the model records of all tenants and keeps their catalogs."""

    def __init__(
        self,
        settings: StreamSettings,
        refused: Callable[[ModelRecord, InferenceError], None],
    ) -> None:
        """`refused` is called with each record that is none, or names a model that does not pass."""
        self.catalogs = {tenant: ModelCatalog() for tenant in settings.tenants}
        self.reachable_at: float | None = None
        """When the broker last answered, on the monotonic clock."""
        self._settings = settings
        self._refused = refused
        self._topics = [TenantTopics(settings.namespace, tenant) for tenant in settings.tenants]
        self._stores = {
            t: ArtifactStore(settings.data_dir / "artifacts" / t, settings.limits) for t in settings.tenants
        }
        self._records: dict[_Pending, ModelRecord] = {}
        self._pending: set[_Pending] = set()
        self._changed = asyncio.Event()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="inferd-models")
        self._consumer: AIOKafkaConsumer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Reads everything up to now, tries and loads what is complete; then goes on in the background.

        Raises `KafkaError` or `TimeoutError` where the broker does not answer.
        """
        self._consumer = AIOKafkaConsumer(
            **self._settings.connection.aiokafka_options(),
            client_id=f"inferd-{self._settings.worker_id}-models",
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await self._consumer.start()
        partitions = [TopicPartition(t.name(s), 0) for t in self._topics for s in ("model-artifacts", "models")]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_beginning()
        await self._catch_up(await self._consumer.end_offsets(partitions))
        await self._advance()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow()), loop.create_task(self._advance_regularly())]

    async def stop(self) -> None:
        """Ends the following; a trial that is running is left to its own time limit."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._consumer is not None:
            await self._consumer.stop()

    async def ping(self) -> bool:
        """Whether the broker answers a question of this connection in time."""
        if self._consumer is None:
            return False
        try:
            question = self._consumer.end_offsets([TopicPartition(self._topics[0].name("models"), 0)])
            await asyncio.wait_for(question, PING_TIMEOUT_S)
        except (KafkaError, OSError, asyncio.TimeoutError):
            return False
        self.reachable_at = time.monotonic()
        return True

    # ------------------------------------------------------------------ records

    async def _catch_up(self, ends: dict[TopicPartition, int]) -> None:
        consumer = self._started()
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            self._apply(await consumer.getmany(timeout_ms=POLL_MS))

    async def _follow(self) -> None:
        consumer = self._started()
        while True:
            try:
                records = await consumer.getmany(timeout_ms=POLL_MS)
            except (KafkaError, OSError) as error:
                log.warning("models_unreadable", error=type(error).__name__, detail=str(error)[:200])
                await asyncio.sleep(RETRY_S)
                continue
            if records:
                self._apply(records)
                self._changed.set()

    def _apply(self, fetched: dict[TopicPartition, list[ModelRecord]]) -> None:
        # Parts before manifests: what one poll brings of both belongs together more often than not.
        for tp in sorted(fetched, key=lambda tp: not tp.topic.endswith("model-artifacts")):
            for record in fetched[tp]:
                self._apply_record(record)

    def _apply_record(self, record: ModelRecord) -> None:
        tenant = record.topic.split(".")[1]
        try:
            if record.topic.endswith("model-artifacts"):
                self._apply_part(tenant, record)
            else:
                self._apply_model(tenant, record)
        except InferenceError as error:
            log.error(
                "model_record_refused", tenant=tenant, topic=record.topic, offset=record.offset, code=error.code,
                reason=error.message,
            )  # fmt: skip
            self._refused(record, error)

    def _apply_part(self, tenant: str, record: ModelRecord) -> None:
        key = parse_artifact_key(record.key)
        if record.value is None:
            self._stores[tenant].remove(key.sha256)
        else:
            self._stores[tenant].put(key, record.value)

    def _apply_model(self, tenant: str, record: ModelRecord) -> None:
        key = parse_model_key(record.key)
        catalog = self.catalogs[tenant]
        encoding = parse_headers(record.headers, self._settings.limits).encoding
        if not isinstance(key, VersionKey):
            alias = None if record.value is None else decode_alias(record.value, self._settings.limits, encoding)
            catalog.put_alias(key.model_id, key.alias, alias)
            log.info("alias_removed" if alias is None else "alias_set", tenant=tenant, alias=str(key))
        elif record.value is None:
            self._records.pop(_Pending(tenant, key), None)
            self._pending.discard(_Pending(tenant, key))
            if catalog.remove(key.model_id, key.version) is not None:
                log.info("model_removed", tenant=tenant, model=key.model_id, version=key.version)
        else:
            self._announce(tenant, key, record, encoding)

    def _announce(self, tenant: str, key: VersionKey, record: ModelRecord, encoding: Encoding) -> None:
        manifest = decode_manifest(record.value, self._settings.limits, encoding)
        check_manifest_key(key, manifest)
        catalog = self.catalogs[tenant]
        earlier = catalog.version(key.model_id, key.version)
        if earlier is not None and earlier.manifest == manifest and earlier.state != "failed":
            return
        served = earlier.served if earlier is not None else None
        catalog.put(Version(manifest, "fetching", "its artifact has not arrived yet", served))
        pending = _Pending(tenant, key)
        self._records[pending] = record
        self._pending.add(pending)
        log.info("model_announced", tenant=tenant, model=key.model_id, version=key.version, digest=manifest.sha256)

    # ------------------------------------------------------------------ trying and loading

    async def _advance_regularly(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._advance()
            except Exception as fault:  # a fault here must not end the following of models
                log.error("deploy_fault", exc_info=fault)

    async def _advance(self) -> None:
        """Takes every pending version as far as it can get: all that are complete are tried together."""
        loop = asyncio.get_running_loop()
        pending = [(p, v.manifest) for p in self._pending if (v := self._pending_version(p)) is not None]
        found = await loop.run_in_executor(self._threads, self._find, pending)
        for waiting, error in found.refused:
            self._fail(waiting, error)
        complete = [c for c in found.complete if self._version(c[0], c[1]) is not None]
        if not complete:
            return
        for waiting, _, _ in complete:
            self._set_state(waiting, "trying", "it is being tried in a subprocess")
        cases = [TrialCase(path, manifest) for _, manifest, path in complete]
        verdicts = await loop.run_in_executor(self._threads, self._try, cases)
        for (waiting, manifest, path), reason in zip(complete, verdicts, strict=True):
            if self._version(waiting, manifest) is None:
                continue  # replaced or removed while it was tried
            if reason is not None:
                self._fail(waiting, InternalError(f"the model did not pass its trial: {reason}"))
            else:
                await self._serve(waiting, manifest, path)

    def _find(self, pending: Sequence[tuple[_Pending, Manifest]]) -> _Found:
        """Which pending versions have their whole artifact. In a thread: digests of large files take a while."""
        found = _Found([], [])
        for waiting, manifest in sorted(pending, key=lambda p: (p[0].tenant, str(p[0].key))):
            try:
                path = self._stores[waiting.tenant].complete(manifest.sha256, manifest.size)
            except InferenceError as error:
                found.refused.append((waiting, error))
            else:
                if path is not None:
                    found.complete.append((waiting, manifest, path))
        return found

    def _try(self, cases: Sequence[TrialCase]) -> list[str | None]:
        """Why each case did not pass; None where it did."""
        trial = self._settings.trial
        limits = TrialLimits(memory_bytes=trial.memory_bytes_max, cpu_s=trial.timeout_s, wall_s=trial.timeout_s)
        return [None if verdict.ok else verdict.reason for verdict in try_models(cases, limits)]

    async def _serve(self, pending: _Pending, manifest: Manifest, path: Path) -> None:
        loop = asyncio.get_running_loop()
        threads = self._settings.predict_threads
        try:
            served: ServedModel = await loop.run_in_executor(self._threads, load_model, path, manifest, threads)
        except Exception as fault:  # whatever a model makes the library raise, it must not end the following
            self._fail(
                pending, fault if isinstance(fault, InferenceError) else InternalError(f"loading failed: {fault}")
            )
            return
        version = self._version(pending, manifest)
        if version is None:
            return
        self._pending.discard(pending)
        self.catalogs[pending.tenant].put(replace(version, state="ready", reason=None, served=served))
        log.info(
            "model_ready", tenant=pending.tenant, model=manifest.model_id, version=manifest.version,
            digest=manifest.sha256,
        )  # fmt: skip

    def _fail(self, pending: _Pending, error: InferenceError) -> None:
        self._pending.discard(pending)
        self._set_state(pending, "failed", error.message)
        log.error(
            "model_failed", tenant=pending.tenant, model=pending.key.model_id, version=pending.key.version,
            reason=error.message,
        )  # fmt: skip
        if (record := self._records.get(pending)) is not None:
            self._refused(record, error)

    def _set_state(self, pending: _Pending, state: str, reason: str | None) -> None:
        catalog = self.catalogs[pending.tenant]
        version = catalog.version(pending.key.model_id, pending.key.version)
        if version is not None:
            catalog.set_state(version, state, reason)  # type: ignore[arg-type]

    def _pending_version(self, pending: _Pending) -> Version | None:
        return self.catalogs[pending.tenant].version(pending.key.model_id, pending.key.version)

    def _version(self, pending: _Pending, manifest: Manifest) -> Version | None:
        """The pending version, if its manifest is still the one that was looked at."""
        version = self._pending_version(pending)
        return version if version is not None and version.manifest == manifest else None

    def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise RuntimeError("Deploys has not been started")
        return self._consumer

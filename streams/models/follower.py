"""Follows the model topics: every worker reads `models` and `model-artifacts` from the beginning, then new records.

A deploy is a record. A version serves once its artifact is complete, its digest is right, and it has been loaded and
run in a disposable subprocess. Until then, or if that fails, the previous version continues to serve.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from inferd.schemas.codec import check_manifest_key, decode_alias, decode_manifest
from inferd.schemas.errors import InferenceError, InternalError, ModelServingError, ServerError
from inferd.schemas.headers import parse_headers
from inferd.schemas.models import (
    Alias,
    AliasChangeKey,
    AliasKey,
    AliasLog,
    BaselineKey,
    ClaimKey,
    LeaseKey,
    Manifest,
    Pause,
    PauseKey,
    VersionExistsError,
    VersionKey,
    decode_pause,
    newest_of,
    parse_artifact_key,
    parse_model_key,
    same_content,
    versions_named,
)
from inferd.schemas.monitoring import Baseline, Baselines, decode_baseline
from inferd.schemas.topics import TenantTopics, tenant_of_topic
from inferd.streams.connection import client_options
from inferd.streams.inference import ModelCatalog
from inferd.streams.models.artifact_store import ArtifactStore
from inferd.streams.models.loader import ModelLoader
from inferd.streams.models.on_demand import OnDemandLoader
from inferd.streams.models.pauses import Pauses
from inferd.streams.models.reader import ModelReader
from inferd.streams.models.rejections import ModelRecord, OnRejected
from inferd.streams.settings import StreamSettings
from inferd.streams.tasks import cancelled, when_done

log = structlog.get_logger(__name__)

PING_TIMEOUT_S = 5.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class TenantModels:
    """The models of one tenant, as far as their records were read."""

    catalog: ModelCatalog
    alias_logs: Mapping[AliasKey, AliasLog]
    pauses: Pauses

    def newest_alias(self, model_id: str, alias: str) -> Alias | None:
        """The newest revision of an alias, also that of a removal; None if it was never set."""
        changes = self.alias_logs.get(AliasKey(model_id, alias))
        return None if changes is None else changes.newest

    def versions(self, model_id: str) -> frozenset[int]:
        """The versions that are deployed, loaded or not."""
        return self.catalog.numbers(model_id)

    def usable(self, model_id: str) -> frozenset[int]:
        """The versions that have passed their trial on this worker, and can answer requests."""
        return self.catalog.usable_numbers(model_id)

    def paused(self, model_id: str) -> bool:
        """Whether requests to the model wait."""
        return model_id in self.pauses.models


class ModelFollower:
    """Follows the model records of all tenants and keeps their catalogs."""

    def __init__(
        self,
        settings: StreamSettings,
        on_rejected: OnRejected,
        on_crash: Callable[[BaseException], None] = lambda error: None,
        on_loaded: Callable[[float], None] = lambda _seconds: None,
        on_denied: Callable[[], None] = lambda: None,
        on_route: Callable[[str, ModelRecord], None] = lambda _tenant, _record: None,
    ) -> None:
        """`on_rejected` is called with each invalid record, and with the record of each model that fails its trial;
        `on_crash` with the unexpected exception that ended a background task; `on_loaded` with the seconds that trial
        and loading of a version took; `on_denied` if reading from the broker fails; `on_route` with the tenant
        and each record of `routes`, whose `InferenceError`s reject it."""
        self.catalogs = {tenant: ModelCatalog() for tenant in settings.tenants}
        self.reachable_at: float | None = None
        """When the broker last answered, on the monotonic clock."""
        self._settings = settings
        self._on_rejected = on_rejected
        self._on_crash = on_crash
        self._on_denied = on_denied
        self._on_route = on_route
        self._wanted = frozenset(settings.tenants)
        self.loaded: frozenset[str] = frozenset()
        """Tenants whose records were read to their end, and whose models were loaded."""
        self._topics = {tenant: TenantTopics(settings.namespace, tenant) for tenant in settings.tenants}
        self._stores = {
            t: ArtifactStore(settings.data_dir / "artifacts" / t, settings.limits) for t in settings.tenants
        }
        self._claims: dict[str, dict[VersionKey, Manifest]] = {tenant: {} for tenant in settings.tenants}
        self._alias_logs: dict[str, dict[AliasKey, AliasLog]] = {tenant: {} for tenant in settings.tenants}
        self._baselines: dict[str, dict[tuple[str, int], Baselines]] = {tenant: {} for tenant in settings.tenants}
        self.pauses = {tenant: Pauses() for tenant in settings.tenants}
        """What is paused, by tenant."""
        self.on_demand = OnDemandLoader(settings, self.catalogs, self._stores, on_crash, self._fetch_again)
        self._loader = ModelLoader(settings, self.catalogs, self._stores, on_rejected, self.on_demand, on_loaded)
        self._disk_fault: str | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._reader: ModelReader | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def fault(self) -> str | None:
        """Why deploys are delayed, if the cause is not a model, such as a full disk; None otherwise."""
        return self._disk_fault or self._loader.fault

    def of(self, tenant: str) -> TenantModels:
        """The models of one tenant, as far as their records were read."""
        return TenantModels(self.catalogs[tenant], self._alias_logs[tenant], self.pauses[tenant])

    def baseline(self, tenant: str, model_id: str, version: int) -> Baseline | None:
        """What features and predictions of a version are compared with; None if nothing is known."""
        found = self._baselines[tenant].get((model_id, version))
        return found.current if found is not None else None

    def follow(self, tenants: frozenset[str]) -> None:
        """Sets the tenants whose records are read."""
        self._wanted = tenants

    async def start(self) -> None:
        """Reads all existing records, and tests and loads the complete versions; then starts to follow new records.

        Raises `KafkaError` or `TimeoutError` if the broker does not answer, `ServerError` if the data directory cannot
        be used.
        """
        for store in self._stores.values():
            await self._loader.in_thread(store.open)
        consumer = self._consumer = AIOKafkaConsumer(
            **client_options(self._settings.connection),
            client_id=f"inferd-{self._settings.worker_id}-models",
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        reader = self._reader = ModelReader(consumer, self._topics)
        await reader.choose(self._wanted)
        while await reader.read_to_end() != self._wanted:
            for record in await reader.fetch():
                self._apply(record)
        await self._loader.advance()
        self.loaded = self._wanted
        self._tasks = [self._start(self._read(reader)), self._start(self._loader.run())]

    async def stop(self) -> None:
        """Stops following. A running trial ends by its own time limit."""
        await cancelled(self._tasks)
        await self.on_demand.close()
        self._loader.close()
        if self._consumer is not None:
            await self._consumer.stop()

    def read_again(self, topic: str) -> None:
        """Reads a model topic from its beginning, because it was created again. Loaded versions continue to serve."""
        if self._reader is not None:
            if topic.endswith(".models"):
                self._claims[tenant_of_topic(topic)].clear()
                self._alias_logs[tenant_of_topic(topic)].clear()
                self._baselines[tenant_of_topic(topic)].clear()
                self.pauses[tenant_of_topic(topic)].clear()
            self._reader.read_again(topic)

    async def _fetch_again(self, tenant: str) -> None:
        if self._reader is not None:
            await self._reader.fetch_again(tenant)

    async def ping(self) -> bool:
        """Whether the broker answers a request on this connection within `PING_TIMEOUT_S`."""
        if self._reader is None:
            return False
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await self._reader.ask()
        except (KafkaError, OSError):
            return False
        self.reachable_at = time.monotonic()
        return True

    async def _read(self, reader: ModelReader) -> None:
        while True:
            try:
                await reader.choose(self._wanted)
                fetched = await reader.fetch()
                for record in fetched:
                    await self._apply_with_retries(record)
                await self._load(await reader.read_to_end(), new=bool(fetched))
            except (KafkaError, OSError) as error:
                log.warning("models_unreadable", error=type(error).__name__, detail=str(error)[:200])
                self._on_denied()
                await asyncio.sleep(RETRY_S)

    async def _load(self, read: frozenset[str], *, new: bool) -> None:
        """Wakes the loader for new records. Marks tenants as loaded once their complete versions were tested and
        loaded."""
        if new:
            self._loader.wake()
        if not read <= self.loaded:
            try:
                await self._loader.advance()
            except ServerError:
                self._loader.wake()  # retried in the background; `fault` has the reason
            else:
                self.loaded |= read

    async def _apply_with_retries(self, record: ModelRecord) -> None:
        """Applies a record, and retries until it succeeds: a skipped record would be missing until the next start."""
        while True:
            try:
                self._apply(record)
            except ServerError as error:
                if self._disk_fault is None:
                    log.warning("model_record_waiting", topic=record.topic, reason=error.message)
                self._disk_fault = error.message
                await asyncio.sleep(RETRY_S)
            else:
                self._disk_fault = None
                return

    def _apply(self, record: ModelRecord) -> None:
        """Applies a record. `ServerError` if the content cannot be stored on this machine; an invalid record is
        rejected."""
        try:
            if record.topic.endswith("model-artifacts"):
                self._apply_part(tenant_of_topic(record.topic), record)
            elif record.topic.endswith(".routes"):
                self._on_route(tenant_of_topic(record.topic), record)
            else:
                self._apply_model(tenant_of_topic(record.topic), record)
        except (InferenceError, VersionExistsError) as error:
            self._reject(record, error)
        except ServerError:
            raise
        except Exception as fault:  # no record may stop the follower
            log.exception("model_record_fault", topic=record.topic, offset=record.offset)
            self._reject(record, InternalError(f"{type(fault).__name__} while it was read"))

    def _reject(self, record: ModelRecord, error: ModelServingError) -> None:
        log.error(
            "model_record_rejected", tenant=tenant_of_topic(record.topic), topic=record.topic, offset=record.offset,
            code=error.code, reason=error.message,
        )  # fmt: skip
        self._on_rejected(record, error)

    def _apply_part(self, tenant: str, record: ModelRecord) -> None:
        key = parse_artifact_key(record.key)
        if record.value is None:
            self._stores[tenant].remove(key.sha256)
        else:
            self._stores[tenant].put(key, record.value)

    def _apply_model(self, tenant: str, record: ModelRecord) -> None:
        key = parse_model_key(record.key)
        limits = self._settings.limits
        codec = parse_headers(record.headers, limits).codec
        if isinstance(key, LeaseKey):
            return
        if isinstance(key, PauseKey):
            self._apply_pause(tenant, key, None if record.value is None else decode_pause(record.value, codec), record)
            return
        if isinstance(key, BaselineKey):
            baseline = None if record.value is None else decode_baseline(record.value, codec)
            versions = self._baselines[tenant]
            present = versions.get((key.model_id, key.version), Baselines())
            versions[key.model_id, key.version] = present.put(baseline, learned=key.learned)
            return
        if isinstance(key, AliasKey | AliasChangeKey):
            self._apply_alias(tenant, key, None if record.value is None else decode_alias(record.value, limits, codec))
            return
        manifest = None if record.value is None else decode_manifest(record.value, limits, codec)
        if manifest is not None:
            check_manifest_key(key, manifest)
        if isinstance(key, ClaimKey):
            if manifest is not None:
                self._claims[tenant].setdefault(key.version_key, manifest)
        elif manifest is None:
            self._remove(tenant, key)
        else:
            self._announce(tenant, key, manifest, record)

    def _apply_alias(self, tenant: str, key: AliasKey | AliasChangeKey, record: Alias | None) -> None:
        of = key if isinstance(key, AliasKey) else key.alias_key
        changes = self._alias_logs[tenant].setdefault(of, AliasLog())
        before = changes.current
        changes.apply(key, record)
        changes.counted.clear()
        alias = changes.current
        if alias == before:
            return
        self.catalogs[tenant].put_alias(of.model_id, of.alias, alias)
        for number in versions_named(alias) if alias is not None else ():
            if (version := self.catalogs[tenant].version(of.model_id, number)) is not None:
                self.on_demand.prefer(tenant, version)
        if alias is None:
            log.info("alias_removed", tenant=tenant, alias=str(of))
        else:
            log.info("alias_set", tenant=tenant, alias=str(of), **msgspec.to_builtins(newest_of(alias)))

    def _apply_pause(self, tenant: str, key: PauseKey, pause: Pause | None, record: ModelRecord) -> None:
        if self.pauses[tenant].apply(key, pause, record.timestamp):
            event = "resumed" if pause is None else "paused"
            log.info(event, tenant=tenant, kind=key.kind, name=key.name, by=None if pause is None else pause.by)
            self.on_demand.on_change(tenant)

    def _remove(self, tenant: str, key: VersionKey) -> None:
        self._loader.remove(tenant, key)
        if self.catalogs[tenant].remove(key.model_id, key.version) is not None:
            log.info("model_removed", tenant=tenant, model=key.model_id, version=key.version)

    def _announce(self, tenant: str, key: VersionKey, manifest: Manifest, record: ModelRecord) -> None:
        """Announces a version with the manifest of its claim; rejects a record with another manifest."""
        claimed = self._claims[tenant].get(key, manifest)
        self._loader.add(tenant, claimed, record)
        if not same_content(claimed, manifest):
            raise VersionExistsError(f"{key} was already claimed by a deploy of another manifest: use another version")

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        when_done(task, self._ended, self._on_crash)
        return task

    def _ended(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(error)

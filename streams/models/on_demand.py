"""Loads versions when requests need them, and unloads the least recently used ones, within a memory budget.

A request that needs an unloaded version calls `waits_for` until it returns False: then the version is loaded, or could
not be loaded. Each tenant has a task and a thread that load one version at a time, so that a tenant only waits for its
own models. The bytes are read from the artifact store on disk, which verifies their digest.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from inferd.schemas.errors import InferenceError, MalformedError, ModelServingError, ServerError
from inferd.schemas.models import Manifest
from inferd.schemas.requests import ModelReference
from inferd.streams.inference import ModelCatalog, ServedModel, Version, load_model
from inferd.streams.lane import describe
from inferd.streams.models.artifact_store import ArtifactStore
from inferd.streams.models.memory import return_freed_memory
from inferd.streams.models.memory_budget import Key, MemoryBudget
from inferd.streams.openmp import load_openmp
from inferd.streams.settings import StreamSettings
from inferd.streams.tasks import BackgroundTasks, OnCrash, OwnThread
from inferd.streams.telemetry import LatencyHistogram, ModelMemorySnapshot

log = structlog.get_logger(__name__)

RETRY_S = 5.0
"""How long requests for a version that could not be loaded are answered with the reason, without another attempt."""
LOOK_AGAIN_S = 0.2
"""Interval at which a load without room checks for room, if it is not notified before."""
UNLOADED = "the next request loads it"
OnChange = Callable[[str], None]
"""Called with a tenant when its waiting requests should check their versions again."""


@dataclass(slots=True)
class _Tenant:
    """The versions of a tenant that requests wait for, and the thread that loads them."""

    thread: OwnThread = field(default_factory=lambda: OwnThread("inferd-loads"))
    wanted: deque[Key] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    """Loads them; ends when none is left."""


class OnDemandLoader:
    """The loaded versions of all tenants."""

    def __init__(
        self,
        settings: StreamSettings,
        catalogs: Mapping[str, ModelCatalog],
        stores: Mapping[str, ArtifactStore],
        on_crash: OnCrash,
        fetch_again: Callable[[str], Awaitable[None]],
    ) -> None:
        """`fetch_again` reads the artifacts of a tenant from Kafka again, because one is missing on disk."""
        self.on_change: OnChange = lambda _tenant: None
        self.timeout_s = settings.models.load_timeout_s
        self.waits = LatencyHistogram()
        """How long versions were waited for."""
        self._settings, self._catalogs, self._stores = settings, catalogs, stores
        self._fetch_again = fetch_again
        self._budget = MemoryBudget(settings.models.bytes_max, len(settings.tenants))
        self._tenants = {tenant: _Tenant() for tenant in settings.tenants}
        self._wanted_since: dict[Key, float] = {}
        self._failed_until: dict[Key, float] = {}
        self._room, self._loaded = asyncio.Event(), asyncio.Event()
        self._tasks = BackgroundTasks(on_crash)
        self._loads = self._unloads = self._failures = 0

    @property
    def bounded(self) -> bool:
        """Whether there is a memory budget; without one, all versions are loaded and stay loaded."""
        return self._budget.bytes_max > 0

    def snapshot(self) -> ModelMemorySnapshot:
        return ModelMemorySnapshot(
            loaded=sum(v.served is not None for catalog in self._catalogs.values() for v in catalog.versions()),
            bytes=self._budget.used_bytes if self.bounded else None,
            bytes_max=self._budget.bytes_max if self.bounded else None,
            loads=self._loads,
            unloads=self._unloads,
            load_failures=self._failures,
            waiting=len(self._wanted_since),
        )

    async def close(self) -> None:
        await self._tasks.close()

    # ------------------------------------------------------------------ deploys

    def admit(self, key: Key, n_bytes: int, *, has_alias: bool) -> bool:
        """Adds a version that passed its trial; returns whether there is room to load it now.

        Among versions loaded ahead of their first request, those without an alias are unloaded first.
        """
        if not self.bounded:
            return True
        self._failed_until.pop(key, None)
        self._budget.add(key, n_bytes)
        if not self._budget.fits(key):
            return False
        self._budget.reserve(key, time.monotonic(), claim=False)
        self._budget.use([key] if has_alias else [])
        return True

    def prefer(self, tenant: str, version: Version) -> None:
        """Loads the target of an alias ahead of its first request, if there is room."""
        if self.bounded and version.loadable is not None and self._budget.fits(_key(tenant, version.loadable)):
            self.waits_for(tenant, version)

    def loaded(self) -> None:
        """Records that a version was loaded at its deploy."""
        self._loads += 1

    def forget(self, key: Key) -> None:
        """Forgets a version that was removed or has failed."""
        self._budget.remove(key)
        self._wanted_since.pop(key, None)
        self._failed_until.pop(key, None)
        self._room.set()

    # ------------------------------------------------------------------ requests

    def waits_for(self, tenant: str, version: Version) -> bool:
        """Whether a request must wait for a version, which is loaded as soon as there is room.

        False if it is loaded, cannot be loaded, or waiting took too long; in these cases its reason says why.
        """
        if version.served is not None or version.loadable is None:
            return False
        key, now = _key(tenant, version.loadable), time.monotonic()
        if now < self._failed_until.get(key, 0.0):
            return False
        since = self._wanted_since.setdefault(key, now)
        if now - since > self.timeout_s:
            self._fail(key, f"it was not loaded within {self.timeout_s:g} s")
            return False
        self._want(key)
        return True

    def load_from_thread(
        self, loop: asyncio.AbstractEventLoop, tenant: str, reference: ModelReference, routing_key: bytes
    ) -> None:
        """Waits for a version that user code needs. Never call it from the event loop's thread, which it would
        block."""
        if self.bounded and threading.current_thread() is not threading.main_thread():
            asyncio.run_coroutine_threadsafe(self._until_loaded(tenant, reference, routing_key), loop).result()

    async def _until_loaded(self, tenant: str, reference: ModelReference, routing_key: bytes) -> None:
        catalog = self._catalogs[tenant]
        while self.waits_for(tenant, catalog.choose(reference, routing_key)):
            await _wait(self._loaded)

    @contextmanager
    def pinned(self, tenant: str, versions: Iterable[Version]) -> Iterator[None]:
        """Keeps versions loaded while requests are scored with them."""
        keys = [_key(tenant, version.loadable) for version in versions if version.loadable is not None]
        self._budget.use(keys)
        self._budget.pin(keys)
        try:
            yield
        finally:
            self._budget.unpin(keys)
            self._room.set()

    def _want(self, key: Key) -> None:
        tenant = self._tenants[key[0]]
        if key not in tenant.wanted:
            tenant.wanted.append(key)
        if tenant.task is None or tenant.task.done():
            tenant.task = self._tasks.start(self._load_wanted(key[0]))

    # ------------------------------------------------------------------ loading

    async def _load_wanted(self, name: str) -> None:
        wanted = self._tenants[name].wanted
        while wanted:
            key = wanted[0]
            if key not in self._wanted_since:
                wanted.popleft()
            elif self._make_room(key):
                await self._load(key)
                wanted.popleft()
                self._loaded.set()
                self.on_change(name)
            else:
                await _wait(self._room)

    def _make_room(self, key: Key) -> bool:
        """Unloads versions to make room, and reserves memory; False if there is no room now."""
        victims = self._budget.reserve(key, time.monotonic())
        if victims is None:
            return False
        for victim in victims:
            self._unload(victim)
        return True

    def _unload(self, key: Key) -> None:
        tenant, model_id, number = key
        version = self._catalogs[tenant].version(model_id, number)
        if version is not None and version.served is not None:
            self._unloads += 1
            self._put(tenant, replace(version, served=None), UNLOADED)
            log.info("model_unloaded", tenant=tenant, model=model_id, version=number)

    async def _load(self, key: Key) -> None:
        tenant, model_id, number = key
        version = self._catalogs[tenant].version(model_id, number)
        manifest = version.loadable if version is not None else None
        if manifest is None:
            self.forget(key)
            return
        served, why = None, "its file is missing or damaged on disk, and is fetched again"
        self._budget.pin([key])
        try:
            served = await self._tenants[tenant].thread.call(lambda: self._load_file(tenant, manifest))
            if served is None:
                await self._fetch_again(tenant)
        except Exception as error:  # whatever a library or the disk raises becomes the reason in the requests' errors
            if not isinstance(error, ModelServingError | OSError):
                log.exception("model_load_fault", tenant=tenant, model=model_id, version=number)
            why = f"it could not be loaded ({_reason(error)})"
        finally:
            self._budget.unpin([key])
        version = self._catalogs[tenant].version(model_id, number)
        if version is None or version.loadable is not manifest:  # removed or replaced during loading
            self._wanted_since.pop(key, None)
        elif served is not None:
            self._serve(key, version, served)
        else:
            self._budget.release(key)
            self._fail(key, why)

    def _load_file(self, tenant: str, manifest: Manifest) -> ServedModel | None:
        """Runs in the tenant's thread: the loaded version; None if its file is missing or damaged."""
        return_freed_memory()
        load_openmp()
        path = _intact(self._stores[tenant], manifest)
        if path is None:
            return None
        return load_model(path, manifest, self._settings.predict_threads, self._settings.limits)

    def _serve(self, key: Key, version: Version, served: ServedModel) -> None:
        tenant, model_id, number = key
        since = self._wanted_since.pop(key, None)
        self._failed_until.pop(key, None)
        self._loads += 1
        if since is not None:
            self.waits.observe(time.monotonic() - since)
        self._put(tenant, replace(version, served=served), None)
        log.info("model_loaded", tenant=tenant, model=model_id, version=number, digest=served.manifest.sha256)

    def _fail(self, key: Key, why: str) -> None:
        """Records why a version cannot be loaded; requests fail with this reason until the next attempt."""
        tenant, model_id, number = key
        self._failures += 1
        self._failed_until[key] = time.monotonic() + RETRY_S
        if (since := self._wanted_since.pop(key, None)) is not None:
            self.waits.observe(time.monotonic() - since)
        log.error("model_not_loaded", tenant=tenant, model=model_id, version=number, reason=why)
        version = self._catalogs[tenant].version(model_id, number)
        if version is not None and version.served is None and version.loadable is not None:
            self._put(tenant, version, f"{why}; a request after {RETRY_S:g} s tries again")

    def _put(self, tenant: str, version: Version, reason: str | None) -> None:
        """Records in the catalog whether a version is loaded, or that its replacement is being prepared."""
        if version.loadable is version.manifest:
            version = replace(version, state="ready" if version.served else "unloaded", reason=reason)
        self._catalogs[tenant].put(version)


async def _wait(event: asyncio.Event) -> None:
    """Returns after the next `set`, or after a timeout."""
    event.clear()
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_AGAIN_S):
            await event.wait()


def _key(tenant: str, manifest: Manifest) -> Key:
    return tenant, manifest.model_id, manifest.version


def _intact(store: ArtifactStore, manifest: Manifest) -> Path | None:
    """The file of a version with the right digest; None if it is missing or was damaged, in which case it is
    deleted."""
    store.forget_verified(manifest.sha256)
    try:
        return store.complete(manifest.sha256, manifest.size)
    except MalformedError:
        return None


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, InferenceError | ServerError) else describe(error)

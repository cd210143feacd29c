"""Backend of the models routes in a worker: reads and writes the tenant's topics through a client.

Every request reads the `models` topic anew, so that all workers give the same answer, and a deploy is visible as soon
as it has returned. The state of each version on this worker is added.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from inferd.daemon.http.core import UnavailableError
from inferd.daemon.http.routes import (
    Deploy,
    Deployed,
    ModelOverview,
    ModelVersion,
    VersionOverview,
)
from inferd.daemon.settings import Settings
from inferd.schemas.errors import (
    InferenceError,
    InvalidValueError,
    ModelNotFoundError,
    ServerError,
)
from inferd.schemas.models import (
    Alias,
    AliasTarget,
    Manifest,
    VersionExistsError,
    VersionKey,
    versions_named,
    without_history,
)
from inferd.schemas.monitoring import Baseline
from inferd.schemas.requests import ModelReference
from inferd.streams.telemetry import ModelSnapshot, StreamsSnapshot

if TYPE_CHECKING:
    from inferd.client import Client
    from inferd.models import ModelList

log = structlog.get_logger(__name__)
States = dict[VersionKey, ModelSnapshot]


@dataclass(slots=True)
class _SharedClient:
    """A connected client, and how many requests use it now."""

    client: Client
    users: int = 0


class ClusterModels:
    """`Models` of a worker's tenants: one client per tenant, connected at its first request; one deploy at a time."""

    def __init__(self, settings: Settings, snapshot: Callable[[], StreamsSnapshot | None]) -> None:
        """`snapshot` has the state of each version on this worker."""
        self._settings, self._snapshot = settings, snapshot
        self._clients: dict[str, _SharedClient] = {}
        self._connecting, self._deploys = asyncio.Lock(), asyncio.Semaphore(1)

    async def close(self) -> None:
        """Disconnect the clients."""
        for tenant in list(self._clients):
            await self._clients.pop(tenant).client.stop()

    async def list_models(self, tenant: str) -> Sequence[ModelOverview]:
        """See `Models`."""
        models, states = await self._read(tenant), self._states(tenant)
        return [_overview(models, states, name) for name in _names(models)]

    async def show_model(self, tenant: str, name: str) -> ModelOverview:
        """See `Models`."""
        models = await self._read(tenant)
        if name not in _names(models):
            raise ModelNotFoundError(f"there is no model {name!r}: GET /models lists all models")
        return _overview(models, self._states(tenant), name)

    async def show_version(self, tenant: str, reference: ModelReference) -> ModelVersion:
        """See `Models`."""
        from inferd.models import manifest_behind

        models = await self._read(tenant)
        manifest = manifest_behind(models, reference)
        aliases = models.aliases_of(reference.name)
        return ModelVersion(manifest=manifest, overview=_version(manifest, aliases, self._states(tenant)))

    async def baseline(self, tenant: str, reference: ModelReference) -> Baseline | None:
        """See `Models`."""
        from inferd.models import manifest_behind

        models = await self._read(tenant)
        manifest = manifest_behind(models, reference)
        return models.baseline(VersionKey(manifest.model_id, manifest.version))

    async def deploy(self, tenant: str, deploy: Deploy) -> Deployed:
        """See `Models`."""
        async with self._deploys, self.client(tenant) as client:
            present = await client.models()
            manifest = await self._deploy_existing(client, present, deploy) or await self._deploy_file(client, deploy)
        created = VersionKey(manifest.model_id, manifest.version) not in present.versions
        log.info("model_deployed", tenant=tenant, model=deploy.name, version=manifest.version, created=created)
        return Deployed(manifest=manifest, created=created)

    async def _deploy_existing(self, client: Client, present: ModelList, deploy: Deploy) -> Manifest | None:
        """If no version is requested: the existing version with the same file and manifest, or None."""
        if deploy.version is not None or "version" in (deploy.manifest or {}):
            return None
        sha256 = await asyncio.to_thread(_sha256, deploy.model)
        same = [manifest.version for manifest in present.versions_of(deploy.name) if manifest.sha256 == sha256]
        if not same:
            return None
        try:
            return await self._deploy_file(client, msgspec.structs.replace(deploy, version=max(same)))
        except VersionExistsError:
            return None

    async def _deploy_file(self, client: Client, deploy: Deploy) -> Manifest:
        from inferd.deploy import deploy_file

        return await deploy_file(
            client,
            deploy.model,
            deploy.name,
            version=deploy.version,
            manifest=deploy.manifest,
            alias=deploy.alias,
            trial_limits=self._settings.streams().trial.limits(client.limits),
        )

    async def aliases(self, tenant: str, name: str) -> Mapping[str, Alias]:
        """See `Models`."""
        models = await self._read(tenant)
        if name not in _names(models):
            raise ModelNotFoundError(f"there is no model {name!r}: GET /models lists all models")
        return models.aliases_of(name)

    async def set_alias(
        self, tenant: str, name: str, alias: str, target: AliasTarget, *, revision: int | None, changed_by: str
    ) -> Alias:
        """See `Models`."""
        async with self.client(tenant) as client:
            return await client.set_alias(name, alias, target, revision=revision, changed_by=changed_by)

    async def rollback_alias(
        self, tenant: str, name: str, alias: str, *, revision: int | None, changed_by: str
    ) -> Alias:
        """See `Models`."""
        async with self.client(tenant) as client:
            return await client.rollback_alias(name, alias, revision=revision, changed_by=changed_by)

    async def promote_alias(
        self, tenant: str, name: str, alias: str, to: str, *, revision: int | None, changed_by: str
    ) -> Alias:
        """See `Models`."""
        async with self.client(tenant) as client:
            return await client.promote_alias(name, alias, to, revision=revision, changed_by=changed_by)

    async def remove(
        self, tenant: str, reference: ModelReference, *, everything: bool = False, move_aliases_to: int | None = None
    ) -> Sequence[str]:
        """See `Models`."""
        async with self.client(tenant) as client:
            return await client.remove_model(str(reference), everything=everything, move_aliases_to=move_aliases_to)

    async def _read(self, tenant: str) -> ModelList:
        async with self.client(tenant) as client:
            return await client.models()

    @asynccontextmanager
    async def client(self, tenant: str) -> AsyncIterator[Client]:
        """The connected client of the tenant, whose errors are converted to HTTP errors."""
        shared = await self._connected(tenant)
        shared.users += 1
        try:
            yield shared.client
        except ServerError as error:
            # Later requests connect anew. Those that use this client still may do so until they have ended.
            if self._clients.get(tenant) is shared:
                del self._clients[tenant]
            log.warning("models_unavailable", tenant=tenant, reason=error.message)
            raise _unavailable() from error
        except InferenceError as error:
            if type(error) is InferenceError:
                raise InvalidValueError(error.message) from error
            raise
        finally:
            shared.users -= 1
            if not shared.users and self._clients.get(tenant) is not shared:
                await shared.client.stop()

    async def _connected(self, tenant: str) -> _SharedClient:
        from inferd.client import Client

        settings = self._settings
        async with self._connecting:
            if tenant not in self._clients:
                limits = settings.streams().limits
                client = Client(settings.connection(), namespace=settings.namespace, tenant=tenant, limits=limits)
                try:
                    await client.start()
                except ServerError as error:
                    log.warning("models_unavailable", tenant=tenant, reason=error.message)
                    raise _unavailable() from error
                self._clients[tenant] = _SharedClient(client)
            return self._clients[tenant]

    def _states(self, tenant: str) -> States:
        snapshot = self._snapshot()
        found = () if snapshot is None else snapshot.models
        return {VersionKey(model.model_id, model.version): model for model in found if model.tenant == tenant}


def _unavailable() -> UnavailableError:
    return UnavailableError("the topics of models and routes cannot be read or written; see the worker's log")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(models: ModelList) -> list[str]:
    """All models that have a version or an alias."""
    return sorted({key.model_id for key in models.versions} | {key.model_id for key in models.aliases})


def _overview(models: ModelList, states: States, name: str) -> ModelOverview:
    aliases = models.aliases_of(name)
    versions = [_version(manifest, aliases, states) for manifest in models.versions_of(name)]
    dangling = [key.alias for key in models.dangling() if key.model_id == name]
    return ModelOverview(model_id=name, versions=versions, aliases=without_history(aliases), dangling_aliases=dangling)


def _version(manifest: Manifest, aliases: Mapping[str, Alias], states: States) -> VersionOverview:
    state = states.get(VersionKey(manifest.model_id, manifest.version))
    known = state is not None and state.digest == manifest.sha256
    return VersionOverview(
        version=manifest.version,
        digest=manifest.sha256,
        size=manifest.size,
        created_at=manifest.created_at,
        aliases=[name for name, alias in aliases.items() if manifest.version in versions_named(alias)],
        state=state.state if state is not None and known else None,
        reason=state.reason if state is not None and known else None,
        batching=state.batching if state is not None and known else None,
    )

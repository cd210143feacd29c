"""Backend of the models routes in a script: its `ModelManager`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from inferd.daemon.http.routes import (
    Deploy,
    Deployed,
    ModelOverview,
    ModelVersion,
    VersionOverview,
)
from inferd.schemas.errors import InvalidValueError, ModelNotFoundError
from inferd.schemas.models import Alias, AliasTarget, VersionExistsError, without_history
from inferd.schemas.monitoring import Baseline
from inferd.schemas.requests import ModelReference
from inferd.streams.inference import ModelCatalog, Version, scores_batches
from inferd.streams.serving import ModelManager


class LocalModels:
    """Implements `inferd.daemon.http.routes.services.Models` with a `ModelManager`; file access runs in threads."""

    def __init__(self, model_manager: ModelManager) -> None:
        self._manager = model_manager

    async def list_models(self, tenant: str) -> Sequence[ModelOverview]:
        """See `Models`."""
        return await asyncio.to_thread(self._overviews)

    async def show_model(self, tenant: str, name: str) -> ModelOverview:
        """See `Models`."""
        for overview in await self.list_models(tenant):
            if overview.model_id == name:
                return overview
        raise ModelNotFoundError(f"there is no model {name!r}: GET /models lists all models")

    async def show_version(self, tenant: str, reference: ModelReference) -> ModelVersion:
        """See `Models`."""
        return await asyncio.to_thread(self._version, reference)

    async def baseline(self, tenant: str, reference: ModelReference) -> Baseline | None:
        """See `Models`; a script does not compare what it scores."""
        await self.show_version(tenant, reference)
        return None

    async def deploy(self, tenant: str, deploy: Deploy) -> Deployed:
        """See `Models`."""
        return await asyncio.to_thread(self._register, deploy)

    async def aliases(self, tenant: str, name: str) -> Mapping[str, Alias]:
        """See `Models`."""
        await self.show_model(tenant, name)
        return self._manager.catalog.aliases(name)

    async def set_alias(
        self, tenant: str, name: str, alias: str, target: AliasTarget, *, revision: int | None, changed_by: str
    ) -> Alias:
        """See `Models`."""
        return await asyncio.to_thread(
            self._manager.set_alias, name, alias, target, revision=revision, changed_by=changed_by
        )

    async def rollback_alias(
        self, tenant: str, name: str, alias: str, *, revision: int | None, changed_by: str
    ) -> Alias:
        """See `Models`."""
        return await asyncio.to_thread(
            self._manager.rollback_alias, name, alias, revision=revision, changed_by=changed_by
        )

    async def promote_alias(
        self, tenant: str, name: str, alias: str, to: str, *, revision: int | None, changed_by: str
    ) -> Alias:
        """See `Models`."""
        return await asyncio.to_thread(
            self._manager.promote_alias, name, alias, to, revision=revision, changed_by=changed_by
        )

    async def remove(
        self, tenant: str, reference: ModelReference, *, everything: bool = False, move_aliases_to: int | None = None
    ) -> Sequence[str]:
        """See `Models`."""
        if everything != (reference.version is None and reference.alias is None):
            raise InvalidValueError(
                f"{reference}: name a version or an alias, or remove the whole model with ?all=true"
            )
        return await asyncio.to_thread(self._manager.remove, str(reference), move_aliases_to=move_aliases_to)

    def _overviews(self) -> list[ModelOverview]:
        catalog = self._manager.catalog
        by_name: dict[str, list[Version]] = {}
        for version in catalog.versions():
            by_name.setdefault(version.manifest.model_id, []).append(version)
        return [
            ModelOverview(
                model_id=name,
                versions=[_overview(catalog, version) for version in versions],
                aliases=without_history(catalog.aliases(name)),
                dangling_aliases=[alias for of, alias in catalog.dangling_aliases() if of == name],
            )
            for name, versions in by_name.items()
        ]

    def _version(self, reference: ModelReference) -> ModelVersion:
        catalog = self._manager.catalog
        catalog.versions()
        version = catalog.candidates(reference)[0]
        return ModelVersion(manifest=version.manifest, overview=_overview(catalog, version))

    def _register(self, deploy: Deploy) -> Deployed:
        fields = {name: value for name, value in (deploy.manifest or {}).items() if name != "model_id"}
        number = deploy.version or fields.pop("version", None)
        name = deploy.name if number is None else f"{deploy.name}:{number}"
        present = {(manifest.model_id, manifest.version): manifest for manifest in self._manager.list()}
        try:
            manifest = self._manager.register(name, deploy.model, alias=deploy.alias, **fields)
        except InvalidValueError as error:
            if (deploy.name, number) in present:
                raise VersionExistsError(error.message) from None
            raise
        return Deployed(manifest=manifest, created=(manifest.model_id, manifest.version) not in present)


def _overview(catalog: ModelCatalog, version: Version) -> VersionOverview:
    manifest = version.manifest
    return VersionOverview(
        version=manifest.version,
        digest=f"sha256:{manifest.sha256}",
        size=manifest.size,
        created_at=manifest.created_at,
        aliases=list(catalog.aliases_of(manifest.model_id, manifest.version)),
        state=version.state,
        reason=version.reason,
        batching=None if version.served is None else scores_batches(version.served.runtime),
    )

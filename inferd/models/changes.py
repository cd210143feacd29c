"""Changes of a tenant's models: deploys, aliases, removals, and the collection of artifacts.

The log of `models` decides. `docs/architecture.md` explains the protocol.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from inferd.models.alias_changes import AliasChanges, Author
from inferd.models.model_list import (
    GRACE_MS,
    ModelList,
    aliases_to_move,
    check_deployable,
    check_unchanged,
    keys_to_remove,
)
from inferd.schemas.errors import ModelNotFoundError, ServerError, VersionNotFoundError
from inferd.schemas.limits import Limits
from inferd.schemas.models import (
    AliasChangeKey,
    AliasKey,
    AliasTarget,
    ArtifactKey,
    BaselineKey,
    ClaimKey,
    LeaseKey,
    Manifest,
    Pause,
    PauseKey,
    VersionExistsError,
    VersionKey,
    encode_manifest,
    encode_pause,
)
from inferd.schemas.monitoring import Baseline, encode_baseline
from inferd.schemas.requests import ModelReference
from inferd.schemas.topics import Stream

COLLECTION_TIMEOUT_MS = 60_000
POLL_S = 0.1
ANYBODY = Author()
Records = Mapping[object, bytes | None]
"""Values by key; None for a tombstone."""


class ModelTopics(Protocol):
    """The `models` and `model-artifacts` topics of a tenant."""

    async def read(self, timeout_s: float) -> ModelList:
        """The models, from the whole log: everything that was acknowledged before the call."""

    async def write(self, stream: Stream, records: Records) -> None:
        """Write records in order; returns once all are acknowledged."""


class ModelChanges:
    """Changes models of one tenant, beside any number of other clients."""

    def __init__(self, topics: ModelTopics, limits: Limits, now: Callable[[], float] = time.time) -> None:
        """`now`: Unix time in seconds."""
        self._topics, self._limits, self._now = topics, limits, now
        self.aliases = AliasChanges(self, limits, now)
        """Changes the aliases."""

    async def deploy(
        self, model: bytes, manifest: Manifest, alias: str | None, timeout_s: float, author: Author = ANYBODY
    ) -> Manifest:
        """See `Client.deploy_model`."""
        models = await self._topics.read(timeout_s)
        check_deployable(models, model, manifest, self._limits)
        await self._collect(models, timeout_s)
        started_ms, lease = self._now_ms(), LeaseKey.new(manifest.sha256)
        manifest = await self._claim(models, manifest, lease, timeout_s)
        await self._topics.write("model-artifacts", self._parts(manifest, model))
        if self._now_ms() - started_ms > GRACE_MS // 2:
            # The lease may be gone, and the parts that were just sent must be collected some day.
            await self._topics.write("models", {LeaseKey.new(manifest.sha256): self._encode(manifest)})
            raise ServerError(f"sending {manifest.model_id}:{manifest.version} took too long: deploy it again")
        await self._topics.write("models", {VersionKey(manifest.model_id, manifest.version): self._encode(manifest)})
        try:
            if alias is not None:
                target = AliasTarget(version=manifest.version)
                await self.aliases.set(AliasKey(manifest.model_id, alias), target, author, timeout_s)
        finally:
            await self._topics.write("models", {lease: None})
        return manifest

    async def read(self, timeout_s: float) -> ModelList:
        """The models as they are now."""
        return await self._topics.read(timeout_s)

    async def write_changes(self, changes: dict[AliasChangeKey, bytes | None]) -> None:
        """Writes changes of aliases."""
        await self._topics.write("models", dict(changes.items()))

    async def remove(
        self,
        reference: ModelReference,
        move_aliases_to: int | None,
        timeout_s: float,
        *,
        everything: bool,
        author: Author = ANYBODY,
    ) -> list[str]:
        """See `Client.remove_model`. The artifacts are left to collection."""
        models = await self._topics.read(timeout_s)
        removed = keys_to_remove(models, reference, everything=everything)
        moved = aliases_to_move(models, removed, move_aliases_to)
        await self._collect(models, timeout_s)
        for key, target in moved.items():
            known = Author(author.name, models.aliases[key].revision)
            await self.aliases.set(key, target, known, timeout_s)
        for key in [key for key in removed if isinstance(key, AliasKey)]:
            await self.aliases.remove(key, author, timeout_s)
        manifests = [models.versions[key] for key in removed if isinstance(key, VersionKey)]
        for manifest in manifests:
            await self._topics.write("models", self._entries(models, manifest, LeaseKey.new(manifest.sha256)))
        await self._topics.write("models", {key: None for key in removed if isinstance(key, VersionKey)})
        await self._topics.write("models", _baselines_of(models, removed))
        return [str(key) for key in removed]

    async def set_baseline(self, key: VersionKey, baseline: Baseline, timeout_s: float) -> None:
        """See `Client.set_baseline`."""
        models = await self._topics.read(timeout_s)
        if key not in models.versions:
            raise VersionNotFoundError(f"{key.model_id}:{key.version} is not deployed")
        value = encode_baseline(msgspec.structs.replace(baseline, source="given"))
        await self._topics.write("models", {BaselineKey(key.model_id, key.version): value})

    async def pause(self, key: PauseKey, pause: Pause, timeout_s: float) -> None:
        """See `Client.pause`."""
        models = await self._topics.read(timeout_s)
        if key.kind == "model" and not models.has(ModelReference(key.name)):
            raise ModelNotFoundError(f"there is no model {key.name!r}")
        await self._topics.write("models", {key: encode_pause(pause)})

    async def resume(self, key: PauseKey, timeout_s: float) -> bool:
        """See `Client.resume`."""
        models = await self._topics.read(timeout_s)
        if key not in models.pauses:
            return False
        await self._topics.write("models", {key: None})
        return True

    async def _claim(self, models: ModelList, manifest: Manifest, lease: LeaseKey, timeout_s: float) -> Manifest:
        """Claim the version and lease the artifact; the manifest that the version has, or `VersionExistsError`."""
        entries = self._entries(models, check_unchanged(models, manifest), lease)
        await self._topics.write("models", entries)
        deadline = self._now() + timeout_s
        while (models := await self._topics.read(timeout_s)).is_collecting(manifest.sha256, self._now_ms()):
            if self._now() > deadline:
                raise ServerError(f"artifact {manifest.sha256} is being collected by another client: deploy again")
            await asyncio.sleep(POLL_S)
        try:
            return check_unchanged(models, manifest)
        except VersionExistsError:
            await self._topics.write("models", dict.fromkeys(entries))
            raise

    def _entries(self, models: ModelList, manifest: Manifest, lease: LeaseKey) -> Records:
        """A lease on the artifact of a version, and a claim on the version if it has none yet."""
        key, value = VersionKey(manifest.model_id, manifest.version), self._encode(manifest)
        return {lease: value} if key in models.claims else {ClaimKey.new(key): value, lease: value}

    async def _collect(self, models: ModelList, timeout_s: float) -> None:
        for sha256 in [sha256 for sha256 in models.leases if models.collectable(sha256, self._now_ms())]:
            await self._collect_artifact(next(iter(models.leases[sha256].values())).manifest, timeout_s)

    async def _collect_artifact(self, manifest: Manifest, timeout_s: float) -> None:
        """Delete the parts of an artifact, unless a version or a lease has appeared before the mark is written."""
        mark, started_ms, leases = LeaseKey.new(manifest.sha256, collecting=True), self._now_ms(), list[LeaseKey]()
        await self._topics.write("models", {mark: self._encode(manifest)})
        models, now_ms = await self._topics.read(timeout_s), self._now_ms()
        if models.collectable(manifest.sha256, now_ms, mark) and now_ms - started_ms < COLLECTION_TIMEOUT_MS:
            await self._topics.write("model-artifacts", dict.fromkeys(self._parts(manifest)))
            leases = list(models.leases[manifest.sha256])
        await self._topics.write("models", dict.fromkeys(leases or [mark]))

    def _parts(self, manifest: Manifest, model: bytes = b"") -> Records:
        size = self._limits.artifact_part_bytes_max
        starts = range(0, manifest.size, size)
        return {ArtifactKey(manifest.sha256, part): model[start : start + size] for part, start in enumerate(starts)}

    def _encode(self, manifest: Manifest) -> bytes:
        return encode_manifest(manifest, limits=self._limits)

    def _now_ms(self) -> int:
        return int(self._now() * 1_000)


def _baselines_of(models: ModelList, removed: Sequence[VersionKey | AliasKey]) -> Records:
    """The tombstones of the baselines of removed versions."""
    return {
        BaselineKey(key.model_id, key.version, learned=learned): None
        for key in removed
        if isinstance(key, VersionKey) and key in models.baselines
        for learned in (False, True)
    }

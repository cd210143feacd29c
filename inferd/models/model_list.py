"""The models of a tenant according to its `models` topic, and the changes that are allowed. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from inferd.errors import VersionExistsError
from inferd.schemas.codecs import MSGPACK, Codec
from inferd.schemas.errors import (
    InvalidIdError,
    InvalidValueError,
    ModelNotFoundError,
    ModelServingError,
    TooLargeError,
    VersionNotFoundError,
)
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import (
    CHAMPION,
    Alias,
    AliasChangeKey,
    AliasKey,
    AliasLog,
    AliasTarget,
    ArtifactKey,
    BaselineKey,
    ClaimKey,
    LeaseKey,
    Manifest,
    ModelKey,
    Pause,
    PauseKey,
    VersionKey,
    check_manifest_key,
    check_shadow,
    decode_alias,
    decode_manifest,
    decode_pause,
    encode_manifest,
    main_version,
    missing_versions,
    parse_artifact_key,
    parse_model_key,
    replace_version,
    same_content,
    version_in_use_error,
    versions_named,
)
from inferd.schemas.monitoring import Baseline, Baselines, decode_baseline
from inferd.schemas.requests import ModelReference

GRACE_MS = 24 * 3_600_000
"""Age of a lease after which an artifact without a version is collected. No deploy takes that long."""
COLLECTING_MS = 300_000
"""Age after which a client that was collecting an artifact is considered dead."""


@dataclass(frozen=True, slots=True)
class Lease:
    """An artifact that a deploy sends, that a removal left behind, or that a client collects."""

    manifest: Manifest
    written_ms: int


@dataclass(slots=True)
class ModelList:
    """The content of a tenant's compacted `models` topic."""

    versions: dict[VersionKey, Manifest] = field(default_factory=dict)
    aliases: dict[AliasKey, Alias] = field(default_factory=dict)
    alias_logs: dict[AliasKey, AliasLog] = field(default_factory=dict)
    """The changes of every alias that ever was, removed ones included."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Keys of records that are neither a manifest nor an alias, with the reason."""
    highest: dict[str, int] = field(default_factory=dict)
    """The highest version number that was ever claimed or deployed, by model."""
    claims: dict[VersionKey, Manifest] = field(default_factory=dict)
    """The manifest of the first claim of each version."""
    leases: dict[str, dict[LeaseKey, Lease]] = field(default_factory=dict)
    """Leases on artifacts, by digest."""
    baselines: dict[VersionKey, Baselines] = field(default_factory=dict)
    """What features and predictions of versions are compared with."""
    pauses: dict[PauseKey, Pause] = field(default_factory=dict)
    """What workers leave in its topics."""
    limits: Limits = DEFAULT_LIMITS
    """Of the records."""

    def versions_of(self, model_id: str) -> list[Manifest]:
        """The versions of a model, oldest first."""
        found = [manifest for key, manifest in self.versions.items() if key.model_id == model_id]
        return sorted(found, key=lambda manifest: manifest.version)

    def aliases_of(self, model_id: str) -> dict[str, Alias]:
        """The aliases of a model by name."""
        return {key.alias: alias for key, alias in sorted(self.aliases.items(), key=str) if key.model_id == model_id}

    def newest_revision(self, key: AliasKey) -> Alias | None:
        """The newest revision of an alias, also that of its removal; None if it never existed."""
        log = self.alias_logs.get(key)
        return None if log is None else log.newest

    def dangling(self) -> dict[AliasKey, list[int]]:
        """Aliases that point at versions that are not deployed, with these versions."""
        found = {
            key: missing_versions(alias, [manifest.version for manifest in self.versions_of(key.model_id)])
            for key, alias in sorted(self.aliases.items(), key=str)
        }
        return {key: missing for key, missing in found.items() if missing}

    def next_version(self, model_id: str) -> int:
        """One more than the highest version number that was ever claimed or deployed."""
        return self.highest.get(model_id, 0) + 1

    def baseline(self, key: VersionKey) -> Baseline | None:
        """What features and predictions of a version are compared with; None if nothing is known."""
        return self.baselines.get(key, Baselines()).current

    def content(self, key: VersionKey) -> Manifest | None:
        """The only manifest that the version may have, deployed or not; None if any may claim it."""
        return self.claims.get(key) or self.versions.get(key)

    def collectable(self, sha256: str, now_ms: int, besides: LeaseKey | None = None) -> bool:
        """Whether no version needs the artifact, and every lease but `besides` is older than the grace period."""
        leases = self.leases.get(sha256, {})
        needed = any(manifest.sha256 == sha256 for manifest in self.versions.values())
        return not needed and all(
            now_ms - lease.written_ms > GRACE_MS for key, lease in leases.items() if key != besides
        )

    def is_collecting(self, sha256: str, now_ms: int) -> bool:
        """Whether a client may be about to collect the artifact."""
        leases = self.leases.get(sha256, {})
        return any(key.collecting and now_ms - lease.written_ms < COLLECTING_MS for key, lease in leases.items())

    def has(self, reference: ModelReference) -> bool:
        """Whether the version, alias or model that a reference names exists."""
        if reference.version is not None:
            return VersionKey(reference.name, reference.version) in self.versions
        if reference.alias is not None:
            return AliasKey(reference.name, reference.alias) in self.aliases
        return reference.name in self.highest and bool(self.versions_of(reference.name))

    def apply(self, key: bytes | None, value: bytes | None, codec: Codec = MSGPACK, written_ms: int = 0) -> None:
        """Apply one record of the topic."""
        try:
            self._put(parse_model_key(key), value, codec, written_ms)
        except ModelServingError as error:
            self.unreadable[(key or b"").decode("utf-8", "backslashreplace")] = error.message

    def _put(self, key: ModelKey, value: bytes | None, codec: Codec, written_ms: int) -> None:
        self.unreadable.pop(str(key), None)
        if isinstance(key, AliasKey | AliasChangeKey):
            self._put_alias(key, value, codec)
            return
        if isinstance(key, PauseKey):
            self.pauses.pop(key, None)
            if value is not None:
                self.pauses[key] = decode_pause(value, codec)
            return
        if isinstance(key, BaselineKey):
            baseline = None if value is None else decode_baseline(value, codec)
            present = self.baselines.get(key.version_key, Baselines())
            self.baselines[key.version_key] = present.put(baseline, learned=key.learned)
            return
        manifest = None if value is None else decode_manifest(value, self.limits, codec)
        if isinstance(key, LeaseKey):
            self._put_lease(key, manifest, written_ms)
        else:
            self.highest[key.model_id] = max(key.version, self.highest.get(key.model_id, 0))
            self._put_version(key, manifest)

    def _put_alias(self, key: AliasKey | AliasChangeKey, value: bytes | None, codec: Codec) -> None:
        of = key if isinstance(key, AliasKey) else key.alias_key
        log = self.alias_logs.setdefault(of, AliasLog())
        try:
            log.apply(key, None if value is None else decode_alias(value, self.limits, codec))
        except ModelServingError:
            log.apply(key, None)
            raise
        finally:
            self.aliases.pop(of, None)
            if (current := log.current) is not None:
                self.aliases[of] = current

    def _put_version(self, key: VersionKey | ClaimKey, manifest: Manifest | None) -> None:
        if manifest is not None:
            check_manifest_key(key, manifest)
        if isinstance(key, ClaimKey):
            if manifest is not None:
                self.claims.setdefault(key.version_key, manifest)
        elif manifest is None:
            self.versions.pop(key, None)
        else:
            self.versions[key] = self.claims.get(key, manifest)

    def _put_lease(self, key: LeaseKey, manifest: Manifest | None, written_ms: int) -> None:
        leases = self.leases.setdefault(key.sha256, {})
        if manifest is None:
            leases.pop(key, None)
        else:
            leases[key] = Lease(manifest, written_ms)
        if not leases:
            del self.leases[key.sha256]


def manifest_behind(models: ModelList, reference: ModelReference) -> Manifest:
    """The manifest that a reference resolves to; a bare name means `champion` if there is such an alias, else the
    newest version.

    `ModelNotFoundError` or `VersionNotFoundError` if there is none.
    """
    versions = {manifest.version: manifest for manifest in models.versions_of(reference.name)}
    if not versions:
        raise _no_model(reference.name)
    version = reference.version
    if version is None:
        alias = models.aliases_of(reference.name).get(reference.alias or CHAMPION)
        if alias is None and reference.alias is not None:
            raise VersionNotFoundError(f"model {reference.name!r} has no alias {reference.alias!r}")
        version = max(versions) if alias is None else main_version(alias)
    if version not in versions:
        raise VersionNotFoundError(f"model {reference.name!r} has no version {version}; it has {sorted(versions)}")
    return versions[version]


def check_alias_target(models: ModelList, key: AliasKey, target: AliasTarget) -> None:
    """Raises `ModelNotFoundError` or `VersionNotFoundError` if the alias would point at a missing version, and
    `InvalidValueError` for a shadow version that also answers."""
    check_shadow(target)
    versions = {manifest.version for manifest in models.versions_of(key.model_id)}
    if not versions:
        raise _no_model(key.model_id)
    if missing := sorted(versions_named(target) - versions):
        raise VersionNotFoundError(
            f"{key} cannot lead to version {', '.join(map(str, missing))}: {key.model_id!r} has {sorted(versions)}"
        )


def _no_model(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(f"there is no model {name!r}; `inferd models list` shows what there is")


def check_deployable(models: ModelList, model: bytes, manifest: Manifest, limits: Limits) -> None:
    """Raises why the version cannot be deployed: `VersionExistsError`, or what reading its records would raise."""
    encode_manifest(manifest, limits=limits)
    parse_artifact_key(str(ArtifactKey(manifest.sha256, len(model) // limits.artifact_part_bytes_max)).encode())
    if len(model) > limits.artifact_bytes_max:
        raise TooLargeError(f"the model has {len(model)} bytes; at most {limits.artifact_bytes_max} are allowed")
    if manifest.size != len(model) or manifest.sha256 != hashlib.sha256(model).hexdigest():
        raise InvalidValueError(
            f"the manifest of {manifest.model_id}:{manifest.version} names other bytes than the model's: its size and"
            " sha256 must be those of the file"
        )
    check_unchanged(models, manifest)


def check_unchanged(models: ModelList, manifest: Manifest) -> Manifest:
    """The manifest that the version has, if there is one, else `manifest`; `VersionExistsError` if they differ."""
    key = VersionKey(manifest.model_id, manifest.version)
    content = models.content(key)
    if content is not None and not same_content(content, manifest):
        state = "is deployed already" if key in models.versions else "is taken by another deploy"
        raise VersionExistsError(
            f"{manifest.model_id}:{manifest.version} {state}, from {content.sha256[:12]}…; a version never changes,"
            f" also after its removal: deploy as version {models.next_version(manifest.model_id)}"
        )
    return content or manifest


def keys_to_remove(models: ModelList, reference: ModelReference, *, everything: bool) -> list[VersionKey | AliasKey]:
    """The keys that a reference names: a version, an alias, or, with `everything`, all of a model.

    `ModelNotFoundError` or `VersionNotFoundError` if there is none, `InvalidIdError` if it names a whole model without
    `everything`.
    """
    keys: list[VersionKey | AliasKey] = [*models.aliases, *models.versions]
    of_model = [key for key in keys if key.model_id == reference.name]
    if not of_model:
        raise _no_model(reference.name)
    if reference.version is None and reference.alias is None:
        if everything:
            return of_model
        raise InvalidIdError(
            f"{reference} names a whole model: say which version ({reference}:1), or ask for all of it"
        )
    named = [key for key in of_model if str(key) == _key_text(reference)]
    if not named:
        raise VersionNotFoundError(f"model {reference.name!r} has no {_what(reference)}")
    return named


def aliases_to_move(
    models: ModelList, removed: Sequence[VersionKey | AliasKey], to: int | None
) -> dict[AliasKey, AliasTarget]:
    """The aliases that point at a removed version and remain, each with version `to` in its place.

    `VersionInUseError` if there is one and `to` is None; `VersionNotFoundError` if `to` is not deployed, or is removed
    itself; `InvalidValueError` if `to` is given and more than one version is removed.
    """
    versions = [key for key in removed if isinstance(key, VersionKey)]
    if to is not None and (len(removed) != 1 or not versions):
        raise InvalidValueError("aliases can be moved only if one version is removed: name it as name:version")
    moved = {}
    for key, alias in models.aliases.items():
        used = [v for v in versions if v.model_id == key.model_id and v.version in versions_named(alias)]
        if used and key not in removed:
            moved[key] = replace_version(alias, used[0].version, _checked_target(models, key, used[0], to))
    return moved


def _checked_target(models: ModelList, key: AliasKey, removed: VersionKey, to: int | None) -> int:
    there = {manifest.version for manifest in models.versions_of(key.model_id)} - {removed.version}
    if to is None:
        raise version_in_use_error(key, removed.version, there)
    if to not in there:
        raise VersionNotFoundError(f"{key} cannot lead to version {to}: {key.model_id!r} keeps {sorted(there)}")
    return to


def _key_text(reference: ModelReference) -> str:
    if reference.version is not None:
        return str(VersionKey(reference.name, reference.version))
    return str(AliasKey(reference.name, reference.alias or ""))


def _what(reference: ModelReference) -> str:
    return f"version {reference.version}" if reference.version is not None else f"alias {reference.alias!r}"

"""The models of one tenant in a Python program: registered, listed, and loaded on first use."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from inferd.schemas.codec import decode_manifest, encode_manifest
from inferd.schemas.codecs import JSON
from inferd.schemas.errors import (
    InvalidIdError,
    InvalidValueError,
    ModelNotFoundError,
    ServerError,
    VersionNotFoundError,
)
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import (
    Alias,
    AliasChangedError,
    AliasKey,
    AliasTarget,
    Manifest,
    check_model_name,
    check_no_shadow,
    check_target,
    earlier_target,
    next_revision,
    replace_version,
    target_of,
    version_in_use_error,
    versions_named,
)
from inferd.schemas.requests import ModelReference
from inferd.schemas.topics import DEFAULT_TENANT, check_topic_part
from inferd.streams.inference import ModelCatalog, ServedModel, manifest_of
from inferd.streams.private_directory import private_directory
from inferd.streams.serving.alias_file import write_aliases
from inferd.streams.serving.directory_catalog import (
    ALIASES_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    DirectoryCatalog,
    store_error,
    try_model,
)
from inferd.streams.serving.script_logs import log_to_stderr

TEMPORARY_PREFIX = "~new-"
"""Not valid in model names or versions, so that an incomplete version is never visible."""


class ModelManager:
    """Models in `store`: `<store>/<tenant>/<model>/<version>/{model.txt,manifest.json}`. Thread-safe.

    Models are referenced as `name`, `name:version` or `name@alias`. `name` means `name@champion`, or the newest version
    that loads if there is no such alias.
    """

    def __init__(
        self,
        store: str | Path,
        tenant_id: str = DEFAULT_TENANT,
        *,
        limits: Limits = DEFAULT_LIMITS,
        threads: int = 1,
    ) -> None:
        """`store` is a directory, created when the first model is registered; `threads` are used per prediction.

        Raises `InvalidIdError` for the tenant, `ServerError` if `store` is not a directory.
        """
        log_to_stderr()
        self.store = Path(store)
        self.tenant_id = check_topic_part("tenant_id", tenant_id)
        self.limits, self.threads = limits, threads
        if self.store.exists() and not self.store.is_dir():
            raise ServerError(f"store {self.store}: expected a directory for models, not a file")
        self._directory = DirectoryCatalog(self.store / tenant_id, limits, threads)

    @property
    def catalog(self) -> ModelCatalog:
        """All versions, loaded or not, and the aliases."""
        return self._directory

    def register(
        self, model_id: str, path: str | Path | bytes, *, alias: str | None = None, trial: bool = True, **manifest: Any
    ) -> Manifest:
        """Register a model (a file or its bytes) as the next version of `model_id`; returns its manifest.

        `name:version` sets the version. `manifest` are fields of a manifest (`postprocess={"labels": […]}`,
        `features=…`, `cache=…`); missing ones are derived from the model file. Registering the same file with the same
        manifest again changes nothing. With `trial` the model is loaded and run in a disposable subprocess first.
        `alias` is pointed at the version. Raises `InferenceError` for an invalid file or manifest, `ServerError` if
        the store cannot be written.
        """
        reference = _version_reference(model_id)
        name, number = reference.name, reference.version
        content = path if isinstance(path, bytes) else _read(Path(path))
        number = _agreed(number, manifest.pop("version", None))
        complete, is_new = self._complete(name, number, content, manifest)
        if is_new:
            if trial:
                try_model(content, complete, self.limits)
                self._directory.passed_trial(complete)
            complete = self._place(complete, content, chosen=number is not None)
        if alias is not None:
            self.set_alias(name, alias, complete.version)
        return complete

    def set_alias(
        self,
        model_id: str,
        alias: str,
        target: int | AliasTarget,
        *,
        revision: int | None = None,
        changed_by: str | None = None,
    ) -> Alias:
        """Point `model_id@alias` at a version, or at an `AliasTarget` such as a split; all its versions must exist.

        Returns the alias as it is then. `AliasChangedError` if `revision` is given and is not that of the alias.
        """
        checked = check_target(AliasTarget(version=target) if isinstance(target, int) else target)
        return self._change_alias(AliasKey(model_id, alias), checked, revision, changed_by)

    def rollback_alias(
        self, model_id: str, alias: str, *, revision: int | None = None, changed_by: str | None = None
    ) -> Alias:
        """Point `model_id@alias` at what it pointed at before its last change; see `Client.rollback_alias`."""
        key = AliasKey(model_id, alias)
        earlier = earlier_target(key, self._alias(key))
        return self._change_alias(key, earlier, revision, changed_by, restores=earlier.revision)

    def promote_alias(
        self, model_id: str, alias: str, to: str, *, revision: int | None = None, changed_by: str | None = None
    ) -> Alias:
        """Point `model_id@to` at what `model_id@alias` points at; see `Client.promote_alias`."""
        source = self._alias(AliasKey(model_id, alias))
        return self._change_alias(AliasKey(model_id, to), source, revision, changed_by)

    def _alias(self, key: AliasKey) -> Alias:
        found = self._known(key.model_id).aliases(key.model_id).get(key.alias)
        if found is None:
            raise VersionNotFoundError(f"model {key.model_id!r} has no alias {key.alias!r}")
        return found

    def _change_alias(
        self, key: AliasKey, target: AliasTarget, revision: int | None, by: str | None, restores: int | None = None
    ) -> Alias:
        name = check_model_name(key.model_id)
        aliases = self._known(name).aliases(name)
        check_model_name(key.alias)
        check_no_shadow(target)
        for number in versions_named(target):
            if self._directory.version(name, number) is None:
                raise VersionNotFoundError(f"model {name!r} has no version {number}: register it first")
        current = aliases.get(key.alias)
        known = 0 if current is None else current.revision
        if revision is not None and revision != known:
            raise AliasChangedError(f"{key} was changed in the meantime: it has revision {known}, not {revision}")
        if current is not None and target_of(current) == target_of(target):
            return current
        changed = next_revision(current, target_of(target), _now(), by, restores)
        self._write_aliases(name, {**aliases, key.alias: changed})
        return changed

    def remove(self, model_id: str, *, move_aliases_to: int | None = None) -> list[str]:
        """Remove `name:version`, `name@alias`, or with `name` the whole model; returns the removed record keys.

        A version that an alias points at is removed only with `move_aliases_to`, another version, at which the aliases
        are pointed first; otherwise `VersionInUseError`.
        """
        reference = ModelReference.parse(model_id)
        name = reference.name
        catalog = self._known(name)
        if reference.version is not None:
            return self._remove_version(name, reference.version, move_aliases_to)
        if move_aliases_to is not None:
            raise InvalidValueError(f"{model_id}: move_aliases_to needs a single version, name:version")
        if reference.alias is not None:
            return self._remove_alias(name, reference.alias)
        versions = [v.manifest.version for v in catalog.versions() if v.manifest.model_id == name]
        _remove(self._directory.folder(name))
        self._directory.refresh(name)
        return [f"{name}/{number}" for number in versions]

    def _remove_version(self, name: str, number: int, move_aliases_to: int | None) -> list[str]:
        if self.catalog.version(name, number) is None:
            raise VersionNotFoundError(f"model {name!r} has no version {number}")
        aliases = self.catalog.aliases(name)
        using = sorted(alias for alias, target in aliases.items() if number in versions_named(target))
        if using and move_aliases_to is None:
            others = [v.manifest.version for v in self.catalog.versions() if v.manifest.model_id == name]
            raise version_in_use_error(AliasKey(name, using[0]), number, {*others} - {number})
        if using and move_aliases_to is not None:
            if move_aliases_to == number or self.catalog.version(name, move_aliases_to) is None:
                raise VersionNotFoundError(f"model {name!r} has no other version {move_aliases_to} to move aliases to")
            for alias in using:
                self._change_alias(
                    AliasKey(name, alias), replace_version(aliases[alias], number, move_aliases_to), None, None
                )
        _remove(self._directory.folder(name) / str(number))
        self._directory.refresh(name)
        return [f"{name}/{number}"]

    def _remove_alias(self, name: str, alias: str) -> list[str]:
        aliases = self.catalog.aliases(name)
        if aliases.pop(alias, None) is None:
            raise VersionNotFoundError(f"model {name!r} has no alias {alias!r}")
        self._write_aliases(name, aliases)
        return [f"{name}@{alias}"]

    def load(self, model_id: str, *, routing_key: bytes = b"") -> ServedModel:
        """The version that `model_id` resolves to, loaded if necessary; `routing_key` selects the version of a split.

        Raises `InferenceError` if there is none or it cannot be loaded. Models are tried in a disposable subprocess
        first, and a failure is remembered until the files change.
        """
        reference = ModelReference.parse(model_id)
        try:
            return self.catalog.resolve(reference, routing_key)
        except ModelNotFoundError:
            raise self._not_found(reference.name) from None

    def for_tenant(self, tenant_id: str) -> ModelManager:
        """The manager of another tenant in the same store."""
        if tenant_id == self.tenant_id:
            return self
        return ModelManager(self.store, tenant_id, limits=self.limits, threads=self.threads)

    def list(self) -> list[Manifest]:
        """The manifests of all versions, loaded or not, by name and number."""
        return [version.manifest for version in self.catalog.versions()]

    def _complete(
        self, name: str, number: int | None, content: bytes, given: Mapping[str, Any]
    ) -> tuple[Manifest, bool]:
        """The complete manifest, and whether it is new."""
        self._directory.refresh(name)
        fields = msgspec.to_builtins(dict(given))
        existing = {v.manifest.version: v.manifest for v in self._directory.versions() if v.manifest.model_id == name}
        newest = max(existing, default=0)
        version = newest + 1 if number is None else number
        complete = manifest_of(content, name, version, fields, limits=self.limits)
        # Raise before anything is written if the manifest could not be read back.
        _manifest_bytes(complete, self.limits)
        if (same := existing.get(newest if number is None else number)) is not None:
            dated = msgspec.structs.replace(complete, version=same.version, created_at=same.created_at)
            if dated == same and complete.created_at in (None, same.created_at):
                return same, False
        if number in existing:
            raise InvalidValueError(
                f"{name}:{number} exists already with other content: omit the version to register the next one"
            )
        return msgspec.structs.replace(complete, created_at=complete.created_at or _now()), True

    def _place(self, manifest: Manifest, content: bytes, *, chosen: bool) -> Manifest:
        """Write a version atomically. If another process has taken its number, use the next one unless it is chosen."""
        folder = self._directory.folder(manifest.model_id)
        try:
            private_directory(folder)
            temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=folder))
            try:
                (temporary / MODEL_FILE).write_bytes(content)
                while not _rename(temporary, folder, manifest, self.limits):
                    if chosen:
                        raise InvalidValueError(
                            f"{manifest.model_id}:{manifest.version} was registered by another process"
                        )
                    manifest = msgspec.structs.replace(manifest, version=manifest.version + 1)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise store_error(folder, error) from error
        self._directory.refresh(manifest.model_id)
        return manifest

    def _write_aliases(self, name: str, aliases: Mapping[str, Alias]) -> None:
        folder = self._directory.folder(name)
        try:
            write_aliases(folder / ALIASES_FILE, aliases)
        except OSError as error:
            raise store_error(folder, error) from error
        self._directory.refresh(name)

    def _known(self, name: str) -> ModelCatalog:
        """The catalog; `ModelNotFoundError` if it does not have the model."""
        self._directory.refresh(name)
        if not any(manifest.model_id == name for manifest in self.list()):
            raise self._not_found(name)
        return self.catalog

    def _not_found(self, name: str) -> ModelNotFoundError:
        names = sorted({manifest.model_id for manifest in self.list()})
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        existing = f"it has {shown}" if names else "it has none yet"
        return ModelNotFoundError(
            f"tenant {self.tenant_id!r} has no model {name!r} ({existing}): register it with"
            f" model_manager.register({name!r}, 'model.txt')"
        )


def manager_of(model_manager: ModelManager, tenant_id: str | None) -> ModelManager:
    """The manager of a tenant (None: its own tenant); `ServerError` if it is not a manager."""
    if not callable(getattr(model_manager, "load", None)):
        raise ServerError(
            f"model_manager of {type(model_manager).__name__}: expected a ModelManager, such as ModelManager('models')"
        )
    return model_manager if tenant_id is None else model_manager.for_tenant(tenant_id)


def _version_reference(model_id: str) -> ModelReference:
    reference = ModelReference.parse(model_id)
    if reference.alias is not None:
        raise InvalidIdError(f"model_id {model_id!r}: expected name or name:version; pass the alias as alias=…")
    return reference


def _agreed(number: int | None, field: Any) -> int | None:
    if field is None or field == number:
        return number
    if number is not None or not isinstance(field, int) or isinstance(field, bool):
        raise InvalidValueError(f"version {field!r:.40} is not {number or 'a whole number from 1'}")
    return field


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidValueError(
            f"model file {path}: {error.strerror or error}; pass a file written by Booster.save_model"
        ) from None


def _manifest_bytes(manifest: Manifest, limits: Limits) -> bytes:
    """The content of the manifest file; raises the errors of reading it back."""
    value = msgspec.json.format(encode_manifest(manifest, JSON, limits))
    decode_manifest(value, limits, JSON)
    return value


def _rename(temporary: Path, folder: Path, manifest: Manifest, limits: Limits) -> bool:
    """Move the version to its final directory; False if its number is taken."""
    (temporary / MANIFEST_FILE).write_bytes(_manifest_bytes(manifest, limits))
    target = folder / str(manifest.version)
    try:
        os.rename(temporary, target)  # noqa: PTH104  (Path.rename would suggest that it replaces the target)
    except OSError:
        if target.exists():
            return False
        raise
    return True


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise store_error(folder, error) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""The models of one tenant, as programs hold them: registered, listed, and loaded when they are first asked for."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from inferd.schemas.codec import check_alias, decode_manifest, encode_manifest
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
    AliasKey,
    Manifest,
    check_model_name,
    refuse_shadow,
    replaced,
    version_in_use,
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
    try_model,
    unreadable,
)
from inferd.streams.serving.script_logs import log_to_stderr

ASIDE = "~new-"
"""Names no model and no version, so that half a version is never seen."""


class ModelManager:
    """Models below `store`: `<store>/<tenant>/<model>/<version>/{model.txt,manifest.json}`. Any thread may use it.

    References are those of the wire: `name`, `name:version` or `name@alias`; a bare name means `name@champion`, or the
    newest version that loads where there is no such alias.
    """

    def __init__(
        self,
        store: str | Path,
        tenant_id: str = DEFAULT_TENANT,
        *,
        limits: Limits = DEFAULT_LIMITS,
        threads: int = 1,
    ) -> None:
        """`store` is a directory, made when the first model is registered; `threads` are those of one prediction.

        Raises `InvalidIdError` for the tenant, `ServerError` where `store` is something else.
        """
        log_to_stderr()
        self.store = Path(store)
        self.tenant_id = check_topic_part("tenant_id", tenant_id)
        self.limits, self.threads = limits, threads
        if self.store.exists() and not self.store.is_dir():
            raise ServerError(f"store {self.store}: it is a file, and a directory for models is expected")
        self._directory = DirectoryCatalog(self.store / tenant_id, limits, threads)

    @property
    def catalog(self) -> ModelCatalog:
        """Every version there is, loaded or not, and where aliases lead."""
        return self._directory

    def register(
        self, model_id: str, path: str | Path | bytes, *, alias: str | None = None, trial: bool = True, **manifest: Any
    ) -> Manifest:
        """Adds a LightGBM text model (a file, or its bytes) as the next version of `model_id`; the manifest it has now.

        `name:version` chooses the version. `manifest` are fields of a manifest (`postprocess={"labels": […]}`,
        `features=…`, `cache=…`); what they leave out is filled in from the file. The same file with the same manifest
        is registered once. With `trial` it is loaded and run in a disposable subprocess first. `alias` is pointed at
        it. Raises `InferenceError` where file or manifest do not serve, `ServerError` where the store does not.
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

    def set_alias(self, model_id: str, alias: str, target: int | Alias) -> None:
        """Points `model_id@alias` at a version (or at an `Alias`: a split, say), all of which must be there."""
        name = check_model_name(model_id)
        checked = check_alias(Alias(version=target) if isinstance(target, int) else target)
        aliases = {**self._known(name).aliases(name), check_model_name(alias): checked}
        refuse_shadow(checked)
        for number in versions_named(checked):
            if self._directory.version(name, number) is None:
                raise VersionNotFoundError(f"model {name!r} has no version {number}: register it first")
        self._write_aliases(name, aliases)

    def remove(self, model_id: str, *, move_aliases_to: int | None = None) -> list[str]:
        """Removes `name:version`, `name@alias`, or with a bare name the whole model: what is gone, as on the wire.

        A version that an alias leads to is removed only with `move_aliases_to`, another version: the aliases lead there
        before the version goes. `VersionInUseError` where an alias would lead nowhere.
        """
        reference = ModelReference.parse(model_id)
        name = reference.name
        catalog = self._known(name)
        if reference.version is not None:
            return self._remove_version(name, reference.version, move_aliases_to)
        if move_aliases_to is not None:
            raise InvalidValueError(
                f"{model_id}: aliases are moved where one version is removed, named as name:version"
            )
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
            raise version_in_use(AliasKey(name, using[0]), number, {*others} - {number})
        if using and move_aliases_to is not None:
            if move_aliases_to == number or self.catalog.version(name, move_aliases_to) is None:
                raise VersionNotFoundError(
                    f"model {name!r} keeps no version {move_aliases_to}: move aliases to another"
                )
            moved = {alias: replaced(aliases[alias], number, move_aliases_to) for alias in using}
            self._write_aliases(name, {**aliases, **moved})
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
        """The version that `model_id` leads to, loaded now where it is not yet; of a split, by `routing_key`.

        Raises `InferenceError` where there is none, or where it cannot be loaded: that is found out in a disposable
        subprocess, and remembered until its files change.
        """
        reference = ModelReference.parse(model_id)
        try:
            return self.catalog.resolve(reference, routing_key)
        except ModelNotFoundError:
            raise self._not_found(reference.name) from None

    def for_tenant(self, tenant_id: str) -> ModelManager:
        """The models of another tenant in the same store; this one where it is the same tenant."""
        if tenant_id == self.tenant_id:
            return self
        return ModelManager(self.store, tenant_id, limits=self.limits, threads=self.threads)

    def list(self) -> list[Manifest]:
        """The manifests of all versions, by name and number, whether they are loaded or not."""
        return [version.manifest for version in self.catalog.versions()]

    def _complete(
        self, name: str, number: int | None, content: bytes, given: Mapping[str, Any]
    ) -> tuple[Manifest, bool]:
        """The manifest of what is registered, and whether it is not there yet."""
        self._directory.refresh(name)
        fields = msgspec.to_builtins(dict(given))
        there = {v.manifest.version: v.manifest for v in self._directory.versions() if v.manifest.model_id == name}
        newest = max(there, default=0)
        version = newest + 1 if number is None else number
        complete = manifest_of(content, name, version, fields, limits=self.limits)
        # What will be read, before anything is written.
        _manifest_bytes(complete, self.limits)
        if (same := there.get(newest if number is None else number)) is not None:
            dated = msgspec.structs.replace(complete, version=same.version, created_at=same.created_at)
            if dated == same and complete.created_at in (None, same.created_at):
                return same, False
        if number in there:
            raise InvalidValueError(
                f"{name}:{number} is there already, and is another one: leave the version out to register the next"
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return msgspec.structs.replace(complete, created_at=complete.created_at or now), True

    def _place(self, manifest: Manifest, content: bytes, *, chosen: bool) -> Manifest:
        """Puts a version into the store at once; another process may have taken its number meanwhile."""
        folder = self._directory.folder(manifest.model_id)
        try:
            private_directory(folder)
            aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=folder))
            try:
                (aside / MODEL_FILE).write_bytes(content)
                while not _rename(aside, folder, manifest, self.limits):
                    if chosen:
                        raise InvalidValueError(f"{manifest.model_id}:{manifest.version} was registered just now")
                    manifest = msgspec.structs.replace(manifest, version=manifest.version + 1)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        except OSError as error:
            raise unreadable(folder, error) from error
        self._directory.refresh(manifest.model_id)
        return manifest

    def _write_aliases(self, name: str, aliases: Mapping[str, Alias]) -> None:
        folder = self._directory.folder(name)
        try:
            write_aliases(folder / ALIASES_FILE, aliases)
        except OSError as error:
            raise unreadable(folder, error) from error
        self._directory.refresh(name)

    def _known(self, name: str) -> ModelCatalog:
        """The catalog, if it has the model; `ModelNotFoundError` else."""
        self._directory.refresh(name)
        if not any(manifest.model_id == name for manifest in self.list()):
            raise self._not_found(name)
        return self.catalog

    def _not_found(self, name: str) -> ModelNotFoundError:
        names = sorted({manifest.model_id for manifest in self.list()})
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        there = f"there are {shown}" if names else "there is none yet"
        return ModelNotFoundError(
            f"there is no model {name!r} of tenant {self.tenant_id!r} ({there}): register it with"
            f" model_manager.register({name!r}, 'model.txt')"
        )


def manager_of(model_manager: ModelManager, tenant_id: str | None) -> ModelManager:
    """The manager of a tenant, None being the manager's own; `ServerError` for what is no manager."""
    if not callable(getattr(model_manager, "load", None)):
        raise ServerError(
            f"model_manager of {type(model_manager).__name__}: expected a ModelManager, such as ModelManager('models')"
        )
    return model_manager if tenant_id is None else model_manager.for_tenant(tenant_id)


def _version_reference(model_id: str) -> ModelReference:
    reference = ModelReference.parse(model_id)
    if reference.alias is not None:
        raise InvalidIdError(f"model_id {model_id!r}: register name or name:version, and name the alias as alias=…")
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
            f"model file {path}: {error.strerror or error}; name a file that Booster.save_model has written"
        ) from None


def _manifest_bytes(manifest: Manifest, limits: Limits) -> bytes:
    """The manifest as a file; raises what reading it would raise."""
    value = msgspec.json.format(encode_manifest(manifest, "json", limits))
    decode_manifest(value, limits, "json")
    return value


def _rename(aside: Path, folder: Path, manifest: Manifest, limits: Limits) -> bool:
    """Whether the version is in its place: False where its number is taken."""
    (aside / MANIFEST_FILE).write_bytes(_manifest_bytes(manifest, limits))
    place = folder / str(manifest.version)
    try:
        os.rename(aside, place)  # noqa: PTH104  (Path.rename is the same, and reads as if it replaced)
    except OSError:
        if place.exists():
            return False
        raise
    return True


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise unreadable(folder, error) from error

"""The version of a model that scores a job: pinned when the job is opened, looked up for each chunk."""

from __future__ import annotations

from inferd.schemas.errors import ModelNotReadyError, VersionNotFoundError
from inferd.schemas.jobs import Chunk
from inferd.schemas.models import main_version
from inferd.schemas.requests import ModelReference, Output
from inferd.streams.inference import ModelCatalog, ServedModel
from inferd.streams.jobs.state import Pin, PinnedModel


class NotYetServedError(VersionNotFoundError):
    """The version, or its content, is not known here: this worker may not have read it yet, or it was removed."""


def pin_in(catalog: ModelCatalog) -> Pin:
    """Pins versions of a catalog."""

    def pin(reference: ModelReference, outputs: tuple[Output, ...], job_id: str) -> PinnedModel:
        return pin_model(catalog, reference, outputs, job_id)

    return pin


def pin_model(
    catalog: ModelCatalog, reference: ModelReference, outputs: tuple[Output, ...], job_id: str
) -> PinnedModel:
    """The version that scores a job; for a split alias, always the same one for the same job id.

    A version may be pinned before it is loaded. `ModelNotFoundError`, `VersionNotFoundError`; `ModelNotReadyError` if
    it failed to load; `InvalidValueError` for an unsupported output.
    """
    marks = _marks(catalog, reference, job_id)
    candidates = catalog.candidates(reference, job_id.encode())
    # Versions are newest first: prefer one that serves, else one that may.
    version = min(candidates, key=lambda each: (not each.usable, each.state == "failed"))
    manifest = version.manifest
    if version.served is None:
        if version.state == "failed":
            raise ModelNotReadyError(f"{manifest.model_id}:{manifest.version} failed to load: {version.reason}")
        return PinnedModel(manifest.model_id, manifest.version, manifest.sha256, None, *marks)
    version.served.check_outputs(outputs)
    values = sum(version.served.runtime.values_per_row(output) for output in outputs)
    return PinnedModel(manifest.model_id, manifest.version, manifest.sha256, values, *marks)


def _marks(catalog: ModelCatalog, reference: ModelReference, job_id: str) -> tuple[int | None, str | None]:
    """The revision of the alias that a reference is resolved by, and the variant of the version; None without one."""
    alias = catalog.alias_behind(reference)
    if alias is None:
        return None, None
    number = alias.version
    if number is None:
        number = int(catalog.split_versions(reference, [job_id.encode()])[0])
    return alias.revision, "champion" if number == main_version(alias) else "canary"


def model_of(catalog: ModelCatalog, chunk: Chunk) -> ServedModel:
    """The version that scores a chunk.

    `NotYetServedError` (`version_not_found`) if it is unknown or has other content, and `ModelNotReadyError` while it
    is loading: both are transient. `ModelNotReadyError` is final (`is_final`) if it failed to load.
    """
    version = catalog.version(chunk.model_id, chunk.version)
    name = f"{chunk.model_id}:{chunk.version}"
    if version is None:
        raise NotYetServedError(f"model {chunk.model_id!r} has no version {chunk.version} (any longer)")
    if version.manifest.sha256 != chunk.digest:
        raise NotYetServedError(f"{name} was replaced by other bytes since the job was opened: open another job")
    if version.served is None:
        raise ModelNotReadyError(f"{name} is {version.state}" + (f": {version.reason}" if version.reason else ""))
    return version.served


def is_final(catalog: ModelCatalog, chunk: Chunk) -> bool:
    """Whether waiting for the version of a chunk is pointless: it failed to load, was removed, or was replaced."""
    if catalog.was_removed(chunk.model_id, chunk.version, chunk.digest):
        return True
    version = catalog.version(chunk.model_id, chunk.version)
    return version is not None and version.state == "failed" and is_known(catalog, chunk)


def is_known(catalog: ModelCatalog, chunk: Chunk) -> bool:
    """Whether the version of a chunk is known with the same content, loaded or not."""
    version = catalog.version(chunk.model_id, chunk.version)
    return version is not None and version.manifest.sha256 == chunk.digest

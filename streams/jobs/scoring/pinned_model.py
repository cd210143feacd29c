"""Which version of a model a job is scored with: pinned when it is opened, found again by whoever scores a chunk."""

from __future__ import annotations

from inferd.schemas.errors import ModelNotReadyError, VersionNotFoundError
from inferd.schemas.jobs import Chunk
from inferd.schemas.requests import ModelReference, Output
from inferd.streams.inference import ModelCatalog, ServedModel
from inferd.streams.jobs.state import Pin, PinnedModel


class NotYetServedError(VersionNotFoundError):
    """The version is not known here, or not in these bytes: it may be on its way to this worker, or be removed."""


def pin_in(catalog: ModelCatalog) -> Pin:
    """Pins versions of a catalog."""

    def pin(reference: ModelReference, outputs: tuple[Output, ...], job_id: str) -> PinnedModel:
        return pin_model(catalog, reference, outputs, job_id)

    return pin


def pin_model(
    catalog: ModelCatalog, reference: ModelReference, outputs: tuple[Output, ...], job_id: str
) -> PinnedModel:
    """The version that a job is scored with; of a split, always the same one for the same job id.

    One that is not loaded, or not yet, is pinned as well. `ModelNotFoundError`, `VersionNotFoundError`;
    `ModelNotReadyError` where it failed to load; `InvalidValueError` for an output that it cannot give.
    """
    candidates = catalog.candidates(reference, job_id.encode())
    # Of several, which are newest first: one that serves, or else one that may come to.
    version = min(candidates, key=lambda each: (not each.usable, each.state == "failed"))
    manifest = version.manifest
    if version.served is None:
        if version.state == "failed":
            raise ModelNotReadyError(f"{manifest.model_id}:{manifest.version} failed to load: {version.reason}")
        return PinnedModel(manifest.model_id, manifest.version, manifest.sha256)
    version.served.check_outputs(outputs)
    values = sum(version.served.runtime.values_per_row(output) for output in outputs)
    return PinnedModel(manifest.model_id, manifest.version, manifest.sha256, values)


def model_of(catalog: ModelCatalog, chunk: Chunk) -> ServedModel:
    """The version that a chunk is to be scored with.

    `NotYetServedError` (`version_not_found`) where it is not here, or has other bytes; `ModelNotReadyError` where it is
    being loaded; both may pass. `ModelNotReadyError` also where it failed to load, which does not pass (`is_final`).
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
    """Whether waiting for the version of a chunk is in vain: it failed to load, was removed, or was replaced."""
    if catalog.is_gone(chunk.model_id, chunk.version, chunk.digest):
        return True
    version = catalog.version(chunk.model_id, chunk.version)
    return version is not None and version.state == "failed" and is_known(catalog, chunk)


def is_known(catalog: ModelCatalog, chunk: Chunk) -> bool:
    """Whether the version of a chunk is here in the same bytes, loaded or not."""
    version = catalog.version(chunk.model_id, chunk.version)
    return version is not None and version.manifest.sha256 == chunk.digest

"""Deploys a model file; missing fields of its manifest are derived from the file.

This is separate from `inferd.client` because reading model files needs LightGBM's runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inferd.client import Client
from inferd.models import check_deployable
from inferd.schemas.errors import InferenceError, MalformedError
from inferd.schemas.models import Manifest, VersionExistsError, VersionKey, check_model_name
from inferd.streams.inference import TrialLimits, foreign_folder, manifest_of
from inferd.streams.models.trial import TrialCase, try_models

Model = bytes | str | Path


async def deploy_file(
    client: Client,
    model: Model,
    name: str,
    *,
    version: int | None = None,
    manifest: Mapping[str, Any] | None = None,
    alias: str | None = None,
    trial: bool = True,
    trial_limits: TrialLimits | None = None,
) -> Manifest:
    """Deploy a model file (its bytes or its path) as `name`; returns the manifest once all is acknowledged.

    `version` defaults to the next free one; deploying the same content again under its version is allowed. `manifest`
    has fields of the manifest that are not derived from the file. The structure of the file is checked here. With
    `trial` it is also loaded and run in a disposable subprocess, as every worker does before it serves the version,
    within `trial_limits` (default: those of a worker). Raises `InferenceError` for an invalid file or manifest, and the
    errors of `Client.deploy_model`; nothing is written then. A trial that finds other bits in a batch sets `batching`
    of the manifest of a new version to False.
    """
    check_model_name(name)
    content = model if isinstance(model, bytes) else await asyncio.to_thread(_read, Path(model))
    asked = version or (manifest or {}).get("version")
    batching = True
    while True:
        complete = await _complete(client, content, name, asked, manifest or {}, batching=batching)
        if trial:
            limits = trial_limits or TrialLimits(sizes=client.limits)
            batching = await asyncio.to_thread(_try, content, complete, limits)
            trial = False
            continue
        try:
            return await client.deploy_model(content, complete, alias=alias)
        except VersionExistsError:  # another client has claimed the number since
            if asked:
                raise


async def _complete(
    client: Client, content: bytes, name: str, version: int | None, given: Mapping[str, Any], *, batching: bool
) -> Manifest:
    """The manifest of a version, or of the next free one; raises if it cannot be deployed."""
    models = await client.models()
    key = VersionKey(name, version or models.next_version(name))
    present = models.content(key)
    created_at = present.created_at if present is not None else datetime.now(UTC).isoformat(timespec="seconds")
    fields = {"created_at": created_at, **given}
    if not (batching if present is None else present.batching):
        fields["batching"] = False
    complete = await asyncio.to_thread(manifest_of, content, name, key.version, fields, limits=client.limits)
    check_deployable(models, content, complete, client.limits)
    return complete


def _read(path: Path) -> bytes:
    """The bytes of a model file; `MalformedError` saying what a folder is."""
    if path.is_dir():
        raise MalformedError(f"{path}: {foreign_folder(each.name for each in path.iterdir())}")
    return path.read_bytes()


def _try(content: bytes, manifest: Manifest, limits: TrialLimits) -> bool:
    """Whether rows have the same bits in a batch; raises if the model does not pass its trial."""
    (verdict,) = try_models([TrialCase(content, manifest)], limits)
    if not verdict.ok:
        raise InferenceError(f"the model did not pass its trial, and nothing was deployed: {verdict.reason}")
    return verdict.batching

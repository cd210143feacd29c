"""Deploys a model file; missing fields of its manifest are derived from the file.

This is separate from `inferd.client` because reading model files needs LightGBM's runtime.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inferd.client import Client
from inferd.models import check_deployable
from inferd.schemas.errors import InferenceError, InvalidValueError, MalformedError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Manifest, VersionExistsError, VersionKey, check_model_name
from inferd.schemas.monitoring import Baseline
from inferd.streams.inference import (
    Inputs,
    ServedModel,
    TrialLimits,
    concatenate,
    foreign_folder,
    load_model,
    manifest_of,
)
from inferd.streams.models.trial import TrialCase, try_models
from inferd.streams.monitoring import PredictionCounter, make_baseline

Model = bytes | str | Path
BASELINE_ROWS_MAX, BLOCK_ROWS = 100_000, 512


async def deploy_file(  # noqa: PLR0913  (each is an option of the deploy)
    client: Client,
    model: Model,
    name: str,
    *,
    version: int | None = None,
    manifest: Mapping[str, Any] | None = None,
    alias: str | None = None,
    trial: bool = True,
    trial_limits: TrialLimits | None = None,
    baseline: Callable[[Manifest], Iterable[Any]] | None = None,
) -> Manifest:
    """Deploy a model file (its bytes or its path) as `name`; returns the manifest once all is acknowledged.

    `version` defaults to the next free one; deploying the same content again under its version is allowed. `manifest`
    has fields of the manifest that are not derived from the file. The structure of the file is checked here. With
    `trial` it is also loaded and run in a disposable subprocess, as every worker does before it serves the version,
    within `trial_limits` (default: those of a worker). Raises `InferenceError` for an invalid file or manifest, and the
    errors of `Client.deploy_model`; nothing is written then. A trial that finds other bits in a batch sets `batching`
    of the manifest of a new version to False. `baseline` returns rows of the training for the complete manifest;
    requests are compared with them, and only their histograms are stored (see `baseline_of`).
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
        made = None
        if baseline is not None:
            made = await asyncio.to_thread(_baseline, content, complete, baseline, client.limits)
        try:
            deployed = await client.deploy_model(content, complete, alias=alias)
        except VersionExistsError:  # another client has claimed the number since
            if asked:
                raise
        else:
            if made is not None:
                await client.set_baseline(deployed.model_id, deployed.version, made)
            return deployed


def baseline_of(model: bytes, manifest: Manifest, rows: Iterable[Any], *, limits: Limits = DEFAULT_LIMITS) -> Baseline:
    """The baseline of a version: histograms of the features of `rows`, and of its predictions for them.

    A row is a list in the order of the features, or a dict. Rows that the version would reject are left out; of more
    than `BASELINE_ROWS_MAX` rows, so many are chosen at random. `InvalidValueError` if none is left.
    """
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(model)
        served = load_model(Path(file.name), manifest, limits=limits)
    try:
        chosen = _chosen(rows)
        starts = range(0, len(chosen), BLOCK_ROWS)
        blocks = [block for start in starts for block in _inputs(served, chosen[start : start + BLOCK_ROWS])]
        if not blocks:
            raise InvalidValueError(f"baseline: {manifest.model_id}:{manifest.version} accepts none of its rows")
        inputs = concatenate(blocks)
        arrays = served.runtime.predict(inputs, served.postprocessor.needed(("prediction",)))
        predictions = PredictionCounter(served).count(arrays, slice(None))
        return make_baseline(served.features, inputs, predictions, int(time.time() * 1000), "given")
    finally:
        served.runtime.close()


def _baseline(
    content: bytes, manifest: Manifest, rows: Callable[[Manifest], Iterable[Any]], limits: Limits
) -> Baseline:
    return baseline_of(content, manifest, rows(manifest), limits=limits)


def _chosen(rows: Iterable[Any]) -> list[Any]:
    """Up to `BASELINE_ROWS_MAX` rows, each with the same probability (Vitter's algorithm R)."""
    chance = random.Random(0)  # noqa: S311  (the same rows give the same baseline)
    chosen: list[Any] = []
    for number, row in enumerate(rows):
        if number < BASELINE_ROWS_MAX:
            chosen.append(row)
        elif (place := chance.randrange(number + 1)) < BASELINE_ROWS_MAX:
            chosen[place] = row
    return chosen


def _inputs(served: ServedModel, rows: Sequence[Any]) -> list[Inputs]:
    """The rows as the version gets them, without those that it would reject."""
    names = served.features.feature_names
    values = [[row.get(name) for name in names] if isinstance(row, dict) else list(row) for row in rows]
    values = [row for row in values if len(row) == len(names)]
    try:
        return [served.features.of_values([list(row) for row in values])] if values else []
    except InferenceError:
        return [] if len(rows) == 1 else [inputs for row in rows for inputs in _inputs(served, [row])]


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

"""An MLflow model, ready to be deployed: its file, its signature, its alias, and its origin."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inferd.mlflow.mlmodel import check_library, features_of, parse_description
from inferd.mlflow.reference import RegisteredAlias, parse_reference
from inferd.mlflow.server import TrackingServer, connected
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.streams.inference import read_model

_DESCRIPTION_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class MlflowModel:
    """A model that was fetched."""

    content: bytes
    """Its file."""
    features: list[dict[str, Any]]
    """The features in its signature, as fields of a manifest."""
    labels: dict[str, str]
    """Those of `mlflow_model`, `mlflow_version`, `mlflow_model_id` and `mlflow_run_id` that it has."""
    alias: str | None
    """The alias by which it was found."""

    def manifest(self, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The manifest for a deploy. Fields of `given` take precedence; labels are added to those of `given`."""
        given = given or {}
        return {"features": self.features, **given, "labels": {**(given.get("labels") or {}), **self.labels}}


async def fetch_mlflow_model(uri: str, server: TrackingServer, limits: Limits = DEFAULT_LIMITS) -> MlflowModel:
    """The model that `models:/churn@champion`, `models:/churn/3` or `runs:/RUN_ID/PATH` names.

    Raises `MlflowUnreachableError`; `ServerError` if the server refuses; `InvalidIdError` for another URI;
    `ModelNotFoundError` and `VersionNotFoundError`; `MalformedError` for a model that cannot be served, naming the
    remedy; `InternalError` if another version of its library is installed; and what `read_model` raises.
    """
    reference = parse_reference(uri)
    async with connected(server) as session:
        found = await session.find(reference)
        description = parse_description(await session.read(found, "MLmodel", _DESCRIPTION_BYTES_MAX))
        await asyncio.to_thread(check_library, description)
        content = await session.read(found, description.path, limits.artifact_bytes_max)
    file = await asyncio.to_thread(read_model, content, limits, description.flavour)
    alias = reference.alias if isinstance(reference, RegisteredAlias) else None
    return MlflowModel(content, features_of(description.columns, file), found.labels, alias)

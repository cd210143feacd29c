"""Model names that user code answers without a model file. They are versions in the catalog like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from inferd.schemas.errors import InternalError
from inferd.schemas.models import Feature, Manifest
from inferd.schemas.requests import Output
from inferd.streams.inference.catalog import ServedModel, Version
from inferd.streams.inference.features import FeatureSchema
from inferd.streams.inference.inputs import Inputs
from inferd.streams.inference.postprocess import compile_postprocess
from inferd.streams.inference.runtime import Arrays

ProcessRows = Callable[[str, Sequence[Any]], Sequence[Any]]
"""(model id, rows) -> for each row its prediction, or the `ModelServingError` that it got."""


def own_digest(name: str, version: int) -> str:
    """The digest of such a version in results. It depends only on name and version, so it is the same on every worker.

    A result must be a function of request and digest. If the code's predictions change, use another version.
    """
    return hashlib.sha256(f"inferd own model\n{name}\n{version}".encode()).hexdigest()


def own_version(name: str, version: int, process: ProcessRows) -> Version:
    """A ready version that passes its rows to `process`."""
    manifest = Manifest(
        model_id=name,
        version=version,
        runtime=cast(Any, "own"),  # never on the wire: manifests cannot name it
        sha256=own_digest(name, version),
        size=0,
        features=[Feature("row")],  # the code takes any row
    )
    served = ServedModel(manifest, OwnRuntime(process), FeatureSchema(manifest), compile_postprocess(manifest))
    return Version(manifest, "ready", None, served)


@dataclass(frozen=True, slots=True)
class OwnRuntime:
    """Stands in for a loaded model: `process` gets the rows as sent, without a feature matrix."""

    process: ProcessRows
    n_features: int = 0
    feature_names: tuple[str, ...] = ()
    outputs_per_row: int = 1
    objective: str | None = None

    def supports(self, output: Output) -> bool:
        """Only `prediction` is supported."""
        return output == "prediction"

    def values_per_row(self, output: Output) -> int:
        """One value, of any type."""
        return 1

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """Raises `InternalError`: there is no feature matrix to score."""
        raise InternalError("a user-defined model has no feature matrix")

    def close(self) -> None:
        """Nothing to free."""

"""Model names that a user's own code answers, without a model file: versions of a catalog like any other."""

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
    """The digest in results of an own name: it follows from name and version alone, on every worker.

    A result is a function of request and digest. So code whose answers change gives another version.
    """
    return hashlib.sha256(f"inferd own model\n{name}\n{version}".encode()).hexdigest()


def own_version(name: str, version: int, process: ProcessRows) -> Version:
    """A version that serves, whose rows go to `process`."""
    manifest = Manifest(
        model_id=name,
        version=version,
        runtime=cast(Any, "own"),  # never on the wire: no manifest can name it
        sha256=own_digest(name, version),
        size=0,
        features=[Feature("row")],  # whatever a row has, the code looks at it
    )
    served = ServedModel(manifest, OwnRuntime(process), FeatureSchema(manifest), compile_postprocess(manifest))
    return Version(manifest, "ready", None, served)


@dataclass(frozen=True, slots=True)
class OwnRuntime:
    """Stands where a loaded model does: `process` answers rows as they are, and there is no matrix of them."""

    process: ProcessRows
    n_features: int = 0
    feature_names: tuple[str, ...] = ()
    outputs_per_row: int = 1
    objective: str | None = None

    def supports(self, output: Output) -> bool:
        """Own code gives predictions alone."""
        return output == "prediction"

    def values_per_row(self, output: Output) -> int:
        """One, of whatever kind it is."""
        return 1

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """`InternalError`: rows do not come this way."""
        raise InternalError("an own model has no matrix of features")

    def close(self) -> None:
        """Nothing to free."""

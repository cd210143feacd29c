"""Loads a version from its manifest and the bytes of its model file."""

from __future__ import annotations

from pathlib import Path

from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Manifest
from inferd.schemas.requests import Output
from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.features import FeatureSchema, sample_inputs, varied_inputs
from inferd.streams.inference.manifest_features import complete_file
from inferd.streams.inference.manifests import reconcile
from inferd.streams.inference.model_format import ModelFile
from inferd.streams.inference.postprocess import compile_postprocess
from inferd.streams.inference.registry import format_named, read_model
from inferd.streams.inference.row_by_row import RowByRow, is_equal_alone, scores_batches
from inferd.streams.inference.runtime import ModelRuntime

_COMPARED: tuple[Output, ...] = ("prediction", "probabilities", "raw", "leaves")
"""Outputs that are compared before a version serves; the trial compares contributions, too, which take longer."""


def load_runtime(model: bytes, file: ModelFile, threads: int) -> ModelRuntime:
    """The runtime of a model file. It scores row by row if a row may have other bits in a batch than alone."""
    runtime = format_named(file.runtime).load(model, file, threads)
    return runtime if scores_batches(runtime) else RowByRow(runtime)


def load_model(path: Path, manifest: Manifest, threads: int = 1, limits: Limits = DEFAULT_LIMITS) -> ServedModel:
    """Loads a model that has passed its trial, and runs it once, so that its first request is not slowed down.

    A model whose rows have other bits in a batch than alone is scored row by row. Raises `InferenceError` if manifest
    and model file contradict each other.
    """
    model = path.read_bytes()
    file = read_model(model, limits, manifest.runtime)
    complete = reconcile(manifest, file)
    file = complete_file(file, complete)
    features, postprocessor = FeatureSchema(complete, file.features), compile_postprocess(complete)
    runtime = load_runtime(model, file, threads)
    runtime.predict(sample_inputs(file.features)[:1], postprocessor.needed(("prediction",)))
    if scores_batches(runtime) and not (complete.batching and _is_equal_alone(runtime, file)):
        runtime = RowByRow(runtime)
    return ServedModel(complete, runtime, features, postprocessor)


def _is_equal_alone(runtime: ModelRuntime, file: ModelFile) -> bool:
    outputs = tuple(output for output in (*_COMPARED, *file.output_names) if runtime.supports(output))
    return is_equal_alone(runtime, varied_inputs(file.features), outputs)

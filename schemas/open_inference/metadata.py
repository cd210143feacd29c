"""Metadata of a server and of its models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from inferd.schemas.models import Feature, Manifest
from inferd.schemas.open_inference.datatypes import TEXT, datatype_of

RepositoryState = Literal["READY", "LOADING", "UNAVAILABLE"]
EXTENSIONS = ("binary_tensor_data", "model_repository")
_DATATYPES = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL", "text": TEXT}
_CATEGORIES = {"boolean": "BOOL", "integer": "INT64", "number": "FP64"}


class ServerMetadata(Struct, frozen=True, kw_only=True):
    """The server, and the extensions of the protocol that it has."""

    name: str
    version: str
    extensions: tuple[str, ...] = EXTENSIONS


class Live(Struct, frozen=True):
    """The event loop is running."""

    live: bool


class ProtocolError(Struct, frozen=True):
    """The body of error responses: `<code>: <message>`."""

    error: str


class ModelReady(Struct, frozen=True):
    """A version that answers requests."""

    name: str
    ready: bool


class IndexRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Which versions to list: all, or only those that answer requests."""

    ready: bool = False


class TensorMetadata(Struct, frozen=True, kw_only=True):
    """An input or an output; -1 in a shape is the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Struct, frozen=True, kw_only=True):
    """A model: one tensor for each feature, and its default output."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class RepositoryModel(Struct, frozen=True, kw_only=True):
    """A version of a model and whether it serves."""

    name: str
    version: str
    state: RepositoryState
    reason: str | UnsetType = UNSET


def model_metadata(manifest: Manifest, versions: Sequence[int]) -> ModelMetadata:
    """Metadata of a version among the `versions` of its model."""
    return ModelMetadata(
        name=manifest.model_id,
        versions=[str(version) for version in versions],
        platform=manifest.runtime,
        inputs=[TensorMetadata(name=each.name, datatype=_input(each), shape=[-1]) for each in manifest.features],
        outputs=[_prediction(manifest)],
    )


def _input(feature: Feature) -> str:
    if feature.dtype != "category":
        return _DATATYPES[feature.dtype]
    described = feature.described_categories
    return TEXT if described is None else _CATEGORIES.get(described.kind, TEXT)


def _prediction(manifest: Manifest) -> TensorMetadata:
    datatype, shape = "FP64", [-1]
    spec = manifest.postprocess
    if spec is not None and spec.top_k is not None:
        datatype, shape = TEXT, [-1, spec.top_k]
    elif spec is not None and spec.labels is not None:
        datatype = TEXT
    elif spec is not None and spec.threshold is not None and manifest.classes is None:
        datatype = "INT64"
    elif manifest.classes is not None:
        datatype = datatype_of(manifest.classes)
    elif (manifest.outputs or 1) > 1:
        shape = [-1, manifest.outputs or 1]
    return TensorMetadata(name="prediction", datatype=datatype, shape=shape)

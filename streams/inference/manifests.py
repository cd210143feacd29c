"""Manifests and model files: fills in what a manifest leaves out, and rejects contradictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from inferd.schemas.errors import MalformedError, SchemaMismatchError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import (
    DType,
    Feature,
    FileCategories,
    Manifest,
)
from inferd.streams.inference.features import FeatureSchema, Values
from inferd.streams.inference.manifest_features import complete_file, merged_features, name_features, same_categories
from inferd.streams.inference.model_format import ModelFile
from inferd.streams.inference.postprocess import compile_postprocess
from inferd.streams.inference.registry import format_named, read_model


def manifest_of(
    model: bytes,
    model_id: str,
    version: int,
    overrides: Mapping[str, Any] | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
    file: ModelFile | None = None,
) -> Manifest:
    """The manifest of a model file, with the settings of the user's own manifest (`overrides`, decoded JSON).

    Features have the names and dtypes of the file; the manifest supplies those that the file lacks. The manifest
    describes categories of the file, and their values stay in the file. `overrides` may name some features only, or all
    in the model's order; a feature without a dtype keeps the file's.

    Raises what `read_model` raises; `MalformedError` if `overrides` is not a manifest; `SchemaMismatchError` if it
    contradicts the file or the arguments, or if neither shows which features are categories; and the errors of
    `FeatureSchema` and `compile_postprocess`.
    """
    file = file or read_model(model, limits)
    facts = {
        "model_id": model_id,
        "version": version,
        "runtime": file.runtime,
        "sha256": file.sha256,
        "size": file.size,
    }
    given = dict(overrides or {})
    for name, fact in facts.items():
        if given.get(name, fact) != fact:
            raise SchemaMismatchError(f"manifest: {name} is {given[name]!r:.80}, and {fact!r} is deployed")
    try:
        manifest = msgspec.convert({"features": [], **given, **facts}, Manifest)
    except msgspec.ValidationError as error:
        raise MalformedError(f"manifest: {error}") from None
    dtypes = _dtypes(given.get("features", []))
    file = name_features(file, manifest.features)
    placed = _categories(manifest.features, file, [name for name, dtype in dtypes.items() if dtype != "category"])
    in_file = {feature.name: feature.dtype for feature in file.features}
    features = [each if each.name in dtypes else _with_dtype(each, placed, in_file) for each in manifest.features]
    complete = _complete(msgspec.structs.replace(manifest, features=features), file, placed)
    described = [_described(feature, placed.get(feature.name)) for feature in complete.features]
    return msgspec.structs.replace(complete, features=described)


def _dtypes(features: list[dict[str, Any]]) -> dict[str, str]:
    """The dtypes in a user's manifest, for the features that have a dtype or categories."""
    return {each["name"]: each.get("dtype", "float64") for each in features if {"dtype", "categories"} & each.keys()}


def _with_dtype(feature: Feature, placed: Mapping[str, Values], in_file: Mapping[str, DType]) -> Feature:
    """`feature`, which has no dtype, with the dtype of the file."""
    if feature.name in placed:
        return msgspec.structs.replace(feature, dtype="category")
    return msgspec.structs.replace(feature, dtype=in_file.get(feature.name, feature.dtype))


def reconcile(manifest: Manifest, file: ModelFile) -> Manifest:
    """`manifest`, completed with features, categories, objective and outputs of its model file. The file must have the
    manifest's digest.

    Raises `SchemaMismatchError` if the two contradict each other, and the errors of `FeatureSchema` and
    `compile_postprocess`.
    """
    file = name_features(file, manifest.features)
    return _complete(manifest, file, _categories(manifest.features, file))


def _complete(manifest: Manifest, file: ModelFile, placed: Mapping[str, Values]) -> Manifest:
    if manifest.objective is not None:
        canonical = format_named(file.runtime).canonical_objective(manifest.objective)
        manifest = msgspec.structs.replace(manifest, objective=canonical)
    facts = {
        "runtime": file.runtime,
        "sha256": file.sha256,
        "size": file.size,
        "objective": file.objective,
        "outputs": file.outputs_per_row,
        "classes": list(file.classes) or None,
        "output_names": list(file.output_names) or None,
    }
    for name, fact in facts.items():
        given = getattr(manifest, name)
        if given is not None and given != fact:
            raise SchemaMismatchError(f"manifest: {name} is {given!r:.80}, in the model file it is {fact!r}")
    defaults = manifest.preprocess.defaults if manifest.preprocess is not None else {}
    features = merged_features(manifest.features, file, placed, defaults)
    complete = msgspec.structs.replace(manifest, features=features, **facts)
    FeatureSchema(complete, complete_file(file, complete).features)
    compile_postprocess(complete)
    return complete


def _categories(given: list[Feature], file: ModelFile, others: Sequence[str] = ()) -> Mapping[str, Values]:
    """The file's categories by feature: as assigned in the manifest, or derived from the file.

    `others` are features that have no categories according to the manifest.
    """
    lists = file.category_lists.lists
    if not lists:
        return file.categories or {}
    named = {feature.name for feature in given if feature.dtype == "category" and _may_be_of(feature, lists)}
    in_order = [column for column, name in enumerate(file.feature_names) if name in named]
    if len(named) == len(lists):
        if not file.category_lists.agree(in_order):
            raise SchemaMismatchError(
                f"manifest: the categories of the model file are not those of {_listed(named)}: "
                "training saw values there that are not codes of them"
            )
        return {file.feature_names[c]: values for c, values in zip(in_order, lists, strict=True)}
    placed = file.categories
    if placed is None and others:
        placed = file.placed_categories(others)
    if placed is None:
        raise _open_categories(file)
    return placed


def _may_be_of(feature: Feature, lists: Sequence[Values]) -> bool:
    return feature.categories is None or any(same_categories(feature.categories, values) for values in lists)


def _open_categories(file: ModelFile) -> SchemaMismatchError:
    lists = file.category_lists.lists
    example = msgspec.json.encode({"features": [{"name": "NAME", "dtype": "category"}]}).decode()
    coded = sorted(feature.name for feature in file.features if feature.dtype == "int64")
    hint = f"; by the library's default these are {_listed(coded)}" if len(coded) == len(lists) else ""
    return SchemaMismatchError(
        f"model file: has pandas categories of {len(lists)} features, and does not show of which{hint}. Name exactly "
        f"the columns that had dtype category in training in a manifest (--manifest): {example}"
    )


def _listed(names: Iterable[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(repr(name[:80]) for name in shown[:5]) + more


def _described(feature: Feature, in_file: Values | None) -> Feature:
    """`feature` as deployed: without the values of categories that are in the file."""
    if in_file is None or feature.dtype != "category":
        return feature
    return msgspec.structs.replace(feature, categories=None, file_categories=FileCategories.of(in_file))

"""Manifests against model files: what a manifest leaves out is filled in, what it contradicts is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.errors import MalformedError, SchemaMismatchError
from schemas.models import Feature, Manifest
from streams.inference.feature_rules import refuse_repeats, refuse_unknown
from streams.inference.features import FeatureSchema
from streams.inference.model_categories import Category
from streams.inference.model_file import ModelFile, read_model_file
from streams.inference.postprocess import compile_postprocess


def manifest_of(
    model: bytes,
    model_id: str,
    version: int,
    overrides: Mapping[str, Any] | None = None,
    *,
    file: ModelFile | None = None,
) -> Manifest:
    """The manifest of a model file, with what the user's own manifest (`overrides`, as from JSON) says about it.

    Features that were pandas categories take the values they had in training; features that are integer codes to
    LightGBM without having been pandas' are int64; all others float64. `overrides` may name some features only, or all
    in the model's order; a feature without a dtype keeps the file's. Raises what `read_model_file` does;
    `MalformedError` where `overrides` is no manifest; `SchemaMismatchError` where it contradicts the file or the
    arguments; what `FeatureSchema` and `compile_postprocess` do about manifests.
    """
    file = file or read_model_file(model)
    facts = {"model_id": model_id, "version": version, "runtime": "lightgbm", "sha256": file.sha256, "size": file.size}
    given = _with_dtypes(dict(overrides or {}), file)
    for name, fact in facts.items():
        if given.get(name, fact) != fact:
            raise SchemaMismatchError(f"manifest: {name} is {given[name]!r:.80}, and {fact!r} is deployed")
    try:
        manifest = msgspec.convert({"features": [], **given, **facts}, Manifest)
    except msgspec.ValidationError as error:
        raise MalformedError(f"manifest: {error}") from None
    return reconcile(manifest, file)


def _with_dtypes(given: dict[str, Any], file: ModelFile) -> dict[str, Any]:
    """`given` with the file's dtype for each feature that names none; what is no feature stays as it is."""
    features = given.get("features")
    if not isinstance(features, list):
        return given
    return {**given, "features": [_with_dtype(each, file) if isinstance(each, dict) else each for each in features]}


def _with_dtype(given: dict[str, Any], file: ModelFile) -> dict[str, Any]:
    name = given.get("name")
    if "dtype" in given or "categories" in given or not isinstance(name, str):
        return given
    if name in file.categories:
        return {**given, "dtype": "category"}
    return {**given, "dtype": "int64"} if name in file.categorical else given


def reconcile(manifest: Manifest, file: ModelFile) -> Manifest:
    """`manifest` with all features, objective and outputs of its model file; its bytes must be those of the manifest.

    Raises `SchemaMismatchError` where the two contradict each other, and what `FeatureSchema` and `compile_postprocess`
    do.
    """
    facts = {"sha256": file.sha256, "size": file.size, "objective": file.objective, "outputs": file.outputs_per_row}
    for name, fact in facts.items():
        given = getattr(manifest, name)
        if given is not None and given != fact:
            raise SchemaMismatchError(f"manifest: {name} is {given!r:.80}, in the model file it is {fact!r}")
    complete = msgspec.structs.replace(manifest, features=_features(manifest.features, file), **facts)
    FeatureSchema(complete)
    compile_postprocess(complete)
    return complete


def _features(given: list[Feature], file: ModelFile) -> list[Feature]:
    names = [feature.name for feature in given]
    refuse_repeats("features", names)
    refuse_unknown("features", names, file.feature_names)
    if len(names) == len(file.feature_names) and tuple(names) != file.feature_names:
        raise SchemaMismatchError(
            "manifest: features are all there, in another order than in the model file: keep its order, "
            "and name the order of positional rows in preprocess.order"
        )
    by_name = {feature.name: feature for feature in given}
    categories = _categories(given, file)
    return [_feature(name, by_name.get(name), categories.get(name), file) for name in file.feature_names]


def _categories(given: list[Feature], file: ModelFile) -> dict[str, tuple[Category, ...]]:
    """The file's categories by feature. Where it does not show which features they belong to, the manifest does."""
    if not file.unplaced_categories:
        return dict(file.categories)
    named = {feature.name for feature in given if feature.dtype == "category"}
    lists = file.unplaced_categories
    if len(named) != len(lists):
        raise SchemaMismatchError(
            f"model file: has categories of {len(lists)} features, and does not show of which: name "
            f'exactly these in a manifest, with "dtype": "category"; it names {len(named)}'
        )
    return dict(zip([name for name in file.feature_names if name in named], lists, strict=True))


def _feature(name: str, given: Feature | None, categories: tuple[Category, ...] | None, file: ModelFile) -> Feature:
    if given is None:
        if categories is not None:
            return Feature(name, "category", list(categories))
        return Feature(name, "int64" if name in file.categorical else "float64")
    if given.dtype != "category" or categories is None:
        return given
    if given.categories is not None and _typed(given.categories) != _typed(categories):
        raise SchemaMismatchError(f"manifest: feature {name[:80]!r} has other categories than in the model file")
    return msgspec.structs.replace(given, categories=list(categories))


def _typed(values: list[Category] | tuple[Category, ...]) -> list[tuple[bool, Category]]:
    """Values that are equal only where both are booleans or neither is."""
    return [(isinstance(value, bool), value) for value in values]

"""Reconciles the features of a manifest with those of its model file: fills in what one lacks, reports
contradictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from inferd.schemas.errors import SchemaMismatchError
from inferd.schemas.models import Category, DType, Feature, FileCategories, Manifest
from inferd.streams.inference.features import FileFeature, Values, reject_repeats, reject_unknown
from inferd.streams.inference.model_format import ModelFile

_ANY = FileCategories("any", 0)


def complete_file(file: ModelFile, manifest: Manifest) -> ModelFile:
    """`file` with names and kinds from a reconciled manifest for the features that lack them."""
    file = name_features(file, manifest.features)
    features = tuple(
        _completed(in_file, given) for in_file, given in zip(file.features, manifest.features, strict=True)
    )
    return file if features == file.features else replace(file, features=features)


def name_features(file: ModelFile, given: Sequence[Feature]) -> ModelFile:
    """`file`, which has no feature names, with those of a manifest."""
    if file.named or not given:
        _reject_nameless(file)
        return file
    if not file.features:
        return replace(file, features=tuple(FileFeature(name=feature.name, fixed=False) for feature in given))
    if len(given) != len(file.features):
        return file
    renamed = zip(file.features, given, strict=True)
    return replace(file, features=tuple(replace(in_file, name=feature.name) for in_file, feature in renamed))


def merged_features(
    given: Sequence[Feature], file: ModelFile, placed: Mapping[str, Values], defaults: Mapping[str, object]
) -> list[Feature]:
    """All features of the file, with the settings of the manifest.

    `placed`: the categories in the file, by feature. Raises `SchemaMismatchError` if manifest and file contradict each
    other.
    """
    names = [feature.name for feature in given]
    reject_repeats("features", names)
    reject_unknown("features", names, file.feature_names)
    if len(names) == len(file.feature_names) and tuple(names) != file.feature_names:
        raise SchemaMismatchError(
            "manifest: the features are in another order than in the model file: use its order, "
            "and set the order of positional rows in preprocess.order"
        )
    by_name = {feature.name: feature for feature in given}
    return [
        _merged(in_file, by_name.get(in_file.name), placed.get(in_file.name), has_default=in_file.name in defaults)
        for in_file in file.features
    ]


def same_categories(first: Sequence[Category], second: Sequence[Category]) -> bool:
    """Whether the values are equal in pairs. A boolean equals only a boolean."""
    return _typed(first) == _typed(second)


def _completed(in_file: FileFeature, given: Feature) -> FileFeature:
    if in_file.fixed or in_file.coded:
        return in_file
    categories = None if given.categories is None else tuple(given.categories)
    return replace(in_file, dtype=given.dtype, categories=categories)


def _reject_nameless(file: ModelFile) -> None:
    if not file.features:
        raise SchemaMismatchError(
            "model file: does not say which features it takes: list all of them in a manifest (--manifest): "
            '{"features": [{"name": "NAME", "dtype": "float64"}]}'
        )


def _merged(in_file: FileFeature, given: Feature | None, categories: Values | None, *, has_default: bool) -> Feature:
    dtype = "category" if categories is not None else in_file.dtype
    if given is None:
        given = Feature(in_file.name, dtype)
    elif in_file.fixed:
        given = msgspec.structs.replace(given, dtype=_agreed_dtype(in_file, given))
    if given.dtype == "category" and categories is not None:
        given = _with_categories(given, categories)
    elif given.dtype == "category" and given.categories is None and not in_file.coded:
        given = msgspec.structs.replace(given, file_categories=_ANY)
    return _bounded(_required(given, in_file, has_default=has_default), in_file)


def _agreed_dtype(in_file: FileFeature, given: Feature) -> DType:
    """The file's dtype, or the manifest's if it is also numeric and allows fewer values."""
    if given.dtype in (in_file.dtype, "float64"):  # a manifest without a dtype means float64
        return in_file.dtype
    if in_file.dtype == "float64" and given.dtype in ("float32", "int64", "bool"):
        return given.dtype
    raise SchemaMismatchError(
        f"manifest: feature {in_file.name[:80]!r} is of dtype {given.dtype}, in the model file it is {in_file.dtype}"
    )


def _with_categories(given: Feature, categories: Values) -> Feature:
    if given.categories is not None and not same_categories(given.categories, categories):
        raise SchemaMismatchError(f"manifest: feature {given.name[:80]!r} has other categories than in the model file")
    if given.file_categories is not None and not given.file_categories.describes(categories):
        raise SchemaMismatchError(
            f"manifest: feature {given.name[:80]!r} describes other categories than the model file has"
        )
    return msgspec.structs.replace(given, categories=list(categories), file_categories=None)


def _required(given: Feature, in_file: FileFeature, *, has_default: bool) -> Feature:
    """The feature with `required` set if the model takes no missing values and the feature has no default."""
    if in_file.missing or has_default:
        return given
    if given.required is False:
        raise SchemaMismatchError(
            f"manifest: feature {given.name[:80]!r} is not required, and the model takes no missing value: "
            "give it a default in preprocess.defaults"
        )
    return msgspec.structs.replace(given, required=True)


def _bounded(given: Feature, in_file: FileFeature) -> Feature:
    """The feature with the range that both manifest and file allow."""
    lows = [low for low in (given.min, in_file.min) if low is not None]
    highs = [high for high in (given.max, in_file.max) if high is not None]
    return msgspec.structs.replace(given, min=max(lows, default=None), max=min(highs, default=None))


def _typed(values: Sequence[Category]) -> list[tuple[bool, Category]]:
    return [(isinstance(value, bool), value) for value in values]

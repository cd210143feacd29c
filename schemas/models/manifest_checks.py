"""Semantic checks of manifests and aliases, beyond the types of their fields. Each error names the field."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from inferd.schemas.errors import InvalidValueError, SchemaMismatchError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.schemas.models.alias_history import CHANGED_BY_CHARS_MAX, HISTORY_MAX, target_of
from inferd.schemas.models.model import (
    SHA256_PATTERN,
    Alias,
    AliasRevision,
    AliasTarget,
    CacheSpec,
    ClaimKey,
    ClassLabel,
    Feature,
    FileCategories,
    Manifest,
    Postprocess,
    Preprocess,
    VersionKey,
    check_model_name,
)
from inferd.schemas.requests import OUTPUT_CHARS_MAX, RESERVED_NAMES, Scalar

T = TypeVar("T")
Target = TypeVar("Target", bound=AliasTarget)
REVISION_MAX = 2**53
VERSION_MAX = 999_999_999
"""The highest version that the grammar of keys and references allows."""
_SHA256 = re.compile(SHA256_PATTERN.strip("^$"), re.ASCII)
_NUMBERS = {"float64", "float32", "int64"}
_FLOAT32_MAX = 3.4028234663852886e38


def check_manifest(manifest: Manifest, limits: Limits) -> Manifest:
    """Return `manifest` if it is consistent and within the limits.

    `InvalidIdError` for the model_id, `TooLargeError` for what exceeds a limit, `SchemaMismatchError` for repeated,
    unknown or missing features, `InvalidValueError` for everything else.
    """
    check_model_name(manifest.model_id)
    _check_version(manifest.version, "version")
    if not _SHA256.fullmatch(manifest.sha256):
        raise InvalidValueError(f"sha256 {manifest.sha256[:80]!r}: expected 64 of 0-9 a-f")
    if manifest.size < 1:
        raise InvalidValueError(f"size {manifest.size}: a model has at least 1 byte")
    if manifest.size > limits.artifact_bytes_max:
        raise TooLargeError(f"size {manifest.size}: at most {limits.artifact_bytes_max} bytes are allowed")
    _check_features(manifest.features, limits)
    if manifest.outputs is not None and manifest.outputs < 1:
        raise InvalidValueError(f"outputs {manifest.outputs}: a model predicts at least 1 value per row")
    if manifest.output_names is not None:
        _check_output_names(manifest.output_names)
    if manifest.classes is not None:
        _check_classes(manifest.classes)
    if manifest.preprocess is not None:
        _check_preprocess(manifest.preprocess, manifest.features)
    if manifest.postprocess is not None:
        _check_postprocess(manifest.postprocess, _class_count(manifest))
    if manifest.cache is not None:
        _check_cache(manifest.cache)
    return manifest


def check_manifest_key(key: VersionKey | ClaimKey, manifest: Manifest) -> None:
    """Raise `InvalidValueError` if `key` is not the key of this manifest."""
    if (key.model_id, key.version) != (manifest.model_id, manifest.version):
        raise InvalidValueError(
            f"the manifest is of {manifest.model_id}/{manifest.version}, but the key is {key}: they must be equal"
        )


def check_alias(alias: Alias) -> Alias:
    """Return `alias` if it is valid, else raise `InvalidValueError`."""
    if not alias.removed:
        check_target(alias)
    _check_revision(alias)
    for revision in alias.history or ():
        if not revision.removed:
            check_target(revision)
        _check_revision(revision)
    if len(alias.history or ()) > HISTORY_MAX:
        raise InvalidValueError(f"history: {len(alias.history or ())} revisions; at most {HISTORY_MAX} are kept")
    return alias


def check_target(target: Target) -> Target:
    """Return the target of an alias if it is valid, else raise `InvalidValueError`."""
    if (target.version is None) == (target.split is None):
        raise InvalidValueError("alias: expected exactly one of version and split")
    if target.version is not None:
        _check_version(target.version, "version")
    if target.split is not None:
        if not target.split:
            raise InvalidValueError("split: an empty list; name at least one version")
        for share in target.split:
            _check_version(share.version, "split")
            if not (math.isfinite(share.weight) and share.weight > 0):
                raise InvalidValueError(f"split: version {share.version} has the weight {share.weight}; it must be > 0")
        _check_unique([share.version for share in target.split], "split: version")
        if not math.isfinite(sum(share.weight for share in target.split)):
            raise InvalidValueError("split: the sum of the weights exceeds float64")
    for version in target.shadow or ():
        _check_version(version, "shadow")
    _check_unique(target.shadow or (), "shadow: version")
    return target


def _check_revision(revision: AliasRevision) -> None:
    if not 0 <= revision.revision <= REVISION_MAX:
        raise InvalidValueError(f"revision: {revision.revision} is not in 0..{REVISION_MAX}")
    if revision.removed and target_of(revision) != AliasTarget():
        raise InvalidValueError("removed: a removed alias has no target")
    for field, text in (("changed_at", revision.changed_at), ("changed_by", revision.changed_by)):
        if text is not None and len(text) > CHANGED_BY_CHARS_MAX:
            raise InvalidValueError(f"{field}: {len(text)} characters; at most {CHANGED_BY_CHARS_MAX} are allowed")


def _check_version(version: int, field: str) -> None:
    if not 1 <= version <= VERSION_MAX:
        raise InvalidValueError(f"{field}: version {version} is not in 1..{VERSION_MAX}")


def _check_unique(values: Sequence[object], what: str) -> None:
    if (twice := _repeated(values)) is not None:
        raise InvalidValueError(f"{what} {str(twice)[:80]!r} is named twice")


def _repeated(values: Iterable[T]) -> T | None:
    """The first value that occurs twice; None if all differ."""
    seen: set[T] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _check_features(features: list[Feature], limits: Limits) -> None:
    if not features:
        raise SchemaMismatchError("features: an empty list; a model has at least one")
    if len(features) > limits.features_max:
        raise TooLargeError(f"features: {len(features)}; at most {limits.features_max} are allowed")
    _check_feature_names([feature.name for feature in features], "features")
    for feature in features:
        if not feature.name:
            raise InvalidValueError("features: a name is empty")
        _check_range(feature)
        if feature.categories is not None:
            _check_categories(feature, feature.categories)
        if feature.file_categories is not None:
            _check_file_categories(feature, feature.file_categories)


def _check_feature_names(names: list[str], field: str) -> None:
    if (twice := _repeated(names)) is not None:
        raise SchemaMismatchError(f"{field}: {twice[:80]!r} is named twice")


def _check_range(feature: Feature) -> None:
    bounds = [bound for bound in (feature.min, feature.max) if bound is not None]
    if not bounds:
        return
    where = f"feature {feature.name[:80]!r}: min {feature.min}, max {feature.max}"
    if feature.dtype not in _NUMBERS:
        raise InvalidValueError(f"{where}: only numbers have a range, not dtype {feature.dtype}")
    if not all(map(math.isfinite, bounds)):
        raise InvalidValueError(f"{where}: omit a bound that is not finite")
    if bounds != sorted(bounds):
        raise InvalidValueError(f"{where}: min must not exceed max")


def _check_file_categories(feature: Feature, described: FileCategories) -> None:
    where = f"feature {feature.name[:80]!r}: file_categories"
    if feature.dtype != "category" or feature.categories is not None:
        raise InvalidValueError(f"{where}: only dtype category has them, and only without categories")
    if not 0 <= len(described.first) <= described.count:
        raise InvalidValueError(f"{where}: count {described.count}, but first has {len(described.first)}")


def _check_categories(feature: Feature, categories: Sequence[Scalar]) -> None:
    where = f"feature {feature.name[:80]!r}: categories"
    if feature.dtype != "category":
        raise InvalidValueError(f"{where}: only dtype category has them, not dtype {feature.dtype}")
    if not categories:
        raise InvalidValueError(f"{where}: an empty list; omit it to use those of the model file")
    for value in categories:
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidValueError(f"{where}: {value} is not a category; a missing value is null")
        _check_encodable(value, where)
    if len(set(categories)) != len(categories):
        raise InvalidValueError(f"{where}: a value appears twice (1, 1.0 and true are the same value)")


def _check_output_names(names: Sequence[str]) -> None:
    if not names:
        raise InvalidValueError("output_names: an empty list; omit it for a model without own outputs")
    _check_unique(names, "output_names:")
    for name in names:
        if name in RESERVED_NAMES or not 1 <= len(name) <= OUTPUT_CHARS_MAX:
            raise InvalidValueError(
                f"output_names: {name[:80]!r} is reserved, empty, or longer than {OUTPUT_CHARS_MAX}"
            )


def _check_classes(classes: Sequence[ClassLabel]) -> None:
    if not classes:
        raise InvalidValueError("classes: an empty list; omit it for a model without class labels")
    for label in classes:
        _check_encodable(label, "classes")
    _check_unique(classes, "classes:")


def _check_preprocess(preprocess: Preprocess, features: list[Feature]) -> None:
    by_name = {feature.name: feature for feature in features}
    if preprocess.order is not None:
        _check_feature_names(preprocess.order, "preprocess.order")
        _check_same_names(preprocess.order, by_name, "preprocess.order")
    for name, value in preprocess.defaults.items():
        if name not in by_name:
            raise SchemaMismatchError(f"preprocess.defaults: the model has no feature {name[:80]!r}")
        _check_default(by_name[name], value)


def _check_same_names(names: Iterable[str], by_name: dict[str, Feature], field: str) -> None:
    given = set(names)
    if missing := by_name.keys() - given:
        raise SchemaMismatchError(f"{field}: {_listed(missing)} missing; it must name every feature once")
    if unknown := given - by_name.keys():
        raise SchemaMismatchError(f"{field}: {_listed(unknown)} unknown; it must name features of the model only")


def _listed(names: set[str]) -> str:
    some = ", ".join(repr(name[:40]) for name in sorted(names)[:5])
    return f"{some}{f' and {len(names) - 5} more' if len(names) > 5 else ''} {'is' if len(names) == 1 else 'are'}"


def _check_default(feature: Feature, value: Scalar) -> None:
    """Reject a default that would be invalid in a request. None means missing."""
    if value is None:
        return
    where = f"preprocess.defaults: {feature.name[:80]!r}: {str(value)[:80]!r}"
    _check_encodable(value, where)
    if feature.dtype == "text" and not isinstance(value, str):
        raise InvalidValueError(f"{where} is not text")
    if feature.dtype == "category" and feature.categories is not None and value not in feature.categories:
        raise InvalidValueError(f"{where} is not one of its categories")
    if feature.dtype == "bool" and not isinstance(value, bool):
        raise InvalidValueError(f"{where} is not a boolean")
    if feature.dtype in _NUMBERS:
        _check_number(feature, value, where)


def _check_number(feature: Feature, value: Scalar, where: str) -> None:
    if value is None or isinstance(value, bool | str) or (feature.dtype == "int64" and value % 1 != 0):
        raise InvalidValueError(f"{where} is not of dtype {feature.dtype}")
    if not math.isfinite(value) or (feature.dtype == "float32" and abs(value) > _FLOAT32_MAX):
        raise InvalidValueError(f"{where} is out of range for {feature.dtype}")
    if (feature.min is not None and value < feature.min) or (feature.max is not None and value > feature.max):
        raise InvalidValueError(f"{where} is outside of {feature.min}..{feature.max}")


def _check_encodable(value: Scalar, where: str) -> None:
    """Reject an integer that JSON can represent but MessagePack cannot."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise InvalidValueError(f"{where}: an integer of {value.bit_length()} bits; at most 64 are allowed")


def _class_count(manifest: Manifest) -> int | None:
    """The number of classes that a classifier has; None if it is not known yet."""
    if manifest.classes is not None:
        return len(manifest.classes)
    return None if manifest.outputs is None else max(2, manifest.outputs)


def _check_postprocess(postprocess: Postprocess, classes: int | None) -> None:
    if postprocess.labels is not None:
        _check_unique(postprocess.labels, "postprocess.labels:")
        if classes is not None and len(postprocess.labels) != classes:
            raise SchemaMismatchError(
                f"postprocess.labels: {len(postprocess.labels)} labels, but the model has {classes} classes"
            )
        if len(postprocess.labels) < 2:
            raise InvalidValueError("postprocess.labels: a classifier has at least 2 classes")
    if postprocess.threshold is not None and not 0 <= postprocess.threshold <= 1:
        raise InvalidValueError(f"postprocess.threshold {postprocess.threshold}: expected a probability, 0 to 1")
    if postprocess.top_k is not None:
        if postprocess.top_k < 1:
            raise InvalidValueError(f"postprocess.top_k {postprocess.top_k}: expected at least 1")
        if classes is not None and postprocess.top_k > classes:
            raise InvalidValueError(f"postprocess.top_k {postprocess.top_k}: the model has only {classes} classes")


def _check_cache(cache: CacheSpec) -> None:
    if not (math.isfinite(cache.ttl_s) and cache.ttl_s > 0):
        raise InvalidValueError(f"cache.ttl_s {cache.ttl_s}: expected a finite number > 0")
    if cache.max_entries < 1:
        raise InvalidValueError(f"cache.max_entries {cache.max_entries}: expected at least 1")

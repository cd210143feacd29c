"""Reads and checks CatBoost model files without the library.

The format is that of `OutputModel` in CatBoost's `model.cpp`: `CBM1`, the length of a FlatBuffer, the FlatBuffer
(`TModelCore` in `model.fbs`), and parts for categories and text, which only the library reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from inferd.schemas.errors import InvalidValueError, MalformedError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Category, DType
from inferd.streams.inference.features import FileFeature
from inferd.streams.inference.formats.catboost.flatbuffer import FlatTable, root_table
from inferd.streams.inference.formats.catboost.losses import BINARY, CLASSIFICATION
from inferd.streams.inference.formats.catboost.model_trees import FLOAT_FEATURES, LEAF_WEIGHTS, check_trees
from inferd.streams.inference.model_format import ModelFile

NAME = "catboost"
BEGINS = "'CBM1' of a CatBoost model (save one with save_model('model.cbm'))"
_MAGIC, _HEADER_BYTES = b"CBM1", 8
_VERSION_FIELD, _TREES_FIELD, _INFO_FIELD = 0, 1, 2
_VERSION = "FlabuffersModel_v1"
_CATEGORIES, _TEXTS, _EMBEDDINGS = 4, 12, 18
_LABEL_TYPES: dict[str, type] = {"Integer": int, "Float": float, "String": str, "Boolean": bool}


@dataclass(frozen=True, kw_only=True)
class CatBoostFile(ModelFile):
    """A model file that passed `read_model_file`."""

    tree_count: int
    weighted: bool
    """Whether leaves have their weights: contributions need them."""


def sniff(content: bytes) -> bool:
    """Whether `content` is a CatBoost model, by its first bytes."""
    return content.startswith(_MAGIC)


def read_model_file(content: bytes, limits: Limits = DEFAULT_LIMITS) -> CatBoostFile:
    """Reads and checks a model file; `MalformedError` or `TooLargeError` say what is wrong and where.

    `InvalidValueError` for embedding features, which rows of a request cannot have.
    """
    core = root_table(_core(content))
    if (version := core.text(_VERSION_FIELD)) != _VERSION:
        raise MalformedError(f"model file: CatBoost format {version[:40]!r}: known is {_VERSION}")
    trees = core.table(_TREES_FIELD)
    if trees is None:
        raise MalformedError("model file: has no trees")
    features, named = _features(trees, limits)
    dimension, tree_count = check_trees(trees)
    info = {each.text(0): each for each in core.tables(_INFO_FIELD)}
    objective = _objective(info)
    return CatBoostFile(
        runtime=NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        objective=objective,
        outputs_per_row=dimension,
        features=features,
        named=named,
        classes=_classes(info, objective, dimension),
        tree_count=tree_count,
        weighted=trees.length(LEAF_WEIGHTS, "<f8") > 0,
    )


def _core(content: bytes) -> bytes:
    size = int.from_bytes(content[len(_MAGIC) : _HEADER_BYTES], "little")
    if not content.startswith(_MAGIC) or not 0 < size <= len(content) - _HEADER_BYTES:
        raise MalformedError(f"model file: ends too early, or does not begin with {BEGINS}")
    return content[_HEADER_BYTES : _HEADER_BYTES + size]


def _features(trees: FlatTable, limits: Limits) -> tuple[tuple[FileFeature, ...], bool]:
    """The features in the order of a row, and whether the file names any. Columns without a feature are numeric."""
    if embeddings := [each.text(2) or str(each.integer(1, -1)) for each in trees.tables(_EMBEDDINGS)]:
        raise InvalidValueError(f"model file: embedding features ({', '.join(embeddings)[:200]}) are not supported")
    found: dict[int, tuple[str, DType]] = {}
    vectors: tuple[tuple[int, int, int, DType], ...] = (
        (FLOAT_FEATURES, 2, 4, "float32"), (_CATEGORIES, 1, 2, "category"), (_TEXTS, 1, 2, "text"),
    )  # fmt: skip
    for vector, place_field, name_field, dtype in vectors:
        for each in trees.tables(vector):
            column = each.integer(place_field, -1)
            if column < 0 or column in found:
                raise MalformedError(f"model file: column {column} is missing, or belongs to more than one feature")
            found[column] = each.text(name_field), dtype
    count = max(found, default=-1) + 1
    _check_count(count, limits)
    features = tuple(_feature(column, *found.get(column, ("", "float32"))) for column in range(count))
    if len({feature.name for feature in features}) < count:
        raise MalformedError("model file: repeats the name of a feature")
    return features, any(name not in ("", str(column)) for column, (name, _) in found.items())


def _check_count(count: int, limits: Limits) -> None:
    if not count:
        raise MalformedError("model file: has no features")
    if count > limits.features_max:
        raise TooLargeError(f"model file: {count} features: at most {limits.features_max} are allowed")


def _feature(column: int, name: str, dtype: DType) -> FileFeature:
    """A feature. The library rounds numbers to float32. Texts and categories may not be missing, because the library
    hashes them."""
    return FileFeature(name=name or str(column), dtype=dtype, missing=dtype == "float32")


def _objective(info: Mapping[str, FlatTable]) -> str | None:
    loss = _json(info, "params").get("loss_function")
    name = loss.get("type") if isinstance(loss, dict) else None
    return name if isinstance(name, str) else None


def _classes(info: Mapping[str, FlatTable], objective: str | None, dimension: int) -> tuple[Category, ...]:
    """The labels of a classifier in the order of its probabilities."""
    if objective not in CLASSIFICATION:
        return ()
    count = 2 if objective in BINARY else dimension
    params = _json(info, "class_params")
    names = params.get("class_names") or list(range(count))
    kind = _LABEL_TYPES.get(str(params.get("class_label_type", "Integer")))
    if kind is None or not isinstance(names, list) or len(names) != count:
        raise MalformedError(f"model file: class_params does not name {count} classes")
    try:
        return tuple(kind(name) for name in names)
    except (TypeError, ValueError):
        raise MalformedError("model file: class_params has labels that do not have the declared type") from None


def _json(info: Mapping[str, FlatTable], key: str) -> dict[str, Any]:
    if key not in info:
        return {}
    try:
        return msgspec.json.decode(info[key].text(1), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedError(f"model file: {key} is not a JSON object: {error}") from None

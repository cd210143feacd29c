"""Checks the trees of a CatBoost model: the counts, indexes and shapes that `TModelTrees` in CatBoost's `model.cpp`
relies on."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from inferd.schemas.errors import MalformedError
from inferd.streams.inference.formats.catboost.flatbuffer import FlatTable

DIMENSION, SPLITS, SIZES, STARTS, LEAF_VALUES, LEAF_WEIGHTS = 0, 1, 2, 3, 8, 9
FLOAT_FEATURES, ONE_HOT_FEATURES, CTR_FEATURES, ESTIMATED_FEATURES = 5, 6, 7, 13
_STEPS, _LEAF_IDS = 10, 11
_DEPTH_MAX = 16
_BORDERS = ((FLOAT_FEATURES, 3), (ONE_HOT_FEATURES, 1), (CTR_FEATURES, 1), (ESTIMATED_FEATURES, 3))
"""Vectors of features, and the field that has the borders of one."""


def check_trees(trees: FlatTable) -> tuple[int, int]:
    """Checks the trees; returns the number of values per leaf, and the number of trees."""
    dimension = trees.integer(DIMENSION, 0)
    splits, sizes, starts = (trees.array(field, "<i4").astype(np.int64) for field in (SPLITS, SIZES, STARTS))
    if dimension < 1 or not len(sizes):
        _fail("no trees, or leaves without values")
    if (sizes < 0).any() or sizes.sum() != len(splits):
        _fail(f"trees of {sizes.sum()} splits in all, and {len(splits)} splits")
    if len(starts) and (starts != np.cumsum(sizes) - sizes).any():
        _fail("trees that do not follow each other")
    bins = sum(each.length(borders, "<i4") for field, borders in _BORDERS for each in trees.tables(field))
    if ((splits < 0) | (splits >= bins)).any():
        _fail(f"a split beyond the {bins} borders of its features")
    steps = trees.array(_STEPS, "<u2")
    if len(steps) or trees.length(_LEAF_IDS, "<u4"):
        _check_steps(trees, sizes, dimension)
    else:
        _check_oblivious(trees, sizes, dimension)
    return dimension, len(sizes)


def _check_oblivious(trees: FlatTable, sizes: np.ndarray[tuple[int], np.dtype[np.int64]], dimension: int) -> None:
    if sizes.max() > _DEPTH_MAX:
        _fail(f"a tree of depth {sizes.max()}")
    leaves = int((1 << sizes).sum())
    if (found := trees.length(LEAF_VALUES, "<f8")) != leaves * dimension:
        _fail(f"{found} values for {leaves} leaves of {dimension}")
    if trees.length(LEAF_WEIGHTS, "<f8") not in (0, leaves):
        _fail("weights of another number of leaves")


def _check_steps(trees: FlatTable, sizes: np.ndarray[tuple[int], np.dtype[np.int64]], dimension: int) -> None:
    """Checks that steps lead forward within their tree, so that every path ends, and that it ends at a leaf."""
    steps = trees.array(_STEPS, "<u4")
    leaf_ids = trees.array(_LEAF_IDS, "<u4").astype(np.int64)
    count = int(sizes.sum())
    if not len(steps) == len(leaf_ids) == count:
        _fail(f"{len(steps)} steps and {len(leaf_ids)} leaf numbers for {count} nodes")
    left, right = (steps & 0xFFFF).astype(np.int64), (steps >> 16).astype(np.int64)
    ends = np.repeat(np.cumsum(sizes), sizes)
    if (np.arange(count) + np.maximum(left, right) >= ends).any():
        _fail("a step out of its tree")
    values = trees.length(LEAF_VALUES, "<f8")
    if (leaf_ids[(left == 0) | (right == 0)] > values - dimension).any():
        _fail(f"a leaf beyond its {values} values")


def _fail(what: str) -> NoReturn:
    raise MalformedError(f"model file: has {what}")

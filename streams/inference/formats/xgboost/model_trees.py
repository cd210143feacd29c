"""Checks the trees of an XGBoost model: every count, index and shape that the library relies on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.formats.xgboost.document import Ints, Part

_OF_NODES = (
    "left_children", "right_children", "parents", "split_indices", "split_conditions", "default_left", "sum_hessian",
    "loss_changes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TreeShape:
    """Shapes that the trees must have."""

    features: int
    outputs: int


def check_tree(tree: Part, shape: TreeShape) -> bool:
    """Checks one tree; returns whether its leaves are vectors."""
    param = tree["tree_param"]
    nodes, vector = param["num_nodes"].natural(), param["size_leaf_vector"].natural()
    if not nodes:
        tree.fail("has no nodes")
    if param["num_feature"].natural() > shape.features:
        tree.fail(f"has more features than the model's {shape.features}")
    for name in _OF_NODES:
        _of_length(tree[name], nodes)
    left, right = tree["left_children"].ints(), tree["right_children"].ints()
    inner = left >= 0
    has_vectors = vector > 1
    _check_children(tree, left, right, inner, nodes)
    _check_splits(tree, inner, shape.features)
    if has_vectors:
        _check_leaf_vectors(tree, vector, right[~inner], shape)
    else:
        _of_length(tree["base_weights"], nodes)
        if (right[~inner] >= 0).any():
            tree.fail("has a node with one child")
    if tree.has("split_type"):
        _check_categories(tree, inner, nodes)
    return has_vectors


def _of_length(part: Part, length: int) -> None:
    if (found := len(part.floats())) != length:
        part.fail(f"has {found} values: expected {length}")


def _check_children(tree: Part, left: Ints, right: Ints, inner: NDArray[np.bool_], nodes: int) -> None:
    """Checks that no node has two parents, and the root has none, so that every path from the root ends."""
    children = np.concatenate((left[inner], right[inner]))
    if ((children < 1) | (children >= nodes)).any() or (left[~inner] != -1).any():
        tree.fail("has a child that is not a node")
    if len(np.unique(children)) < len(children):
        tree.fail("has a node with two parents")
    places = np.flatnonzero(inner)
    if (tree["parents"].ints()[children] != np.concatenate((places, places))).any():
        tree.fail("has a node that names another parent")


def _check_splits(tree: Part, inner: NDArray[np.bool_], features: int) -> None:
    columns = tree["split_indices"].ints()[inner]
    if ((columns < 0) | (columns >= features)).any():
        tree.fail(f"splits a feature beyond the {features} of the model")


def _check_leaf_vectors(tree: Part, vector: int, leaves: Ints, shape: TreeShape) -> None:
    if vector != shape.outputs:
        tree.fail(f"has leaves of {vector} values: expected {shape.outputs}")
    weights = tree["leaf_weights" if tree.has("leaf_weights") else "base_weights"].floats()
    count = len(weights) // vector
    if len(weights) % vector or (tree.has("leaf_weights") and ((leaves < 0) | (leaves >= count)).any()):
        tree.fail("has a leaf beyond its weights")


def _check_categories(tree: Part, inner: NDArray[np.bool_], nodes: int) -> None:
    _of_length(tree["split_type"], nodes)
    kinds = tree["split_type"].ints()
    if ((kinds < 0) | (kinds > 1)).any():
        tree["split_type"].fail("has a split of an unknown kind")
    splits = np.flatnonzero((kinds == 1) & inner)
    at, starts, sizes = (tree[f"categories_{name}"].ints() for name in ("nodes", "segments", "sizes"))
    categories = tree["categories"].ints()
    if not len(at) == len(starts) == len(sizes):
        _fail_categories(tree, "differ in length")
    if not np.isin(splits, at).all() or ((at < 0) | (at >= nodes)).any() or (np.diff(at) <= 0).any():
        _fail_categories(tree, "do not belong to its splits")
    if ((starts < 0) | (sizes < 0) | (starts > len(categories)) | (sizes > len(categories) - starts)).any():
        _fail_categories(tree, "end beyond the list of categories")
    if ((categories < 0) | (categories >= 2**24)).any():
        _fail_categories(tree, "have a code that is not in 0..16777215")


def _fail_categories(tree: Part, what: str) -> NoReturn:
    tree.fail(f"categories {what}")

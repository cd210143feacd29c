"""Checks arrays that compiled code indexes without bounds checks: nodes of trees, and sparse matrices.

scikit-learn traverses the nodes of a tree, and scipy the indexes of a sparse matrix, without bounds checks: with
invalid arrays some later row crashes the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import MalformedError
from inferd.streams.inference.formats.sklearn.archive import Archive
from inferd.streams.inference.formats.sklearn.nodes import Node, Object, Reader

_LEAF = -1
_HIST_PREDICTOR = "TreePredictor"
_OF_ALL_COLUMNS = ("sklearn.ensemble._forest", "sklearn.ensemble._gb")
"""Ensembles whose trees see all of their columns."""
_NODE_FIELDS = frozenset({"left_child", "right_child", "feature"})
_HIST_FIELDS = frozenset({"left", "right", "feature_idx", "is_leaf", "is_categorical", "bitset_idx"})


def check_arrays(root: Node, archive: Archive) -> None:
    """`MalformedError` if an array of a model would make compiled code read out of bounds."""
    reader = Reader(archive)
    waiting: list[tuple[Node, int | None, bool]] = [(root, None, False)]
    while waiting:
        node, columns, same = waiting.pop()
        loader = node.get("__loader__")
        if loader == "TreeNode":
            _check_tree(node, reader, columns)
        elif loader == "SparseMatrixNode":
            _check_sparse(archive.nested(str(node.get("file"))))
        elif loader == "NdArrayNode" and node.get("type") == "numpy":
            archive.array(str(node.get("file")))
        elif (found := reader.object(node)) is not None:
            columns, same = _columns_of(found, reader, columns, same=same)
            if found.name == _HIST_PREDICTOR:
                _check_hist_tree(found, reader, columns)
        waiting += [(child, columns, same) for child in _children(node)]


def _children(node: Node) -> Iterator[Node]:
    waiting: list[Any] = list(node.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__loader__" in value:
                if value["__loader__"] != "JsonNode":
                    yield value
            else:
                waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _columns_of(found: Object, reader: Reader, columns: int | None, *, same: bool) -> tuple[int | None, bool]:
    """The number of columns of the estimator that contains a tree, and whether all its trees have as many."""
    own = reader.value(found.get("n_features_in_"))
    if type(own) is not int:
        return columns, same
    if same and own != columns:
        _reject(f"a {found.name} has {own} features, its ensemble {columns}")
    return own, found.module in _OF_ALL_COLUMNS


def _check_tree(node: Node, reader: Reader, columns: int | None) -> None:
    arguments = reader.value(node.get("__reduce__", {}).get("args"))
    features = reader.value(arguments[0]) if isinstance(arguments, list) and arguments else None
    attributes = reader.mapping(node.get("content"))
    nodes, count = reader.value(attributes.get("nodes")), reader.value(attributes.get("node_count"))
    if not isinstance(nodes, np.ndarray) or nodes.ndim != 1 or not _has(nodes, _NODE_FIELDS):
        _reject("a tree has no nodes")
    if type(features) is not int or features != columns:
        _reject(f"a tree has {features!r:.20} features, its estimator {columns}")
    if count != len(nodes) or not count:
        _reject(f"a tree has {len(nodes)} nodes, and claims {count!r:.20}")
    inner = nodes["left_child"] != _LEAF
    _check_children(inner, nodes["left_child"], nodes["right_child"])
    _check_below(nodes["feature"][inner], features, "feature")


def _check_hist_tree(found: Object, reader: Reader, columns: int | None) -> None:
    nodes, bitsets = reader.value(found.get("nodes")), reader.value(found.get("raw_left_cat_bitsets"))
    if not isinstance(nodes, np.ndarray) or nodes.ndim != 1 or not _has(nodes, _HIST_FIELDS) or not len(nodes):
        _reject("a tree has no nodes")
    inner = nodes["is_leaf"] == 0
    _check_children(inner, nodes["left"].astype(np.int64), nodes["right"].astype(np.int64))
    _check_below(nodes["feature_idx"][inner].astype(np.int64), columns or 0, "feature")
    categorical = inner & (nodes["is_categorical"] != 0)
    if categorical.any() and (not isinstance(bitsets, np.ndarray) or bitsets.ndim != 2 or bitsets.shape[1] != 8):
        _reject("a tree has no sets of categories")
    if categorical.any():
        _check_below(nodes["bitset_idx"][categorical].astype(np.int64), len(bitsets), "set of categories")


def _has(nodes: NDArray[Any], fields: frozenset[str]) -> bool:
    return fields <= frozenset(nodes.dtype.names or ())


def _check_children(inner: NDArray[np.bool_], left: NDArray[Any], right: NDArray[Any]) -> None:
    """Checks that children come after their parent, so that every path ends."""
    places = np.arange(len(inner))
    for children in (left, right):
        if (inner & ((children <= places) | (children >= len(inner)))).any():
            _reject("a tree has a child that is not one of its later nodes")


def _check_below(indexes: NDArray[Any], limit: int, what: str) -> None:
    if len(indexes) and not (indexes.min() >= 0 and indexes.max() < limit):
        _reject(f"a tree has a {what} that is not one of {limit}")


def _check_sparse(matrix: Archive) -> None:
    """Checks a matrix in compressed rows or columns, as written by `scipy.sparse.save_npz`."""
    arrays = {name.removesuffix(".npy"): matrix.array(name) for name in matrix.names}
    if not {"format", "shape", "data"} <= arrays.keys() or arrays["shape"].shape != (2,):
        _reject("a sparse matrix has no format, shape or data")
    rows, columns = map(int, arrays["shape"])
    values, kind = len(np.atleast_1d(arrays["data"])), arrays["format"].item()
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
    if kind not in ("csr", "csc") or not {"indices", "indptr"} <= arrays.keys():
        _reject(f"a sparse matrix has the format {kind[:20]!r}: csr or csc is expected")
    major, minor = (rows, columns) if kind == "csr" else (columns, rows)
    indices, starts = arrays["indices"], arrays["indptr"]
    whole = all(each.ndim == 1 and each.dtype.kind == "i" for each in (indices, starts)) and len(starts) == major + 1
    if not whole or starts[0] != 0 or starts[-1] != values or len(indices) != values or (np.diff(starts) < 0).any():
        _reject("a sparse matrix has indexes that do not fit its values")
    if values and not (indices.min() >= 0 and indices.max() < minor):
        _reject("a sparse matrix has an index out of its shape")


def _reject(what: str) -> NoReturn:
    raise MalformedError(f"model file: {what}")

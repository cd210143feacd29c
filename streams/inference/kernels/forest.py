"""Trees as stored in model files, and the arrays that the compiled kernel reads (the structures in trees.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUTS_MAX = 255
"""Thresholds of a plane: ranks are bytes. A feature with more has several planes."""
BLOCK_LEAVES_MAX = 256
"""Maximum leaves of a tree that scores blocks of rows: positions of leaves are bytes."""
LEAVES_MAX = 16_384
PLANES_MAX = 65_535
_CATEGORICAL, _LOWEST = -1, -128
_BY_CATEGORY, _DEFAULT_LEFT = 1, 2

_Ints = NDArray[np.int64]
_PLANE = np.dtype([("first", "i8"), ("feature", "i4"), ("size", "i4"), ("steps", "i4"), ("kind", "i4")])
_NODE = np.dtype([("plane", "u2"), ("limit", "i1"), ("unused", "i1"), ("jump", "i2"), ("leaf", "u2")])
_SPLIT = np.dtype([("plane", "u2"), ("limit", "i1"), ("first", "u1"), ("step", "u1"), ("unused", "u1")])
_TREE = np.dtype([("node", "i8"), ("split", "i8"), ("leaf", "i8"), ("splits", "i4"), ("depth", "i4")])


class UnsupportedError(ValueError):
    """The kernel does not support these trees; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """Trees in the terms of LightGBM's text format: concatenated arrays over all splits, or over all leaves."""

    leaves: _Ints
    """Number of leaves of each tree; a tree has one split less."""
    feature: _Ints
    threshold: NDArray[np.float64]
    """A row goes left if its value is at most this."""
    kind: _Ints
    """`decision_type`: by category or not, whether missing values go left, and which values are missing."""
    left: _Ints
    """Child by its number in the tree; leaf ~child if below 0."""
    right: _Ints
    value: NDArray[np.float64]
    sets: Sequence[NDArray[np.uint32]]
    """For each split by category, in order: the categories that go left, one bit each."""

    @classmethod
    def joined(cls, parts: Sequence[Trees]) -> Trees:
        """All trees of `parts`, concatenated."""
        names = ("leaves", "feature", "threshold", "kind", "left", "right", "value")
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(**columns, sets=[each for part in parts for each in part.sets])


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """The arrays of one model. `pack` has computed them and checked every index."""

    features: int
    outputs: int
    in_blocks: bool
    """Whether blocks of rows can pass all trees."""
    plane: NDArray[np.void]
    tree: NDArray[np.void]
    node: NDArray[np.void]
    split: NDArray[np.void]
    cuts: NDArray[np.float64]
    values: NDArray[np.float64]
    words: NDArray[np.uint32]


def pack(trees: Trees, features: int, outputs: int) -> Forest:
    """Packs `trees` over `features` columns. Tree i adds to output i modulo `outputs`.

    Raises `UnsupportedError` if the kernel does not support them, `ValueError` if they are not valid trees.
    """
    _check(trees, features)
    if len(trees.leaves) % outputs:
        raise ValueError(f"{len(trees.leaves)} trees for {outputs} outputs")
    planes = _Planes(trees)
    layout = _Layout(trees)
    return Forest(
        features=features,
        outputs=outputs,
        in_blocks=int(trees.leaves.max(initial=1)) <= BLOCK_LEAVES_MAX,
        plane=planes.table,
        tree=layout.tree,
        node=layout.nodes(planes),
        split=layout.splits(planes),
        cuts=planes.cuts,
        values=layout.values(trees.value),
        words=planes.words,
    )


def _check(trees: Trees, features: int) -> None:
    leaves, splits = int(trees.leaves.sum()), int(trees.leaves.sum() - len(trees.leaves))
    by_category = (trees.kind & _BY_CATEGORY).astype(bool)
    if trees.leaves.min(initial=1) < 1 or len(trees.value) != leaves or len(trees.sets) != by_category.sum():
        raise ValueError("the numbers of leaves, leaf values and sets disagree")
    if any(len(a) != splits for a in (trees.feature, trees.threshold, trees.kind, trees.left, trees.right)):
        raise ValueError("the numbers of splits disagree")
    if splits and not 0 <= trees.feature.min() <= trees.feature.max() < features:
        raise ValueError("a split is not by a feature of the model")
    if trees.leaves.max(initial=1) > LEAVES_MAX:
        raise UnsupportedError(f"a tree has more than {LEAVES_MAX:,} leaves")
    if np.isnan(trees.threshold[~by_category]).any() or np.isnan(trees.value).any():
        raise UnsupportedError("a threshold or a leaf is not a number")


class _Planes:
    """The planes of ranks: their table, the thresholds and sets that they refer to, and the plane and limit of each
    split."""

    def __init__(self, trees: Trees) -> None:
        splits = len(trees.kind)
        self.plane, self.limit = np.zeros(splits, np.int64), np.zeros(splits, np.int64)
        by_category = (trees.kind & _BY_CATEGORY).astype(bool)
        numeric, self.cuts = self._numeric(trees, np.flatnonzero(~by_category))
        categorical, self.words = self._categorical(trees, np.flatnonzero(by_category), len(numeric))
        self.table = np.array([*numeric, *categorical], _PLANE)
        if len(self.table) > PLANES_MAX:
            raise UnsupportedError(f"it has more than {PLANES_MAX:,} sets of categories, or of {CUTS_MAX} thresholds")

    def _numeric(self, trees: Trees, splits: _Ints) -> tuple[list[tuple[int, ...]], NDArray[np.float64]]:
        """The planes of numeric splits: one per feature, treatment of missing values, and up to 255 thresholds."""
        kind = _missing_kind(trees.kind[splits])
        key, threshold = trees.feature[splits] * 8 + kind, trees.threshold[splits]
        order = np.lexsort((threshold, key))
        key, threshold = key[order], threshold[order]
        if not len(order):
            return [], np.empty(0)
        new_key = _changes(key)
        new = new_key | _changes(threshold)
        number = np.cumsum(new) - 1
        rank = number - number[new_key][np.cumsum(new_key) - 1]
        new_plane = new & (rank % CUTS_MAX == 0)
        plane = np.cumsum(new_plane) - 1
        self.plane[splits[order]], self.limit[splits[order]] = plane, rank % CUTS_MAX
        sizes = np.maximum.reduceat(rank % CUTS_MAX, np.flatnonzero(new_plane)) + 1
        steps = np.frexp(sizes)[1].astype(np.int64)
        padded = (1 << steps) - 1
        first = np.cumsum(padded) - padded
        cuts = np.full(int(padded.sum()), np.inf)
        cuts[first[plane] + rank % CUTS_MAX] = threshold
        keys = key[new_plane]
        return list(zip(*(a.tolist() for a in (first, keys // 8, padded, steps, keys % 8)), strict=True)), cuts

    def _categorical(
        self, trees: Trees, splits: _Ints, first_plane: int
    ) -> tuple[list[tuple[int, ...]], NDArray[np.uint32]]:
        """The planes of categorical splits: one per feature and set."""
        places: dict[tuple[int, bytes], int] = {}
        features = trees.feature[splits].tolist()
        for split, feature, members in zip(splits.tolist(), features, trees.sets, strict=True):
            key = feature, np.ascontiguousarray(members, np.uint32).tobytes()
            self.plane[split] = places.setdefault(key, first_plane + len(places))
        table, words = list[tuple[int, ...]](), bytearray()
        for feature, content in places:
            # One zero word after each set: the kernel reads bit `size` for categories in no set.
            table.append((len(words) // 4, feature, 8 * len(content), 0, _CATEGORICAL))
            words += content + bytes(4)
        return table, np.frombuffer(bytes(words), np.uint32)


def _changes(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Whether each value differs from the one before it."""
    changes = np.ones(len(values), bool)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _missing_kind(kind: _Ints) -> _Ints:
    """0 if no value is missing; 2 (zero and NaN are missing) or 4 (NaN is missing), + 1 if missing values go left."""
    missing = (kind >> 2) & 3
    return np.where(missing > 0, 2 * missing + ((kind & _DEFAULT_LEFT) != 0), 0)


class _Layout:
    """The positions of nodes in preorder. `ValueError` if the child pointers of a tree do not form a tree."""

    def __init__(self, trees: Trees) -> None:
        count = len(trees.leaves)
        splits = trees.leaves - 1
        first_split, first_leaf = np.cumsum(splits) - splits, np.cumsum(trees.leaves) - trees.leaves
        self._split_count = total = int(splits.sum())
        owner = np.repeat(np.arange(count), splits)
        self._left, self._right = (
            np.where(child >= 0, child + first_split[owner], ~child + first_leaf[owner] + total)
            for child in (trees.left, trees.right)
        )
        self._owner = np.concatenate((owner, np.repeat(np.arange(count), trees.leaves)))
        roots = np.where(splits > 0, first_split, first_leaf + total)
        levels = self._levels(roots)
        self._below = self._leaves_below(levels)
        depth = np.zeros(count, np.int64)
        for number, level in enumerate(levels):
            depth[self._owner[level]] = number
        self._place, self._first = self._places(levels)
        self._first_node, self._first_split, self._first_leaf = first_split + first_leaf, first_split, first_leaf
        self.tree = np.zeros(count, _TREE)
        columns = (self._first_node, first_split, first_leaf, splits, depth)
        for name, column in zip(_TREE.names or (), columns, strict=True):
            self.tree[name] = column

    def _levels(self, roots: _Ints) -> list[_Ints]:
        """Nodes by depth; leaves are numbered after all splits."""
        levels, seen = [roots], len(roots)
        while len(inner := levels[-1][levels[-1] < self._split_count]):
            levels.append(np.concatenate((self._left[inner], self._right[inner])))
            if levels[-1].min() < 0 or levels[-1].max() >= len(self._owner):
                raise ValueError("a child is not a node")
            seen += len(levels[-1])
            if seen > len(self._owner):
                raise ValueError("a node has two parents")
        if not np.bincount(np.concatenate(levels), minlength=len(self._owner)).all():
            raise ValueError("not every node is below a root")
        return levels

    def _leaves_below(self, levels: Sequence[_Ints]) -> _Ints:
        below = np.ones(len(self._owner), np.int64)
        for level in reversed(levels):
            inner = level[level < self._split_count]
            below[inner] = below[self._left[inner]] + below[self._right[inner]]
        return below

    def _places(self, levels: Sequence[_Ints]) -> tuple[_Ints, _Ints]:
        """For each node: its position among the nodes of its tree, and the number of the leftmost leaf below it."""
        place, first = np.zeros(len(self._owner), np.int64), np.zeros(len(self._owner), np.int64)
        for level in levels:
            inner = level[level < self._split_count]
            left, right = self._left[inner], self._right[inner]
            place[left], first[left] = place[inner] + 1, first[inner]
            place[right] = place[inner] + 2 * self._below[left]
            first[right] = first[inner] + self._below[left]
        return place, first

    def nodes(self, planes: _Planes) -> NDArray[np.void]:
        """The node table for scoring single rows, with splits and leaves."""
        table = np.zeros(len(self._owner), _NODE)
        count = self._split_count
        at = self._first_node[self._owner] + self._place
        splits, leaves = at[:count], at[count:]
        table["plane"][splits], table["limit"][splits] = planes.plane, planes.limit + _LOWEST
        table["jump"][splits] = 2 * self._below[self._left] - 1
        table["plane"][leaves], table["limit"][leaves], table["jump"][leaves] = len(planes.table), 0, -1
        table["leaf"][at] = self._first
        return table

    def splits(self, planes: _Planes) -> NDArray[np.void]:
        """The split table for scoring blocks of rows. Leaf numbers are truncated to a byte: see `in_blocks`."""
        table = np.zeros(self._split_count, _SPLIT)
        # The number of splits before a node in preorder is the number of nodes before it, minus the leaves to its left.
        inner = slice(self._split_count)
        at = self._first_split[self._owner[inner]] + self._place[inner] - self._first[inner]
        table["plane"][at], table["limit"][at] = planes.plane, planes.limit + _LOWEST
        table["first"][at] = self._first[inner] & 0xFF
        table["step"][at] = self._below[self._left] & 0xFF
        return table

    def values(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Leaf values from left to right."""
        leaves = slice(self._split_count, None)
        out = np.empty(len(value))
        out[self._first_leaf[self._owner[leaves]] + self._first[leaves]] = value
        return out

"""Checks the tree blocks of a LightGBM text model: whether they are valid trees of the declared shape.

Many trees are checked at a time: each field is parsed for all of them by one call, and the checks are numpy operations
over all nodes, so that a model of 100 trees takes a few milliseconds. `_Ints` and `_Floats` are the concatenated values
of all trees.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import MalformedError
from inferd.streams.inference.kernels import Trees

DEPTH_MAX = 1_024
"""Contributions recurse once a level, with memory that grows with the square of the depth."""

Tree = dict[str, bytes]
_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Number = TypeVar("_Number", int, float)

_LINES_MAX = 22  # The library ends the tree there, and misinterprets the rest.
_INT32_MAX = 2**31 - 1
_BY_CATEGORY = 1  # a bit of decision_type; the others: missing values go left, and two bits of which values are missing
_DECISION_TYPES = 12
_ROUNDING = 1e-6
"""How far from an integer twice a threshold between two integers may be."""

_OF_SPLITS = frozenset({"split_feature", "threshold", "decision_type", "left_child", "right_child"})
_OF_CATEGORIES = frozenset({"cat_boundaries", "cat_threshold"})
_OF_LINEAR = frozenset({"leaf_const", "num_features", "leaf_features", "leaf_coeff"})
_REQUIRED = frozenset({"num_leaves", "num_cat", "leaf_value"})
_DESCRIPTIVE = frozenset(
    {"split_gain", "internal_value", "internal_weight", "internal_count", "leaf_weight", "leaf_count"}
)
"""Fields that no prediction needs: earlier versions wrote fewer of them."""
_KNOWN = _REQUIRED | _OF_SPLITS | _OF_CATEGORIES | _OF_LINEAR | _DESCRIPTIVE | {"is_linear", "shrinkage"}

_DECIMAL = rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_BY_ATOF = re.compile(_DECIMAL + rb"|[+-]?(?i:nan?|null|inf(?:inity)?)")
"""What `Common::Atof` of the library takes; it aborts the process on anything else."""
_BY_STRTOD = re.compile(_DECIMAL + rb"|[+-]?(?i:nan(?:\([a-z0-9_]*\))?|inf(?:inity)?)|[+-]?[0-9]\.#[A-Za-z]+[0-9]*")
"""What `strtod` takes, with the spellings of Windows: `-nan(ind)`, `1.#INF`."""
_decode_ints = msgspec.json.Decoder(list[int]).decode
_decode_floats = msgspec.json.Decoder(list[float]).decode


def parse_tree(block: bytes, index: int) -> Tree:
    """The fields of one tree block; `MalformedError` if its lines are not those of a tree."""
    lines = block.split(b"\n")
    if lines[0] != b"Tree=%d" % index:
        _reject(index, "tree_sizes does not lead to its first line (was the file edited or re-encoded?)")
    end = lines.index(b"") if b"" in lines else len(lines)
    if any(lines[end:]) or len(lines) - end < 2 or not 1 < end <= _LINES_MAX:
        _reject(index, "does not end with an empty line after its fields")
    tree: Tree = {}
    for line in lines[1:end]:
        raw_name, separator, value = line.partition(b"=")
        name = raw_name.decode("ascii", "backslashreplace")
        if not separator or name not in _KNOWN or name in tree:
            _reject(index, f"line {name[:40]!r} is unknown or repeated")
        tree[name] = value
    return tree


@dataclass(frozen=True, slots=True)
class Splits:
    """How trees split on their columns."""

    linear: bool = False
    """Whether any tree has linear leaves."""
    by_category: frozenset[int] = frozenset()
    at_fractions: frozenset[int] = frozenset()
    """Columns that are split at a number between two adjacent integers."""

    def __or__(self, other: Splits) -> Splits:
        return Splits(
            self.linear or other.linear,
            self.by_category | other.by_category,
            self.at_fractions | other.at_fractions,
        )


def check_trees(trees: list[Tree], first_index: int, features: int) -> tuple[Splits, Trees]:
    """Checks `trees`; returns how they split on columns, and their arrays.

    `first_index`: index of the first tree in the file. `MalformedError` if one is not a valid tree over `features`
    columns.
    """
    fields = _Fields(trees, first_index)
    shape = _shape(fields)
    column, kind, threshold = _splits(fields, shape, features)
    sets = _category_sets(fields, shape, kind, threshold)
    left, right = _children(fields, shape)
    value = _leaf_values(fields, shape)
    _check_descriptive(fields, shape)
    _check_linear(fields, shape, features)
    by_category = (kind & _BY_CATEGORY).astype(bool)
    splits = Splits(
        bool(shape.linear.any()),
        frozenset(column[by_category].tolist()),
        frozenset(column[_at_fractions(threshold, ~by_category)].tolist()),
    )
    return splits, Trees(shape.leaves, column, threshold, kind, left, right, value, sets)


@dataclass(frozen=True, slots=True)
class _Shape:
    """One entry per tree; `tree_of_split` has one per split."""

    leaves: _Ints
    splits: _Ints
    category_sets: _Ints
    linear: _Ints
    tree_of_split: _Ints


def _shape(fields: _Fields) -> _Shape:
    leaves, sets, linear = fields.scalar("num_leaves"), fields.scalar("num_cat"), fields.scalar("is_linear", b"0")
    # Checked before memory is allocated for num_leaves.
    fields.reject(leaves != fields.counts("leaf_value"), "num_leaves and leaf_value disagree")
    splits = leaves - 1
    fields.reject((linear != 0) & (linear != 1), "is_linear is neither 0 nor 1")
    fields.reject((sets < 0) | (sets > splits), "num_cat is out of range")
    for place, tree in enumerate(fields.trees):
        wanted = _REQUIRED
        if leaves[place] > 1 or linear[place]:
            wanted |= _OF_SPLITS
        if sets[place]:
            wanted |= _OF_CATEGORIES
        if linear[place]:
            wanted |= _OF_LINEAR
        if not wanted <= tree.keys():
            fields.fail(place, f"has no {', '.join(sorted(wanted - tree.keys()))}")
    return _Shape(leaves, splits, sets, linear, np.repeat(np.arange(len(leaves)), splits))


def _splits(fields: _Fields, shape: _Shape, features: int) -> tuple[_Ints, _Ints, _Floats]:
    """Column, decision type and threshold of each split."""
    column = fields.ints("split_feature", shape.splits)
    fields.reject_at((column < 0) | (column >= features), shape.tree_of_split, "split_feature names no column")
    decision_type = fields.ints("decision_type", shape.splits)
    unknown = (decision_type < 0) | (decision_type >= _DECISION_TYPES)
    fields.reject_at(unknown, shape.tree_of_split, "decision_type is out of range")
    return column, decision_type, fields.floats("threshold", shape.splits, _parse_floats)


def _at_fractions(threshold: _Floats, by_number: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which numeric splits separate no two integers, so that the column has fractional values."""
    twice = 2 * np.where(by_number & np.isfinite(threshold), threshold, 0.0)
    fractional: NDArray[np.bool_] = np.abs(twice - np.rint(twice)) > _ROUNDING
    return fractional


def _category_sets(
    fields: _Fields, shape: _Shape, decision_type: _Ints, threshold: _Floats
) -> list[NDArray[np.uint32]]:
    """The set of each categorical split, whose threshold is the index of the set."""
    by_category = (decision_type & _BY_CATEGORY).astype(bool)
    found = np.bincount(shape.tree_of_split[by_category], minlength=len(fields.trees))
    fields.reject(found != shape.category_sets, "decision_type and num_cat disagree")
    index = threshold[by_category]
    tree = shape.tree_of_split[by_category]
    bad = (index < 0) | (index >= shape.category_sets[tree]) | (index != np.floor(index))
    fields.reject_at(bad, tree, "threshold of a split by category is not an index of a set")
    sets = {place: _sets_of_tree(fields, shape, place) for place in np.flatnonzero(shape.category_sets).tolist()}
    return [sets[place][int(number)] for place, number in zip(tree.tolist(), index.tolist(), strict=True)]


def _sets_of_tree(fields: _Fields, shape: _Shape, place: int) -> list[NDArray[np.uint32]]:
    """The sets of a tree: ranges of `cat_threshold`, with 32 categories per word."""
    boundaries = fields.of_tree(place, "cat_boundaries", _parse_ints)
    words = fields.of_tree(place, "cat_threshold", _parse_ints)
    if len(boundaries) != shape.category_sets[place] + 1 or boundaries[0] != 0 or sorted(boundaries) != boundaries:
        fields.fail(place, "cat_boundaries are not ranges")
    if boundaries[-1] != len(words) or min(words, default=0) < 0 or max(words, default=0) >= 2**32:
        fields.fail(place, "cat_threshold does not match cat_boundaries")
    array = np.array(words, np.uint32)
    return [array[first:last] for first, last in pairwise(boundaries)]


def _children(fields: _Fields, shape: _Shape) -> tuple[_Ints, _Ints]:
    """Left and right children of each split. Every node but the root is the child of exactly one split, and reachable
    from the root."""
    left, right = fields.ints("left_child", shape.splits), fields.ints("right_child", shape.splits)
    children = np.concatenate((left, right))
    tree = np.concatenate((shape.tree_of_split, shape.tree_of_split))
    bad = (children == 0) | (children >= shape.splits[tree]) | (children < -shape.leaves[tree])
    fields.reject_at(bad, tree, "left_child or right_child is out of range")
    # Number the nodes of all trees: first the splits, then the leaves.
    splits = int(shape.splits.sum())
    first_split = np.cumsum(shape.splits) - shape.splits
    first_leaf = np.cumsum(shape.leaves) - shape.leaves + splits
    node = np.where(children > 0, children + first_split[tree], ~children + first_leaf[tree])
    roots = np.where(shape.splits > 0, first_split, first_leaf)
    parents = np.bincount(np.concatenate((node, roots)), minlength=splits + int(shape.leaves.sum()))
    owner = np.concatenate((shape.tree_of_split, np.repeat(np.arange(len(fields.trees)), shape.leaves)))
    fields.reject_at(parents != 1, owner, "left_child and right_child are not a tree")
    _check_reached(fields, shape, roots[shape.splits > 0], node.reshape(2, splits))
    return left, right


def _check_reached(fields: _Fields, shape: _Shape, roots: _Ints, children: _Ints) -> None:
    reached = np.zeros(children.shape[1], bool)
    level = roots
    for _ in range(DEPTH_MAX):
        reached[level] = True
        below = children[:, level].ravel()
        level = below[below < len(reached)]
        if not len(level):
            fields.reject_at(~reached, shape.tree_of_split, "left_child and right_child have a cycle")
            return
    fields.fail(int(shape.tree_of_split[level[0]]), f"has more than {DEPTH_MAX} levels")


def _leaf_values(fields: _Fields, shape: _Shape) -> _Floats:
    values = fields.floats("leaf_value", shape.leaves, _parse_floats)
    fields.floats("shrinkage", np.ones_like(shape.leaves), _parse_descriptive, b"1")
    return values


def _check_descriptive(fields: _Fields, shape: _Shape) -> None:
    for name in sorted(_DESCRIPTIVE):
        full = shape.leaves if name.startswith("leaf_") else shape.splits
        found = fields.counts(name)
        # A tree with one leaf has an empty leaf_weight.
        absent = np.array([name not in tree for tree in fields.trees]) | ((shape.leaves == 1) & (found == 0))
        counts = np.where(absent, 0, full)
        if name.endswith("_count"):
            values = fields.ints(name, counts)
            tree = np.repeat(np.arange(len(counts)), counts)
            fields.reject_at((values < 0) | (values > _INT32_MAX), tree, f"{name} is out of range")
        else:
            fields.floats(name, counts, _parse_floats if name == "leaf_weight" else _parse_descriptive)


def _check_linear(fields: _Fields, shape: _Shape, features: int) -> None:
    """Each leaf has a constant, and one coefficient per column."""
    for place in np.flatnonzero(shape.linear).tolist():
        counts = fields.of_tree(place, "num_features", _parse_ints)
        constants = fields.of_tree(place, "leaf_const", _parse_floats)
        columns = fields.of_tree(place, "leaf_features", _parse_ints)
        factors = fields.of_tree(place, "leaf_coeff", _parse_floats)
        if not len(counts) == len(constants) == shape.leaves[place] or min(counts) < 0:
            fields.fail(place, "num_features or leaf_const is not one number a leaf")
        if not len(columns) == len(factors) == sum(counts):
            fields.fail(place, "leaf_features or leaf_coeff does not match num_features")
        if columns and not 0 <= min(columns) <= max(columns) < features:
            fields.fail(place, "leaf_features names no column")


class _Fields:
    """The fields of consecutive trees in a file."""

    def __init__(self, trees: list[Tree], first_index: int) -> None:
        self.trees = trees
        self._first_index = first_index

    def counts(self, name: str) -> _Ints:
        """The number of values of each tree for `name`."""
        return np.array([_count(tree.get(name, b"")) for tree in self.trees], np.int64)

    def scalar(self, name: str, default: bytes = b"") -> _Ints:
        return self.ints(name, np.ones(len(self.trees), np.int64), default)

    def ints(self, name: str, counts: _Ints, default: bytes = b"") -> _Ints:
        values = self._parsed(name, counts, _parse_ints, default)
        try:
            return np.array(values, np.int64)
        except OverflowError:
            self.fail(0, f"or one of the {len(self.trees) - 1} after it: {name} is out of range")

    def floats(self, name: str, counts: _Ints, parse: Callable[[bytes], list[float]], default: bytes = b"") -> _Floats:
        return np.array(self._parsed(name, counts, parse, default), np.float64)

    def of_tree(self, place: int, name: str, parse: Callable[[bytes], list[_Number]]) -> list[_Number]:
        """The values of one tree. In this field several spaces separate the values of different leaves."""
        try:
            return parse(b" ".join(self.trees[place][name].split()))
        except ValueError:
            self.fail(place, f"{name} has a damaged number")

    def _parsed(
        self, name: str, counts: _Ints, parse: Callable[[bytes], list[_Number]], default: bytes
    ) -> list[_Number]:
        texts = [tree.get(name, default) for tree in self.trees]
        self.reject(np.array([_count(text) for text in texts]) != counts, f"{name} has the wrong number of values")
        try:
            values = parse(b" ".join(filter(None, texts)))
        except ValueError:
            self.fail(_first_unparsed(texts, parse), f"{name} has a damaged number")
        return values

    def fail(self, place: int, what: str) -> NoReturn:
        _reject(self._first_index + place, what)

    def reject(self, bad: NDArray[np.bool_], what: str) -> None:
        """Raises the error for the first True in `bad`, which has one entry per tree."""
        if bad.any():
            self.fail(int(np.argmax(bad)), what)

    def reject_at(self, bad: NDArray[np.bool_], tree: _Ints, what: str) -> None:
        """Raises the error for the first True in `bad`; `tree` has the tree of each entry."""
        if bad.any():
            self.fail(int(tree[np.argmax(bad)]), what)


def _reject(index: int, what: str) -> NoReturn:
    raise MalformedError(f"model file: tree {index} {what}")


def _count(text: bytes) -> int:
    return text.count(b" ") + 1 if text else 0


def _first_unparsed(texts: list[bytes], parse: Callable[[bytes], object]) -> int:
    for place, text in enumerate(texts):
        try:
            parse(text)
        except ValueError:
            return place
    return 0


def _parse_ints(text: bytes) -> list[int]:
    return _parse(text, b"0123456789- ", _decode_ints)


def _parse_floats(text: bytes) -> list[float]:
    """Parses values of leaves and thresholds, which the library reads with `strtod`."""
    return _parse_spelled(text, _BY_STRTOD)


def _parse_descriptive(text: bytes) -> list[float]:
    return _parse_spelled(text, _BY_ATOF)


def _parse_spelled(text: bytes, spelling: re.Pattern[bytes]) -> list[float]:
    try:
        return _parse(text, b"0123456789-+.e ", _decode_floats)
    except ValueError:
        return [_spelled(token, spelling) for token in text.split(b" ")]


def _spelled(token: bytes, spelling: re.Pattern[bytes]) -> float:
    if not spelling.fullmatch(token):
        raise ValueError("not a number in the library's spelling")
    try:
        return float(token)
    except ValueError:
        return math.nan


def _parse(text: bytes, characters: bytes, decode: Callable[[bytes], list[_Number]]) -> list[_Number]:
    """Parses numbers separated by single spaces, with a JSON decoder: its grammar is stricter than the library's, and
    it is fast."""
    if text.translate(None, characters):
        raise ValueError("other characters than those of numbers")
    try:
        return decode(b"[" + text.replace(b" ", b",") + b"]")
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None

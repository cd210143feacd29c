"""The tree kernel compared with its reference in plain Python."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest

from inferd.streams.inference.kernels import Ending, TreeKernel, Trees, UnsupportedError, library, pack
from tests.fuzz.tree_kernel import MATH, fuzz_tree_kernel, random_shape, random_trees

STUMP = Trees(
    leaves=np.array([2]), feature=np.array([0]), threshold=np.array([0.5]), kind=np.array([0]), left=np.array([-1]),
    right=np.array([-2]), value=np.array([1.0, 2.0]), sets=[],
)  # fmt: skip


@pytest.mark.usefixtures("built")
def test_the_kernel_equals_the_reference_without_access_out_of_bounds() -> None:
    assert fuzz_tree_kernel(60, seed=1, rounds=90).startswith("tree kernel: 90 models")


@pytest.mark.usefixtures("built")
def test_seeded_mistakes_in_the_arrays_are_found() -> None:
    rng, found = random.Random(3), 0
    for _ in range(20):
        trees = random_trees(rng, 3, 1)
        if len(trees.kind) == 0:
            continue
        forest = pack(trees, 3, 1)
        rows = np.random.default_rng(0).normal(size=(200, 3))
        before = TreeKernel(library(), forest, Ending(), MATH).predict(rows, raw=True)
        turned = dataclasses.replace(forest, values=forest.values[::-1].copy())
        found += not np.array_equal(before, TreeKernel(library(), turned, Ending(), MATH).predict(rows, raw=True))
    assert found > 10


@pytest.mark.usefixtures("built")
def test_an_output_buffer_of_a_wrong_size_is_rejected() -> None:
    kernel = TreeKernel(library(), pack(STUMP, 1, 1), Ending(), MATH)
    for wrong in (np.zeros(1), np.zeros(2, np.float32), np.zeros(4)[::2]):
        with pytest.raises(ValueError, match="expected 2 of float64"):
            kernel.predict_into(wrong, np.zeros((2, 1)), raw=True)  # type: ignore[arg-type]


@pytest.mark.usefixtures("built")
def test_a_matrix_of_another_shape_is_rejected() -> None:
    kernel = TreeKernel(library(), pack(STUMP, 1, 1), Ending(), MATH)
    assert kernel.predict(np.array([[0.5], [0.6]])).tolist() == [1.0, 2.0]
    for wrong in (np.zeros((1, 2)), np.zeros((4, 1), np.float32), np.zeros((4, 2))[:, :1]):
        with pytest.raises(ValueError, match="expected 1 columns"):
            kernel.predict(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"leaves": np.array([3])}, "numbers of leaves"),
        ({"left": np.array([-1, -1])}, "numbers of splits"),
        ({"feature": np.array([1])}, "not by a feature"),
        ({"feature": np.array([-1])}, "not by a feature"),
        ({"left": np.array([5])}, "not a node"),
        ({"right": np.array([-9])}, "not a node"),
        ({"left": np.array([0])}, "two parents"),
        ({"left": np.array([-2])}, "not every node"),
        ({"sets": [np.zeros(1, np.uint32)]}, "numbers of leaves"),
    ],
)
def test_invalid_trees_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(dataclasses.replace(STUMP, **changes), 1, 1)


@pytest.mark.parametrize("changes", [{"threshold": np.array([np.nan])}, {"value": np.array([1.0, np.nan])}])
def test_features_that_the_kernel_does_not_cover_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="not a number"):
        pack(dataclasses.replace(STUMP, **changes), 1, 1)


def test_a_tree_of_too_many_leaves_is_not_covered() -> None:
    leaves = 16_385
    left, right = random_shape(random.Random(0), leaves)
    large = Trees(
        leaves=np.array([leaves]), feature=np.zeros(leaves - 1, np.int64), threshold=np.arange(leaves - 1.0),
        kind=np.zeros(leaves - 1, np.int64), left=np.array(left), right=np.array(right),
        value=np.zeros(leaves), sets=[],
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="16,384 leaves"):
        pack(large, 1, 1)

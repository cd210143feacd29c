"""Columns are counted by a kernel as in plain Python; nothing beyond the arrays is read or written."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.streams.inference.kernels import BinCounter, library, use_kernels
from tests.fuzz.histogram_kernel import compare_bins, compare_keys, fuzz_histogram_kernel
from tests.fuzz.tree_kernel import Guarded

ODD = (math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1.7976931348623157e308)


def both(counter: BinCounter, matrix: np.ndarray, groups: np.ndarray, number: int) -> list[np.ndarray]:
    found = [counter.count(matrix, groups, number)]
    use_kernels(False)
    try:
        return [*found, counter.count(matrix, groups, number)]
    finally:
        use_kernels(True)


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 3, 70, 1_030]), st.sampled_from([1, 2, 30, 64, 65, 130]))
def test_the_kernel_counts_what_plain_python_counts(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    edge_count, number = int(rng.integers(0, 12)), int(rng.integers(1, 4))
    chosen = rng.permutation(columns + 3)[:columns]
    edges = np.sort(rng.integers(-3, 4, (edge_count, columns)).astype(np.float64), axis=0)
    for column in range(columns):
        edges[int(rng.integers(0, edge_count + 1)) :, column] = np.nan
    matrix = rng.integers(-4, 5, (rows, columns + 3)).astype(np.float64)
    odd = rng.random(matrix.shape) < 0.2
    matrix[odd] = rng.choice(ODD, int(odd.sum()))
    groups = rng.integers(0, number, rows)
    counter = BinCounter(chosen, edges)
    kernel, plain = both(counter, matrix, groups, number)
    assert kernel.shape == (number, columns, edge_count + 2)
    assert (kernel == plain).all()
    assert kernel.sum() == rows * columns
    for column in range(columns):
        values, own = matrix[:, chosen[column]], edges[:, column]
        places = [edge_count + 1 if math.isnan(v) else int((own <= v).sum()) for v in values.tolist()]
        assert kernel[:, column].sum(axis=0).tolist() == np.bincount(places, minlength=edge_count + 2).tolist()


def test_nothing_beyond_the_matrix_is_read() -> None:
    guarded = Guarded()
    matrix = guarded(np.random.default_rng(1).normal(size=(257, 33)))
    edges, groups = guarded(np.zeros((11, 33))), guarded(np.zeros(257, np.intp))
    assert BinCounter(guarded(np.arange(33)), edges).count(matrix, groups, 1).sum() == matrix.size
    del matrix, edges, groups
    guarded.release()


@pytest.mark.parametrize(
    ("matrix", "groups", "number"),
    [
        (np.zeros((2, 2)), np.zeros(2, np.intp), 1),
        (np.zeros((2, 3)), np.zeros(3, np.intp), 1),
        (np.zeros((2, 3)), np.array([0, 1]), 1),
        (np.zeros((2, 3)), np.array([0, -1]), 1),
    ],
)
def test_indexes_out_of_bounds_are_rejected(matrix: np.ndarray, groups: np.ndarray, number: int) -> None:
    with pytest.raises(ValueError, match=r"group|shape"):
        BinCounter(np.array([2]), np.zeros((1, 1))).count(matrix, groups, number)
    with pytest.raises(ValueError, match="edges"):
        BinCounter(np.array([2]), np.zeros((1, 2)))


def test_random_matrices_and_keys_do_not_differ_from_plain_python() -> None:
    assert "no difference" in fuzz_histogram_kernel(60.0, 1, rounds=60)


def ignores_the_last_edge(*given: Any) -> None:
    library().count_bins(*given[:6], max(0, given[6] - 1), *given[7:])


def hashes_nothing(content: int, size: int, starts: int, _ends: int, *rest: Any) -> None:
    library().hash_keys(content, size, starts, starts, *rest)


@pytest.mark.parametrize(("compare", "kernel"), [(compare_bins, ignores_the_last_edge), (compare_keys, hashes_nothing)])
def test_the_comparison_finds_planted_mistakes(compare: Any, kernel: Any) -> None:
    rng, guarded = random.Random(3), Guarded()

    def often() -> None:
        for _ in range(50):
            compare(rng, guarded, kernel, 0)

    with pytest.raises(AssertionError):
        often()
    guarded.release()

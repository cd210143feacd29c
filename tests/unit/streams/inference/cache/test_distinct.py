"""Equal rows are found, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from inferd.streams.inference.cache import distinct
from inferd.streams.inference.cache.distinct import distinct_rows, first_of_each

SMALL_INTEGERS = st.integers(-2, 2).map(float)
VALUES = st.one_of(SMALL_INTEGERS, st.floats(allow_nan=True), st.sampled_from([0.0, -0.0, 1e300, 5e-324]))


@given(npst.arrays(np.float64, st.tuples(st.integers(1, 80), st.integers(1, 3)), elements=VALUES))
def test_equal_rows_have_the_same_index(matrix: np.ndarray) -> None:
    rows = [row.tobytes() for row in matrix]
    found = distinct_rows(matrix)
    if found is None:
        assert len(set(rows)) == len(rows)
        return
    places, inverse = found
    assert [rows[places[number]] for number in inverse] == rows
    assert [rows[place] for place in places] == list(dict.fromkeys(rows)), "the first of each, in order"
    assert places.tolist() == [rows.index(rows[place]) for place in places]


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 2_048])
def test_one_pair_among_many_is_found(count: int) -> None:
    matrix = np.random.default_rng(count).normal(size=(count, 5))
    assert distinct_rows(matrix) is None
    doubled = np.concatenate([matrix, matrix[:1]])
    places, inverse = distinct_rows(doubled) or pytest.fail("not found")
    assert (places.tolist(), inverse.tolist()) == (list(range(count)), [*range(count), 0])


def test_different_integers_are_distinct() -> None:
    """Their bits are all at the top of a float64: a sum that loses these would find equal rows in every batch."""
    counts = np.random.default_rng(3).integers(0, 1_000, size=(2_048, 6)).astype(np.float64)
    unique = np.unique(counts, axis=0)
    assert distinct._all_differ(np.ascontiguousarray(unique))


def test_rows_that_differ_in_the_last_bits_are_distinct() -> None:
    close = np.nextafter(np.full((100, 2), 1.0), 2.0) + np.arange(100)[:, None] * np.finfo(np.float64).eps
    assert distinct._all_differ(np.ascontiguousarray(close))


def test_without_equal_keys_there_are_no_indexes() -> None:
    assert first_of_each([b"a", b"b"]) is None
    assert first_of_each([]) is None

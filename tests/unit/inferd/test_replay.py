"""How replayed predictions are compared with earlier ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.replay import _rows_of_tensor, auc, compared
from inferd.schemas.requests import TensorRows
from inferd.schemas.requests.tensors import ITEM_BYTES


def test_rows_that_both_have_predicted_are_compared() -> None:
    found = compared([0.25, 0.5, None, 1.0, 0.0], [0.25, 0.75, 1.0, None, -0.0], [0, 1, 1, None, None])
    assert (found.rows, found.missing, found.failed) == (3, 1, 1)
    assert found.equal == pytest.approx(1 / 3), "0.0 and -0.0 are other bits"
    assert found.differences == {"p50": 0.0, "p90": 0.25, "p99": 0.25, "max": 0.25}
    assert found.mean_shift == pytest.approx(0.25 / 3)
    assert (found.labelled, found.auc_before, found.auc_after) == (2, 1.0, 1.0)


def test_labels_and_lists_have_no_differences() -> None:
    found = compared(["a", [0.1, 0.9], "b"], ["a", [0.1, 0.9], "c"], [None, "a", True])
    assert found.equal == pytest.approx(2 / 3)
    assert (found.differences, found.mean_shift, found.labelled) == ({}, None, 0)
    assert compared([], [], []).equal is None


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), max_size=40))
def test_auc_is_the_share_of_pairs_in_order(scored: list[tuple[float, bool]]) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a, good in scored if good for b, bad in scored if not bad]
    assert auc(scored) == (pytest.approx(float(np.mean(pairs))) if pairs else None)


@pytest.mark.parametrize("dtype", ITEM_BYTES)
def test_tensors_become_rows(dtype: str) -> None:
    given = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    rows = _rows_of_tensor(TensorRows(dtype, (2, 3), given.tobytes()))
    assert rows == given.tolist()
    assert _rows_of_tensor(TensorRows(dtype, (0, 3), b"")) == []

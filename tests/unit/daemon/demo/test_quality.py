"""The demo's metrics, compared with their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inferd.daemon.demo.quality import Latency, accuracy, auc


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_correctly_ordered_pairs(scored: list[tuple[int, bool]]) -> None:
    positives = [score for score, label in scored if label]
    negatives = [score for score, label in scored if not label]
    assume(positives and negatives)
    right = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    got = auc([score for score, _ in scored], [label for _, label in scored])
    assert got == pytest.approx(right / (len(positives) * len(negatives)))


def test_auc_of_one_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="positives and negatives"):
        auc([0.1, 0.2], [True, True])


def test_accuracy() -> None:
    assert accuracy([0.5, 0.49, 0.9, 0.1], [True, True, False, False]) == 0.5


def test_latency_is_in_milliseconds() -> None:
    latency = Latency.of(np.arange(101) / 1_000)
    assert (latency.p50_ms, latency.p99_ms, latency.max_ms) == pytest.approx((50, 99, 100))

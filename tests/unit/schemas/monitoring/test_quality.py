"""Quality by labels: sums that add up, and measures equal to scikit-learn's."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from inferd.schemas.monitoring import SCORE_BINS, Quality, of_class, of_number, of_probability

WEIGHTS = st.floats(0.01, 100)
CENTRES = st.integers(0, SCORE_BINS - 1).map(lambda number: (number + 0.5) / SCORE_BINS)
BINARY = st.lists(st.tuples(CENTRES, st.booleans(), WEIGHTS), min_size=2, max_size=60)


def total(rows: list[Quality]) -> Quality:
    return reduce(Quality.plus, rows, Quality())


@given(BINARY)
def test_binary_measures_are_those_of_scikit_learn(rows: list[tuple[float, bool, float]]) -> None:
    quality = total([of_probability(score, positive=positive, weight=weight) for score, positive, weight in rows])
    scores, labels, weights = map(list, zip(*rows, strict=True))
    predicted = [score >= 0.5 for score in scores]
    assert quality.rows == len(rows)
    assert quality.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted, sample_weight=weights))
    assert quality.brier == pytest.approx(metrics.brier_score_loss(labels, scores, sample_weight=weights))
    loss = metrics.log_loss(labels, scores, sample_weight=weights, labels=[False, True])
    assert quality.log_loss == pytest.approx(loss)
    if len(set(labels)) == 2:
        assert quality.auc == pytest.approx(metrics.roc_auc_score(labels, scores, sample_weight=weights))
    else:
        assert quality.auc is None
    assert (quality.rmse, quality.mae) == (None, None)


@given(st.integers(2, 5), st.integers(0, 2**31), st.integers(1, 40))
def test_measures_of_classes_are_those_of_scikit_learn(classes: int, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels, weights = (
        rng.dirichlet([0.5] * classes, count),
        rng.integers(0, classes, count),
        rng.random(count) + 0.1,
    )
    rows = zip(scores.tolist(), labels.tolist(), weights.tolist(), strict=True)
    quality = total([of_class(score, label, weight) for score, label, weight in rows])
    predicted = scores.argmax(axis=1)
    assert quality.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted, sample_weight=weights))
    clipped = np.clip(scores, 1e-15, 1)
    losses = -np.log(clipped[np.arange(count), labels])
    assert quality.log_loss == pytest.approx(np.average(losses, weights=weights))
    briers = ((scores - np.eye(classes)[labels]) ** 2).sum(axis=1)
    assert quality.brier == pytest.approx(np.average(briers, weights=weights))
    of_labels = total(
        [of_class(place, label, 1.0) for place, label in zip(predicted.tolist(), labels.tolist(), strict=True)]
    )
    assert of_labels.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert (of_labels.log_loss, of_labels.brier, of_labels.auc) == (None, None, None)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), WEIGHTS), min_size=1))
def test_measures_of_numbers_are_those_of_scikit_learn(rows: list[tuple[float, float, float]]) -> None:
    quality = total([of_number(*row) for row in rows])
    predicted, labels, weights = map(list, zip(*rows, strict=True))
    expected = metrics.mean_squared_error(labels, predicted, sample_weight=weights) ** 0.5
    assert quality.rmse == pytest.approx(expected, abs=1e-9)
    assert quality.mae == pytest.approx(metrics.mean_absolute_error(labels, predicted, sample_weight=weights), abs=1e-9)
    assert quality.accuracy is None


@given(BINARY, st.randoms())
def test_parts_add_up_in_any_order(rows: list[tuple[float, bool, float]], random: Any) -> None:
    parts = [of_probability(score, positive=positive, weight=weight) for score, positive, weight in rows]
    whole = total(parts)
    random.shuffle(parts)
    other = total(parts[: len(parts) // 2]).plus(total(parts[len(parts) // 2 :]))
    assert other.rows == whole.rows
    assert other.auc == pytest.approx(whole.auc) if whole.auc is not None else other.auc is None
    assert other.log_loss == pytest.approx(whole.log_loss)


def test_calibration_has_the_mean_probability_and_share_of_each_tenth() -> None:
    rows = [(0.1205, False), (0.1305, True), (0.9505, True), (0.9505, True)]
    quality = total([of_probability(score, positive=positive, weight=2.0) for score, positive in rows])
    assert quality.calibration() == [pytest.approx((0.1255, 0.5, 4.0)), pytest.approx((0.9505, 1.0, 4.0))]


def test_certain_and_wrong_predictions_have_a_finite_loss() -> None:
    for probability, positive in ((0.0, True), (1.0, False)):
        quality = of_probability(probability, positive=positive, weight=1.0)
        assert quality.log_loss == pytest.approx(34.538776, abs=1e-4)
    assert Quality().auc is None
    assert Quality().accuracy is None

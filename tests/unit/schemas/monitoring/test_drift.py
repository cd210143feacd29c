"""Drift agrees with scipy, and with what people expect of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, ks_2samp

from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.schemas.monitoring import (
    Baseline,
    Baselines,
    CategoryBaseline,
    Features,
    FeatureStats,
    NumberBaseline,
    Predictions,
    WindowStats,
    decode_baseline,
    drift_of,
    encode_baseline,
    js_distance,
    ks_statistic,
    prediction_distance,
    psi,
)

HISTOGRAM = st.lists(st.integers(1, 1_000), min_size=4, max_size=4)
NUMBER = NumberBaseline([1.0, 2.0, 3.0], 0.0, 4.0, [100, 100, 100, 100], 0)
BASELINE = Baseline(
    7, "given", 400, {"age": NUMBER, "plan": CategoryBaseline(["a", "b"], [300, 100], 0, 0)},
    Predictions("unit", dict.fromkeys(range(10), 40)),
)  # fmt: skip


@given(HISTOGRAM, HISTOGRAM)
def test_distances_are_those_of_scipy(expected: list[int], actual: list[int]) -> None:
    e, a = np.array(expected) / sum(expected), np.array(actual) / sum(actual)
    e_floored, a_floored = np.maximum(e, 1e-4), np.maximum(a, 1e-4)
    both_ways = ((a_floored - e_floored) * np.log(a_floored / e_floored)).sum()
    assert psi(expected, actual) == pytest.approx(both_ways, abs=1e-12)
    if min(e.min(), a.min()) >= 1e-4:
        assert psi(expected, actual) == pytest.approx(entropy(e, a) + entropy(a, e), abs=1e-9)
    assert js_distance(expected, actual) == pytest.approx(jensenshannon(e, a, base=2), abs=1e-7)
    samples = [np.repeat(np.arange(4), counts) for counts in (expected, actual)]
    assert ks_statistic(expected, actual) == pytest.approx(ks_2samp(*samples, method="asymp").statistic, abs=1e-12)


def test_distances_of_empty_bins_and_of_nothing() -> None:
    assert js_distance([1, 0], [0, 1]) == pytest.approx(1.0)
    assert ks_statistic([1, 0], [0, 1]) == pytest.approx(1.0)
    assert 9 < psi([1, 0], [0, 1]) < 20
    assert prediction_distance({1: 1}, {}) is None


def window(age: list[int], plan: list[int], **fields: int) -> WindowStats:
    stats = {"age": FeatureStats(age, **fields), "plan": FeatureStats(plan)}
    return WindowStats(
        model_id="churn", version=3, minute=0, features=Features(7, sum(age), stats),
        predictions=Predictions("unit", dict.fromkeys(range(10), 4)),
    )  # fmt: skip


def test_the_feature_that_drifted_most_is_first() -> None:
    found = drift_of(BASELINE, window([400, 0, 0, 0], [300, 100]))
    assert [feature.name for feature in found.features] == ["age", "plan"]
    assert found.features[0].psi > 1
    assert found.features[0].ks == pytest.approx(0.75)
    assert (found.features[1].psi, found.features[1].ks) == (0.0, None)
    assert found.prediction is not None
    assert found.prediction.psi == pytest.approx(0.0)
    assert (found.rows, found.baseline_rows, found.enough) == (400, 400, True)


def test_a_feature_that_is_missing_now_has_drifted() -> None:
    found = drift_of(BASELINE, window([50, 50, 50, 50], [300, 100], missing=200))
    age = next(feature for feature in found.features if feature.name == "age")
    assert age.missing == pytest.approx(0.5)
    assert age.psi > 1
    assert age.ks == pytest.approx(0.0)


def test_rows_counted_by_another_baseline_are_not_compared() -> None:
    counted = window([400, 0, 0, 0], [300, 100])
    found = drift_of(BASELINE, WindowStats(
        model_id="churn", version=3, minute=0, features=Features(6, 400, counted.features.by_name),
    ))  # fmt: skip
    assert (found.features, found.rows, found.prediction, found.enough) == ([], 0, None, False)


def test_predictions_are_compared_over_bins_with_equal_shares() -> None:
    expected = dict.fromkeys(range(100), 10)
    assert prediction_distance(expected, expected) == prediction_distance(expected, dict.fromkeys(range(100), 1))
    shifted = prediction_distance(expected, dict.fromkeys(range(50, 100), 10))
    assert shifted is not None
    assert shifted.ks == pytest.approx(0.5)
    assert prediction_distance(expected, {}) is None


def test_baselines_are_the_same_after_the_codec() -> None:
    assert decode_baseline(encode_baseline(BASELINE)) == BASELINE
    for value in (None, b"garbage"):
        with pytest.raises(MalformedError, match="baseline"):
            decode_baseline(value)


@pytest.mark.parametrize(
    "feature",
    [
        NumberBaseline([2.0, 1.0], 0.0, 4.0, [1, 1, 1]),
        NumberBaseline([1.0], 0.0, 4.0, [1]),
        NumberBaseline([1.0], 2.0, 1.0, [1, 1]),
        CategoryBaseline(["a"], [1, 2]),
    ],
)
def test_baselines_that_contradict_themselves_are_rejected(feature: NumberBaseline | CategoryBaseline) -> None:
    value = encode_baseline(Baseline(1, "given", 1, {"a": feature}))
    with pytest.raises(MalformedError, match="feature 'a' has"):
        decode_baseline(value)


def test_a_baseline_that_is_too_large_is_rejected() -> None:
    with pytest.raises(TooLargeError):
        encode_baseline(Baseline(1, "given", 1, {f"feature {n:06d}" * 10: NUMBER for n in range(5_000)}))


def test_a_given_baseline_counts_more_than_a_learned_one() -> None:
    learned = Baseline(9, "learned", 10, {})
    both = Baselines().put(BASELINE, learned=False).put(learned, learned=True)
    assert both.current == BASELINE
    assert both.put(None, learned=False).current == learned
    assert Baselines().current is None

"""Features are counted by the bins of their baseline, numbers, categories and text alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.models import Feature, Manifest
from inferd.schemas.monitoring import CategoryBaseline, NumberBaseline, Predictions, merged
from inferd.streams.inference import FeatureSchema
from inferd.streams.monitoring import FeatureCounter, make_baseline

FEATURES = [Feature("age"), Feature("plan", "category", categories=["a", "b", "c"]), Feature("income")]
NONE = Predictions()


def schema(*features: Feature) -> FeatureSchema:
    return FeatureSchema(Manifest("m", 1, "lightgbm", "0" * 64, 10, list(features or FEATURES), "regression", 1))


def inputs(schema: FeatureSchema, rows: list[list[Any]]) -> Any:
    return schema.of_values([list(row) for row in rows])


VALUES = st.none() | st.floats(-100, 100)
ROWS = st.lists(st.tuples(VALUES, st.sampled_from([None, "a", "b", "c"]), VALUES), min_size=1, max_size=60)


@given(ROWS, ROWS)
def test_each_value_is_counted_once_in_the_bin_that_has_it(trained: list[Any], scored: list[Any]) -> None:
    under_test = schema()
    baseline = make_baseline(under_test, inputs(under_test, trained), NONE, 5, "given")
    found = FeatureCounter(under_test, baseline).count(inputs(under_test, scored))
    assert (found.baseline, found.rows) == (5, len(scored))
    assert found.by_name.keys() == baseline.features.keys()
    for name, feature in baseline.features.items():
        column = [row[[each.name for each in FEATURES].index(name)] for row in scored]
        stats = found.by_name[name]
        assert stats.missing == column.count(None)
        assert stats.values == len(scored)
        known = [value for value in column if value is not None]
        if isinstance(feature, NumberBaseline):
            places = [sum(edge <= value for edge in feature.edges) for value in known]
            assert stats.counts == [places.count(n) for n in range(len(feature.counts))]
            assert stats.out_of_range == sum(not feature.low <= value <= feature.high for value in known)
        else:
            assert stats.counts == [known.count(category) for category in feature.categories]
            assert stats.unknown == sum(value not in feature.categories for value in known)


@given(ROWS)
def test_a_baseline_counts_its_own_rows_as_it_says(trained: list[Any]) -> None:
    under_test = schema()
    rows = inputs(under_test, trained)
    baseline = make_baseline(under_test, rows, NONE, 5, "given")
    found = FeatureCounter(under_test, baseline).count(rows)
    for name, feature in baseline.features.items():
        stats = found.by_name[name]
        assert (stats.counts, stats.missing, stats.unknown, stats.out_of_range) == (
            feature.counts, feature.missing, feature.other, 0,
        )  # fmt: skip


def test_bins_of_a_number_are_its_deciles() -> None:
    under_test = schema(Feature("age"))
    baseline = make_baseline(under_test, np.arange(1_000.0).reshape(-1, 1), NONE, 5, "learned")
    age = baseline.features["age"]
    assert isinstance(age, NumberBaseline)
    assert (age.low, age.high, len(age.edges)) == (0.0, 999.0, 9)
    assert max(age.counts) - min(age.counts) <= 1


def test_a_number_with_one_value_has_one_bin() -> None:
    under_test = schema(Feature("age"))
    baseline = make_baseline(under_test, np.full((50, 1), 3.0), NONE, 5, "learned")
    assert baseline.features["age"] == NumberBaseline([], 3.0, 3.0, [50], 0)
    found = FeatureCounter(under_test, baseline).count(np.array([[3.0], [4.0], [np.nan]]))
    assert found.by_name["age"].out_of_range == 1
    assert found.by_name["age"].counts == [2]


def test_a_feature_that_was_always_missing_has_no_baseline() -> None:
    under_test = schema(Feature("age"), Feature("income"))
    baseline = make_baseline(under_test, np.array([[np.nan, 1.0]]), NONE, 5, "learned")
    assert baseline.features.keys() == {"income"}
    assert FeatureCounter(under_test, baseline).count(np.array([[2.0, 1.0]])).by_name.keys() == {"income"}


def test_only_frequent_categories_have_bins() -> None:
    categories = [f"c{n}" for n in range(60)]
    under_test = schema(Feature("plan", "category", categories=list(categories)))
    rows = [[name] for n, name in enumerate(categories) for _ in range(n + 1)]
    baseline = make_baseline(under_test, inputs(under_test, rows), NONE, 5, "given")
    plan = baseline.features["plan"]
    assert isinstance(plan, CategoryBaseline)
    assert plan.categories[:2] == ["c59", "c58"]
    assert len(plan.categories) == 50
    assert plan.other == sum(range(1, 11))


@pytest.mark.parametrize("parts", [1, 3])
def test_counts_of_parts_add_up(parts: int) -> None:
    under_test = schema(Feature("age"))
    rows = np.random.default_rng(1).normal(size=(600, 1))
    counter = FeatureCounter(under_test, make_baseline(under_test, rows, NONE, 5, "given"))
    total = counter.count(rows[: 600 // parts])
    for part in range(1, parts):
        total = total.plus(counter.count(rows[part * 600 // parts : (part + 1) * 600 // parts]))
    assert total == counter.count(rows)
    assert merged([]) is None

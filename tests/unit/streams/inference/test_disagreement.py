"""When two versions disagree about a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inferd.schemas.models import Feature, Manifest, Postprocess
from inferd.streams.inference import FeatureSchema, ServedModel, compile_postprocess, disagreements
from tests.fixtures.lane import SumRuntime

NAN = float("nan")


def served(objective: str | None, outputs: int = 1, classes: Any = None, **postprocess: Any) -> ServedModel:
    spec = Postprocess(**postprocess) if postprocess else None
    runtime = "lightgbm" if classes is None else "sklearn"
    features = [Feature("a"), Feature("b")]
    manifest = Manifest("m", 1, runtime, "0" * 64, 10, features, objective, outputs, classes=classes, postprocess=spec)
    return ServedModel(manifest, SumRuntime(), FeatureSchema(manifest), compile_postprocess(manifest))


def differ(champion: ServedModel, first: Any, shadow: ServedModel, then: Any, name: str = "prediction") -> Any:
    found = disagreements(champion, {name: np.array(first)}, shadow, {name: np.array(then)})
    return None if found is None else found.tolist()


REGRESSION, BINARY = served("regression"), served("binary")
THREE = served("multiclass", 3)


def test_numbers_differ_by_more_than_a_hundredth_of_the_greater_one() -> None:
    first, then = [1.0, 1.0, 1.0, 0.0, 0.0, -5.0], [1.009, 1.02, -1.0, 0.0, 1e-9, -5.0]
    assert differ(REGRESSION, first, REGRESSION, then) == [False, True, True, False, True, False]


def test_a_number_differs_from_none_and_none_from_nothing() -> None:
    assert differ(REGRESSION, [NAN, NAN, 1.0], REGRESSION, [NAN, 1.0, NAN]) == [False, True, True]


def test_of_several_numbers_one_suffices() -> None:
    two = served("regression", 2)
    assert differ(two, [[1.0, 2.0], [1.0, 2.0]], two, [[1.0, 2.0], [1.0, 3.0]]) == [False, True]
    assert differ(REGRESSION, [1.0], two, [[1.0, 2.0]]) is None


def test_probabilities_differ_on_other_sides_of_the_threshold_of_each_version() -> None:
    assert differ(BINARY, [0.49, 0.51, 0.9], BINARY, [0.01, 0.5, 0.1]) == [False, False, True]
    strict = served("binary", threshold=0.8)
    assert differ(BINARY, [0.6, 0.9], strict, [0.6, 0.9]) == [True, False]


def test_of_several_classes_the_most_probable_counts() -> None:
    first, then = [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], [[0.4, 0.35, 0.25], [0.5, 0.1, 0.4]]
    assert differ(THREE, first, THREE, then) == [False, True]
    assert differ(served("multiclass", 3, top_k=2), first, THREE, then) == [False, True]


def test_labels_are_compared_by_name() -> None:
    no_yes, yes_no = served("binary", labels=["no", "yes"]), served("binary", labels=["yes", "no"])
    assert differ(no_yes, [0.9, 0.1], yes_no, [0.9, 0.9]) == [True, False]
    assert differ(no_yes, [0.9, 0.1], BINARY, [0.9, 0.9]) == [False, True]
    first, then = served(None, 2, ["a", "b"]), served(None, 2, ["b", "a"])
    places = np.array([0, 1, 1], np.int32), np.array([1, 1, 0], np.int32)
    assert differ(first, places[0], then, places[1]) == [False, True, False]
    assert differ(first, places[0], first, places[1]) == [True, False, True]


@pytest.mark.parametrize(("champion", "shadow"), [(BINARY, REGRESSION), (REGRESSION, BINARY)])
def test_classes_and_numbers_are_not_compared(champion: ServedModel, shadow: ServedModel) -> None:
    assert differ(champion, [0.5], shadow, [0.5]) is None


def test_without_a_prediction_nothing_is_compared() -> None:
    assert differ(REGRESSION, [0.5], REGRESSION, [0.5], "raw") is None

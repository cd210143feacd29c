"""Which predictions run in a thread."""

from __future__ import annotations

import pytest

from inferd.streams.inference import prediction_costs
from inferd.streams.inference.prediction_costs import PredictionCosts
from tests.fixtures.lane import sum_model

FAST, SLOW = sum_model(1).manifest, sum_model(2).manifest
PREDICTION, CONTRIBUTIONS = ("prediction",), ("contributions",)


def test_a_model_that_has_not_been_measured_may_take_any_time() -> None:
    costs = PredictionCosts(50.0)
    assert costs.is_long(SLOW, PREDICTION, 1)
    costs.took(SLOW, PREDICTION, 1, 0.02)
    assert not costs.is_long(SLOW, PREDICTION, 2), "20 ms a row"
    assert costs.is_long(SLOW, PREDICTION, 3)


def test_each_model_is_measured_by_itself() -> None:
    costs = PredictionCosts(50.0)
    costs.took(SLOW, PREDICTION, 100, 0.1)
    costs.took(FAST, PREDICTION, 100, 0.0001)
    assert costs.is_long(SLOW, PREDICTION, 100)
    assert not costs.is_long(FAST, PREDICTION, 10_000)


def test_outputs_that_take_longer_are_measured_by_themselves() -> None:
    costs = PredictionCosts(50.0)
    costs.took(FAST, PREDICTION, 100, 0.0001)
    assert costs.is_long(FAST, CONTRIBUTIONS, 1)
    costs.took(FAST, CONTRIBUTIONS, 1, 0.04)
    assert costs.is_long(FAST, CONTRIBUTIONS, 2)
    assert not costs.is_long(FAST, PREDICTION, 2)


def test_costs_that_change_are_followed() -> None:
    costs = PredictionCosts(50.0)
    costs.took(FAST, PREDICTION, 1, 1.0)
    for _ in range(50):
        costs.took(FAST, PREDICTION, 1_000, 0.001)
    assert not costs.is_long(FAST, PREDICTION, 1_000)


def test_no_time_at_all_sends_every_prediction_to_a_thread() -> None:
    costs = PredictionCosts(0.0)
    costs.took(FAST, PREDICTION, 1_000, 0.001)
    assert costs.is_long(FAST, PREDICTION, 1)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_costs, "KNOWN_MAX", 3)
    costs = PredictionCosts(50.0)
    for n in range(10):
        costs.took(FAST, (f"own{n}",), 1, 0.001)
    assert sum(not costs.is_long(FAST, (f"own{n}",), 1) for n in range(10)) <= 3
    assert not costs.is_long(FAST, ("own9",), 1)

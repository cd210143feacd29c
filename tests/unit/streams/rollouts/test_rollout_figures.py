"""The figures of a rollout's step, from windows."""

from __future__ import annotations

from functools import reduce

import pytest

from inferd.schemas.monitoring import Predictions, Quality, WindowStats, of_probability
from inferd.streams.rollouts.measuring import figures_of


def window(predictions: dict[int, int] | None = None, quality: Quality | None = None) -> WindowStats:
    found = Predictions("unit", predictions) if predictions else Predictions()
    return WindowStats(
        model_id="m", version=1, minute=1, requests=10, predictions=found, quality=quality or Quality()
    )  # fmt: skip


def labelled(rows: list[tuple[float, bool]]) -> Quality:
    of_rows = [of_probability(score, positive=positive, weight=1.0) for score, positive in rows]
    return reduce(Quality.plus, of_rows, Quality())


def test_auc_is_that_of_all_windows_and_counts_labelled_rows() -> None:
    first, then = labelled([(0.9, True), (0.1, False)]), labelled([(0.2, True), (0.3, False)])
    figures = figures_of([window(quality=first), window(), window(quality=then)])
    assert (figures.labelled, figures.requests) == (4, 30)
    assert figures.values["auc"] == pytest.approx(0.75)


@pytest.mark.parametrize("quality", [Quality(), labelled([(0.5, True)])], ids=["no labels", "one class"])
def test_auc_is_unknown_without_both_classes(quality: Quality) -> None:
    assert "auc" not in figures_of([window(quality=quality)]).values


def test_psi_compares_the_predictions_of_both_versions() -> None:
    champion = [window({10: 150, 20: 150}), window({10: 50, 20: 50})]
    alike, other = [window({10: 200, 20: 200})], [window({10: 40, 20: 360})]
    assert figures_of(alike, champion).values["psi"] == pytest.approx(0.0)
    assert figures_of(other, champion).values["psi"] == pytest.approx(2 * 0.4 * 1.0986 + 0.0, abs=0.01)


@pytest.mark.parametrize(("new", "champion"), [({10: 199}, {10: 400}), ({10: 400}, {10: 199}), (None, {10: 400})])
def test_psi_is_unknown_with_few_rows(new: dict[int, int] | None, champion: dict[int, int]) -> None:
    assert "psi" not in figures_of([window(new)], [window(champion)]).values

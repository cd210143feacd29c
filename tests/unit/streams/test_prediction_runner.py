"""Where predictions run, and how often a micro-batch asks for the thread."""

from __future__ import annotations

import threading
from typing import Any
from unittest.mock import Mock

import pytest

from inferd.schemas.requests import Output
from inferd.streams.prediction_runner import PredictionRunner
from inferd.streams.telemetry import LaneMeasures
from tests.fixtures.lane import sum_model


class Group:
    """Rows whose prediction notes its thread."""

    def __init__(self, to_score: int = 1, *, in_thread: bool = True, fails: bool = False) -> None:
        self.model = sum_model()
        self.outputs: tuple[Output, ...] = ("prediction",)
        self.to_score = to_score
        self.in_thread = in_thread
        self.fails = fails
        self.ran_in: threading.Thread | None = None

    def predict(self) -> None:
        self.ran_in = threading.current_thread()
        if self.fails:
            raise RuntimeError("no")


def make_runner(**options: Any) -> PredictionRunner:
    return PredictionRunner("test", LaneMeasures(), 50.0, **options)


async def test_a_micro_batch_is_handed_to_the_thread_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, groups = make_runner(), [Group() for _ in range(30)]
    call = Mock(side_effect=runner._thread.call)
    monkeypatch.setattr(runner._thread, "call", call)
    await runner.run("default", groups)
    assert call.call_count == 1
    assert {group.ran_in for group in groups} == {groups[0].ran_in}
    assert groups[0].ran_in is not threading.main_thread()


async def test_predictions_known_to_be_short_run_inline() -> None:
    runner = make_runner()
    unknown, known = Group(in_thread=False), Group(in_thread=False)
    await runner.run("default", [unknown])
    await runner.run("default", [known])
    assert unknown.ran_in is not threading.main_thread()
    assert known.ran_in is threading.main_thread()


async def test_many_rows_run_in_the_thread() -> None:
    runner = make_runner(inline_rows_max=10)
    await runner.run("default", [Group(in_thread=False)])
    many = Group(11, in_thread=False)
    await runner.run("default", [many])
    assert many.ran_in is not threading.main_thread()


async def test_groups_without_rows_to_score_finish_inline() -> None:
    group = Group(0)
    await make_runner().run("default", [group])
    assert group.ran_in is threading.main_thread()


async def test_a_failure_is_raised() -> None:
    with pytest.raises(RuntimeError, match="no"):
        await make_runner().run("default", [Group(), Group(fails=True)])

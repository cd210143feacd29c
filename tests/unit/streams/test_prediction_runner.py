"""Where predictions run, and how often a micro-batch asks for the thread."""

from __future__ import annotations

import threading
import time
from unittest.mock import Mock

import pytest

from inferd.schemas.requests import Output
from inferd.streams.prediction_runner import LOCK_WAIT_S_MAX, PredictionRunner
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


def make_runner(inline_ms_max: float = 50.0) -> PredictionRunner:
    return PredictionRunner("test", LaneMeasures(), inline_ms_max)


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


async def test_predictions_expected_to_be_long_run_in_the_thread() -> None:
    runner = make_runner(inline_ms_max=1e-9)
    await runner.run("default", [Group(in_thread=False)])
    long = Group(in_thread=False)
    await runner.run("default", [long])
    assert long.ran_in is not threading.main_thread()


async def test_groups_without_rows_to_score_finish_inline() -> None:
    group = Group(0)
    await make_runner().run("default", [group])
    assert group.ran_in is threading.main_thread()


async def test_a_failure_is_raised() -> None:
    with pytest.raises(RuntimeError, match="no"):
        await make_runner().run("default", [Group(), Group(fails=True)])


async def test_a_wait_for_the_interpreter_lock_is_no_cost_and_a_longer_wait_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    for waited_s, inline in ((LOCK_WAIT_S_MAX, True), (1.0, False)):
        runner, first, second = make_runner(), Group(in_thread=False), Group(in_thread=False)
        monkeypatch.setattr(first, "predict", lambda s=waited_s: clock.__setitem__(0, clock[0] + s))
        await runner.run("default", [first])
        await runner.run("default", [second])
        assert (second.ran_in is threading.main_thread()) == inline

"""The size of a micro-batch: limited by its expected time, estimated from the times of earlier ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.streams.requests.batch_sizing import RECORDS_MIN, ROW_S_AT_FIRST, BatchSizer
from inferd.streams.settings import LaneSettings
from tests.fixtures.lane import sum_model


def batch_sizer(inline_ms_max: float = 50.0, batch_rows_max: int = 2_048) -> BatchSizer:
    return BatchSizer(LaneSettings(inline_ms_max=inline_ms_max, batch_rows_max=batch_rows_max))


def group(rows: int, version: int = 1) -> Any:
    return SimpleNamespace(to_score=rows, model=sum_model(version))


def test_at_first_a_whole_micro_batch_is_expected_to_be_quick() -> None:
    assert batch_sizer().records_max() == 2_048
    assert not batch_sizer().is_long(group(2_048))


def test_slow_records_make_micro_batches_smaller_and_quick_ones_larger_again() -> None:
    learnt = batch_sizer()
    for _ in range(50):
        learnt.batch_took(0.2, records=1_000)
    assert learnt.records_max() == pytest.approx(250, abs=3), "at 0.2 ms a record, 50 ms are enough for 250"
    for _ in range(100):
        learnt.batch_took(0.01, records=1_000)
    assert learnt.records_max() == 2_048


def test_an_outlier_changes_little() -> None:
    learnt = batch_sizer()
    learnt.batch_took(0.04, records=1_000)
    assert learnt.records_max() >= 2_000


def test_a_micro_batch_is_not_made_smaller_than_pays() -> None:
    learnt = batch_sizer()
    for _ in range(50):
        learnt.batch_took(10.0, records=1)
    assert learnt.records_max() == RECORDS_MIN
    assert batch_sizer(inline_ms_max=0).records_max() == RECORDS_MIN


@pytest.mark.parametrize("batch_rows_max", [1, 10])
def test_the_bound_of_the_settings_holds(batch_rows_max: int) -> None:
    learnt = batch_sizer(batch_rows_max=batch_rows_max)
    assert learnt.records_max() == batch_rows_max
    learnt.batch_took(100.0, records=1)
    assert learnt.records_max() == batch_rows_max


def test_whether_a_prediction_is_long_is_known_of_each_model() -> None:
    learnt = batch_sizer()
    for _ in range(50):
        learnt.group_took(group(100, version=1), 0.1)
        learnt.group_took(group(100, version=2), 0.0001)
    assert learnt.is_long(group(100, version=1)), "1 ms a row"
    assert not learnt.is_long(group(20, version=1))
    assert not learnt.is_long(group(10_000, version=2))
    rows = int(0.05 / ROW_S_AT_FIRST)
    assert not learnt.is_long(group(rows, version=3))
    assert learnt.is_long(group(rows + 1, version=3)), "of a new one, it is guessed"


def test_no_time_at_all_sends_every_prediction_to_a_thread() -> None:
    assert batch_sizer(inline_ms_max=0).is_long(group(1))


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5_000)), max_size=30), st.integers(1, 5_000))
def test_it_is_at_least_one_and_at_most_the_limit(took: list[tuple[float, int]], batch_rows_max: int) -> None:
    learnt = batch_sizer(batch_rows_max=batch_rows_max)
    for seconds, records in took:
        learnt.batch_took(seconds, records)
    assert 1 <= learnt.records_max() <= batch_rows_max

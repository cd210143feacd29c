"""The size of a micro-batch: limited by its expected time, estimated from the times of earlier ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.streams.requests.batch_sizing import RECORDS_MIN, BatchSizer
from inferd.streams.settings import LaneSettings


def batch_sizer(inline_ms_max: float = 50.0, batch_rows_max: int = 2_048) -> BatchSizer:
    return BatchSizer(LaneSettings(inline_ms_max=inline_ms_max, batch_rows_max=batch_rows_max))


def test_at_first_a_whole_micro_batch_is_expected_to_be_quick() -> None:
    assert batch_sizer().records_max() == 2_048


def test_slow_records_make_micro_batches_smaller_and_quick_ones_larger_again() -> None:
    learnt = batch_sizer()
    for _ in range(50):
        learnt.batch_took(0.2, records=1_000)
    assert learnt.records_max() == pytest.approx(250, abs=3), "at 0.2 ms per record, 50 ms are enough for 250"
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


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5_000)), max_size=30), st.integers(1, 5_000))
def test_it_is_at_least_one_and_at_most_the_limit(took: list[tuple[float, int]], batch_rows_max: int) -> None:
    learnt = batch_sizer(batch_rows_max=batch_rows_max)
    for seconds, records in took:
        learnt.batch_took(seconds, records)
    assert 1 <= learnt.records_max() <= batch_rows_max

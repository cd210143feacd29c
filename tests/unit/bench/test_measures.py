"""The arithmetic of the benchmark, with known results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measures import (
    CpuSample,
    cpu_between,
    is_sustained,
    latency_quantiles,
    next_step,
    paired_ratios,
    scheduled_s,
    spread,
    timed_span,
)


def test_a_span_begins_after_the_warm_results_and_ends_with_the_last() -> None:
    span = timed_span([1_000, 1_000, 1_500, 2_000, 3_000], warm=2)
    assert (span.begin_s, span.end_s, span.messages) == (1.0, 3.0, 3)
    assert span.messages_per_s == 1.5


def test_results_of_the_same_millisecond_as_the_last_warm_one_are_not_counted() -> None:
    span = timed_span([1_000, 1_000, 1_000, 2_000], warm=1)
    assert (span.begin_s, span.messages) == (1.0, 1)


def test_a_span_without_warm_up_begins_with_the_first_result() -> None:
    span = timed_span([2_000, 1_000, 1_500], warm=0)
    assert (span.begin_s, span.messages) == (1.0, 2)


@pytest.mark.parametrize(("timestamps", "warm"), [([], 0), ([5], 0), ([5, 5], 1), ([5, 6], 2), ([5, 6], 3)])
def test_an_empty_measurement_is_an_error(timestamps: list[int], warm: int) -> None:
    with pytest.raises(ValueError, match="nothing is left to time"):
        timed_span(timestamps, warm)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=200), st.integers(1, 100))
def test_the_order_of_results_does_not_matter(timestamps: list[int], warm: int) -> None:
    try:
        expected = timed_span(sorted(timestamps), warm)
    except ValueError:
        return
    assert timed_span(timestamps[::-1], warm) == expected
    assert expected.messages <= len(timestamps) - warm


def test_cpu_time_is_interpolated_between_samples() -> None:
    samples = [CpuSample(10.0, 1.0), CpuSample(11.0, 1.5), CpuSample(12.0, 2.5)]
    assert cpu_between(samples, 10.5, 11.5) == pytest.approx(0.75)
    assert cpu_between(samples, 10.0, 12.0) == pytest.approx(1.5)


def test_ratios_are_taken_repeat_by_repeat() -> None:
    # The second repeat was disturbed for both: the ratios do not show it.
    assert paired_ratios([100.0, 50.0, 90.0], [50.0, 25.0, 30.0]) == (2.0, 2.0, 3.0)


def test_ratios_of_unequal_repeats_are_rejected() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_ratios([1.0], [1.0, 2.0])


def test_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.0, 10.0]) == (2.5, 1.0, 10.0)


def test_quantiles_are_observed_values() -> None:
    quantiles = latency_quantiles(np.arange(1.0, 1_001.0))
    assert (quantiles.p50, quantiles.p99, quantiles.p999, quantiles.max) == (500.0, 990.0, 999.0, 1_000.0)
    assert quantiles.count == 1_000


def test_one_slow_result_in_a_hundred_is_only_beyond_p99() -> None:
    latencies = np.full(100, 1.0)
    latencies[7] = 500.0
    quantiles = latency_quantiles(latencies)
    assert (quantiles.p99, quantiles.p999, quantiles.max) == (1.0, 500.0, 500.0)


def test_a_schedule_is_evenly_spaced() -> None:
    assert scheduled_s(4, 2.0, 10.0).tolist() == [10.0, 10.5, 11.0, 11.5]


def test_a_constant_delay_is_sustained() -> None:
    scheduled = scheduled_s(10_000, 1_000.0, 0.0)
    assert is_sustained(scheduled, scheduled + 0.05)


def test_a_delay_that_grows_is_not_sustained() -> None:
    scheduled = scheduled_s(10_000, 1_000.0, 0.0)
    served_at_900_a_second = scheduled_s(10_000, 900.0, 0.0)
    assert not is_sustained(scheduled, served_at_900_a_second)


def test_a_pause_in_the_first_half_that_is_caught_up_with_is_sustained() -> None:
    scheduled = scheduled_s(10_000, 1_000.0, 0.0)
    paused = np.where((scheduled > 1.0) & (scheduled < 2.0), 2.1, scheduled + 0.001)
    assert is_sustained(scheduled, paused)


def test_a_lost_result_is_not_sustained() -> None:
    scheduled = scheduled_s(10_000, 1_000.0, 0.0)
    received = scheduled + 0.05
    received[17] = np.nan
    assert not is_sustained(scheduled, received)


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_bisection_finds_the_last_step_that_passes(steps: int, last_good: int) -> None:
    passed, failed, tries = -1, steps, 0
    while (step := next_step(passed, failed)) is not None:
        tries += 1
        passed, failed = (step, failed) if step <= last_good else (passed, step)
    assert passed == min(last_good, steps - 1)
    assert tries <= steps.bit_length()

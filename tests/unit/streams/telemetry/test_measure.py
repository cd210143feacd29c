"""Counters and histograms, compared with numpy and plain sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.streams.lane.output_batch import timestamps_of
from inferd.streams.telemetry.counters import Tally, TenantCounters
from inferd.streams.telemetry.measure import LATENCY_BOUNDS_S, WAIT_MS_MAX, LaneMeasures, LatencyHistogram
from inferd.streams.telemetry.step_timer import StepTimer
from tests.fixtures.lane import request, sum_model

SECONDS = st.lists(st.one_of(st.floats(0, 100), st.sampled_from(LATENCY_BOUNDS_S)), max_size=50)
MILLISECONDS = st.lists(st.integers(0, 100_000), max_size=50)


def counted(seconds: list[float]) -> list[int]:
    """The counts by numpy: observations in each interval (previous bound, bound], and above the last bound."""
    edges = [-np.inf, *np.nextafter(LATENCY_BOUNDS_S, np.inf), np.inf]
    counts, _ = np.histogram(seconds, edges)
    found: list[int] = counts.tolist()
    return found


def test_bounds_ascend() -> None:
    assert list(LATENCY_BOUNDS_S) == sorted(set(LATENCY_BOUNDS_S))


@given(SECONDS)
def test_counts_equal_those_of_numpy(seconds: list[float]) -> None:
    histogram = LatencyHistogram()
    for value in seconds:
        histogram.observe(value)
    snapshot = histogram.snapshot()
    assert list(snapshot.counts) == counted(seconds)
    assert snapshot.total_s == pytest.approx(sum(seconds))
    assert snapshot.bounds == LATENCY_BOUNDS_S
    assert len(snapshot.counts) == len(snapshot.bounds) + 1


@given(MILLISECONDS)
def test_waits_since_timestamps_equal_single_observations(waits_ms: list[int]) -> None:
    now_ms = 1_700_000_000_000
    together, singly = LatencyHistogram(), LatencyHistogram()
    together.observe_since([now_ms - wait for wait in waits_ms], now_ms)
    for wait in waits_ms:
        singly.observe(wait / 1000)
    assert together.snapshot().counts == singly.snapshot().counts
    assert together.snapshot().total_s == pytest.approx(singly.snapshot().total_s)


def test_a_timestamp_in_the_future_counts_as_no_wait() -> None:
    histogram = LatencyHistogram()
    histogram.observe_since([2_000, 5_000], 1_000)
    snapshot = histogram.snapshot()
    assert (snapshot.counts[0], sum(snapshot.counts), snapshot.total_s) == (2, 2, 0.0)


def test_a_wrong_timestamp_does_not_dominate_the_mean() -> None:
    now_ms = 1_700_000_000_000
    histogram = LatencyHistogram()
    histogram.observe_since([1, *[now_ms - 2] * 999], now_ms)
    snapshot = histogram.snapshot()
    assert snapshot.total_s == pytest.approx(WAIT_MS_MAX / 1000 + 999 * 0.002)
    assert (snapshot.counts[-1], sum(snapshot.counts)) == (1, 1_000)
    stamped = [replace(request(0), timestamp=stamp) for stamp in (1, now_ms - 2, 0)]
    assert timestamps_of(stamped, now_ms) == [now_ms - WAIT_MS_MAX, now_ms - 2, now_ms]


def test_a_snapshot_is_immutable() -> None:
    histogram = LatencyHistogram()
    before = histogram.snapshot()
    histogram.observe(1.0)
    assert sum(before.counts) == 0


TALLIES = st.lists(
    st.builds(
        Tally,
        st.integers(0, 9),
        st.dictionaries(st.sampled_from(["malformed", "internal"]), st.integers(1, 9)).map(Counter),
        st.integers(0, 9),
        st.integers(0, 9),
    )
)


@given(TALLIES)
def test_a_tenants_counters_add_up(tallies: list[Tally]) -> None:
    counters = TenantCounters("t", requests_in=5)
    for tally in tallies:
        counters.add(tally)
    snapshot = counters.snapshot(pending=3)
    assert (snapshot.tenant, snapshot.requests_in, snapshot.pending) == ("t", 5, 3)
    assert snapshot.results == sum(tally.results for tally in tallies)
    assert sum(snapshot.errors.values()) == sum(sum(tally.errors.values()) for tally in tallies)
    assert snapshot.dead_letters == sum(tally.dead_letters for tally in tallies)
    assert snapshot.bytes_out == sum(tally.bytes_out for tally in tallies)


def test_models_are_counted_by_tenant_name_and_version() -> None:
    measures = LaneMeasures()
    measures.count_models("a", {("m", 1): (2, 20), ("m", 2): (1, 1)})
    measures.count_models("a", {("m", 1): (3, 30)})
    measures.count_models("b", {("m", 1): (7, 7)})
    manifest = sum_model(4).manifest
    measures.count_prediction("a", manifest, 0.5)
    measures.count_prediction("a", manifest, 0.25)
    found = {key: (c.requests, c.rows, c.predict_s) for key, c in measures.by_model.items()}
    assert found == {
        ("a", "m", 1): (5, 50, 0.0),
        ("a", "m", 2): (1, 1, 0.0),
        ("b", "m", 1): (7, 7, 0.0),
        ("a", "sum", 4): (0, 0, 0.75),
    }


def test_a_missing_timestamp_counts_as_no_wait() -> None:
    histogram = LatencyHistogram()
    histogram.observe_since([-1, 0], 1e12)
    assert histogram.snapshot().counts[0] == 2
    assert histogram.snapshot().total_s == 0


def test_the_longest_wait_is_returned() -> None:
    assert LatencyHistogram().observe_since([9_000, 8_000, 0], 10_000) == 2.0
    assert LatencyHistogram().observe_since([], 10_000) == 0.0


def test_each_step_begins_where_the_previous_one_ended() -> None:
    times = iter([1.0, 1.5, 4.0])
    step_timer = StepTimer(lambda: next(times))
    step_timer.finish("validate")
    step_timer.finish("predict")
    assert step_timer.steps == [("validate", 1.0, 1.5), ("predict", 1.5, 4.0)]
    measures = LaneMeasures()
    measures.observe_steps(step_timer)
    assert {step: h.snapshot().total_s for step, h in measures.steps.items() if h.snapshot().total_s} == {
        "validate": 0.5,
        "predict": 2.5,
    }

"""The worker's status: readiness, rates, quantiles."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.settings.settings import Settings
from inferd.daemon.telemetry.latency import quantiles, since
from inferd.daemon.telemetry.status import StatusBoard, peak_bytes, resident_bytes
from inferd.streams.telemetry.snapshot import LatencySnapshot, ModelMemorySnapshot, StreamsSnapshot
from tests.unit.daemon.fake_streams import BOUNDS_S, histogram, model, partition, snapshot, tenant


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Source:
    def __init__(self, said: StreamsSnapshot | None = None) -> None:
        self.said = said or snapshot()

    def snapshot(self) -> StreamsSnapshot:
        return self.said


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> StatusBoard:
    return StatusBoard(Settings.from_environment({"INFERD_WORKER_ID": "w1"}), clock)


def test_before_the_streams_it_reports_what_it_waits_for(board: StatusBoard, clock: Clock) -> None:
    board.enter("waiting", "waiting for the broker")
    clock.now += 3
    status = board.status()
    assert (status.ready, status.unready) == (False, ("waiting for the broker",))
    assert (status.phase, status.phase_for_s, status.uptime_s) == ("waiting", 3.0, 3.0)
    assert (status.lag, status.throughput, status.latency, status.partitions) == (None, None, {}, ())


@pytest.mark.parametrize(
    ("bytes_max", "expected"),
    [("500", ModelMemorySnapshot(bytes=0, bytes_max=500)), ("0", ModelMemorySnapshot())],
    ids=["budget", "no budget"],
)
def test_before_the_streams_the_memory_budget_is_the_configured_one(
    bytes_max: str, expected: ModelMemorySnapshot
) -> None:
    board = StatusBoard(Settings.from_environment({"INFERD_MODELS_BYTES_MAX": bytes_max}))
    assert board.status().model_memory == expected


def test_a_new_reason_does_not_restart_the_phase(board: StatusBoard, clock: Clock) -> None:
    board.enter("waiting", "one")
    clock.now += 2
    board.enter("waiting", "two")
    assert board.phase(None) == ("waiting", 2.0)
    assert board.unready(None) == ("two",)


def test_while_running_it_reports_the_streams_snapshot(board: StatusBoard) -> None:
    board.attach(Source(snapshot(unready=("no model is ready",), phase="rebalancing", phase_for_s=4.0)))
    board.enter("running", "")
    status = board.status()
    assert status.unready == ("no model is ready",)
    assert (status.phase, status.phase_for_s) == ("rebalancing", 4.0)
    board.attach(Source())
    assert board.status().ready


def test_starting_and_draining_are_never_ready(board: StatusBoard) -> None:
    board.attach(Source())
    board.enter("starting", "starting the streams")
    assert board.status().unready == ("starting the streams",)
    board.enter("draining", "stopping")
    assert not board.status().ready


def test_lag_is_the_sum_of_known_lags(board: StatusBoard) -> None:
    said = snapshot(
        partitions=(
            partition(lag=3),
            partition(number=1, lag=None, end=None),
            partition(number=2, lag=4),
            partition("inferd.default.model-stats", lag=9, lifecycle=True),
        )
    )
    board.attach(Source(said))
    assert (board.status().lag, board.status().lifecycle_lag) == (7, 9)
    board.attach(Source(snapshot(partitions=(partition(lag=None),))))
    assert board.status().lag is None


def test_throughput_is_that_of_the_last_ten_seconds(board: StatusBoard, clock: Clock) -> None:
    source = Source()
    board.attach(source)
    for second in range(60):
        rows = 100 * second if second < 40 else 4_000 + 10 * (second - 40)
        source.said = snapshot(
            tenants=(tenant(requests_in=rows, results=rows, errors={"malformed": second}),),
            models=(model(rows=2 * rows),),
        )
        board.sample()
        clock.now += 1
    throughput = board.status().throughput
    assert throughput is not None
    assert 9 <= throughput.window_s <= 11.5
    assert throughput.requests_per_s == pytest.approx(10, rel=0.15)
    assert throughput.rows_per_s == pytest.approx(20, rel=0.15)
    assert throughput.errors_per_s == pytest.approx(1, rel=0.15)


def test_throughput_is_not_negative_when_a_model_is_removed(board: StatusBoard, clock: Clock) -> None:
    source = Source()
    board.attach(source)
    board.sample()
    clock.now += 2
    source.said = snapshot(models=())
    throughput = board.status().throughput
    assert throughput is not None
    assert throughput.rows_per_s == 0


def test_samples_are_bounded(board: StatusBoard, clock: Clock) -> None:
    board.attach(Source())
    for _ in range(10_000):
        board.sample()
        clock.now += 0.01
    assert len(board._samples) <= 12
    assert board._samples[-1][0] - board._samples[0][0] > 9


def test_recent_latency_covers_only_the_window(board: StatusBoard, clock: Clock) -> None:
    source = Source(snapshot(end_to_end=histogram(0, 0, 100, 0, total_s=5.0)))
    board.attach(source)
    board.sample()
    clock.now += 5
    source.said = snapshot(end_to_end=histogram(50, 0, 100, 0, total_s=5.025))
    latency = board.status().latency["end_to_end"]
    assert latency.recent.count == 50
    assert latency.recent.p99_ms is not None
    assert latency.recent.p99_ms <= 1.0
    assert latency.since_start.count == 150


def test_quantiles_without_observations() -> None:
    found = quantiles(histogram(0, 0, 0, 0))
    assert (found.count, found.mean_ms, found.p50_ms, found.p99_ms) == (0, None, None, None)


def test_quantiles_within_and_beyond_the_buckets() -> None:
    found = quantiles(histogram(0, 100, 0, 0, total_s=0.5))
    assert (found.mean_ms, found.p50_ms) == (5.0, 5.5)
    assert quantiles(histogram(0, 0, 0, 7)).p50_ms == 100.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_quantiles_lie_in_the_bucket_of_the_true_one(seconds: list[float]) -> None:
    bounds = tuple(number / 20 for number in range(1, 21))
    counts = [0] * (len(bounds) + 1)
    for value in seconds:
        counts[next((i for i, bound in enumerate(bounds) if value <= bound), len(bounds))] += 1
    found = quantiles(LatencySnapshot(bounds, tuple(counts), sum(seconds)))
    ordered = sorted(seconds)
    for q, estimate in ((0.5, found.p50_ms), (0.9, found.p90_ms), (0.99, found.p99_ms)):
        assert estimate is not None
        true = ordered[max(-(-int(q * 1_000_000) * len(ordered) // 1_000_000) - 1, 0)]
        assert abs(estimate / 1_000 - true) <= 0.0501


def test_a_reset_histogram_counts_in_full() -> None:
    later = histogram(1, 0, 0, 0)
    assert since(histogram(5, 0, 0, 0), later) == later
    assert since(None, later) == later
    assert since(LatencySnapshot((1.0,), (5, 5), 1.0), later) == later
    assert since(histogram(1, 1, 0, 0, total_s=1.0), histogram(2, 1, 0, 0, total_s=1.5)) == LatencySnapshot(
        BOUNDS_S, (1, 0, 0, 0), 0.5
    )


def test_memory_is_reported() -> None:
    resident = resident_bytes()
    assert resident is None or 1_000_000 < resident <= 2 * peak_bytes()


def test_peak_memory_excludes_the_parent_process() -> None:
    large = 512 * 1_048_576
    child = "from inferd.daemon.telemetry.status import peak_bytes; print(peak_bytes())"
    parent = (
        f"import subprocess, sys; held = b'x' * {large};"
        f"sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)"
    )
    ran = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert 1_000_000 < int(ran.stdout) < large

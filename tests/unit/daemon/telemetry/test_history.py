"""The ring of samples: rates, bounds, tenants, and clocks that are set back."""

from __future__ import annotations

from typing import Any

from inferd.daemon.telemetry.history import SAMPLES_MAX, STEP_S, SampleRing
from tests.unit.daemon.fake_streams import histogram, model, partition, snapshot, tenant


class Clock:
    now = 1_800_000_001.0

    def __call__(self) -> float:
        return self.now


def observe(ring: SampleRing, clock: Clock, requests: int, seconds: float = STEP_S, **changes: Any) -> None:
    values: dict[str, Any] = {
        "tenants": (tenant("acme", requests_in=requests, errors={"malformed": requests // 10}), tenant("beta")),
        "models": (model("m", tenant="acme", rows=2 * requests),),
        "partitions": (partition("inferd.acme.requests", lag=7), partition("inferd.beta.requests", lag=5)),
    }
    ring.observe(snapshot(**values | changes), 1_000)
    clock.now += seconds


def test_samples_are_rates_between_two_observations() -> None:
    clock = Clock()
    ring = SampleRing(clock)
    observe(ring, clock, 100)
    observe(ring, clock, 200, end_to_end=histogram(0, 10, 0, 0, total_s=0.05))
    (sample,) = ring.history().samples
    assert (sample.at, sample.requests_per_s, sample.rows_per_s, sample.errors_per_s) == (1_800_000_005, 20, 40, 2)
    assert (sample.lag, sample.resident_bytes) == (12, 1_000)
    assert ring.history().step_s == STEP_S


def test_one_sample_a_step() -> None:
    clock = Clock()
    ring = SampleRing(clock)
    for number in range(11):
        observe(ring, clock, 10 * number, seconds=1)
    assert [sample.at % STEP_S for sample in ring.history().samples] == [0, 0]
    assert [sample.requests_per_s for sample in ring.history().samples] == [10, 10]


def test_a_tenant_sees_its_own_part_without_what_is_of_all() -> None:
    clock = Clock()
    ring = SampleRing(clock)
    observe(ring, clock, 100)
    observe(ring, clock, 200)
    (acme,), (beta,) = ring.history("acme").samples, ring.history("beta").samples
    assert (acme.requests_per_s, acme.lag) == (20, 7)
    assert (beta.requests_per_s, beta.lag) == (0, 5)
    assert (acme.p99_ms, acme.resident_bytes) == (None, None)
    assert ring.history("nobody").samples == []


def test_the_ring_is_bounded_and_read_from_a_time() -> None:
    clock = Clock()
    ring = SampleRing(clock)
    for number in range(SAMPLES_MAX + 10):
        observe(ring, clock, number)
    samples = ring.history().samples
    assert len(samples) == SAMPLES_MAX
    assert ring.history(after=samples[-3].at).samples == samples[-2:]


def test_other_streams_count_from_zero() -> None:
    clock = Clock()
    ring = SampleRing(clock)
    observe(ring, clock, 1_000)
    ring.clear()
    observe(ring, clock, 5)
    observe(ring, clock, 15)
    assert [sample.requests_per_s for sample in ring.history().samples] == [2]


def test_a_clock_that_is_set_back_gives_no_negative_rates() -> None:
    clock = Clock()
    ring = SampleRing(clock)
    observe(ring, clock, 100)
    clock.now -= 100
    observe(ring, clock, 200)
    observe(ring, clock, 250)
    assert [sample.requests_per_s for sample in ring.history().samples] == [10]

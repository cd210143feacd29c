"""The extent of the measurements."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BacklogPlan:
    """Each peer processes a backlog `repeats` times; the first `warm` results are not measured."""

    repeats: int = 5
    count: int = 250_000
    warm: int = 50_000
    slow_count: int = 6_000
    """For the peer that processes one record at a time."""
    slow_warm: int = 1_500


@dataclass(frozen=True, slots=True)
class LatencyPlan:
    """Each rate is run `repeats` times: `settle_s` of warm-up, then `span_s` measured."""

    repeats: int = 3
    rates: tuple[int, ...] = (200, 1_000, 5_000, 10_000)
    slow_rates: tuple[int, ...] = (200,)
    settle_s: float = 0.5
    span_s: float = 3.0
    sustained_steps: tuple[int, ...] = (10_000, 15_000, 20_000, 30_000, 40_000, 50_000, 60_000)
    """Candidates for the sustained rate."""
    sustained_span_s: float = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The extent of one run."""

    backlog: BacklogPlan = BacklogPlan()
    latency: LatencyPlan = LatencyPlan()


DEFAULT = Plan()
QUICK = Plan(
    BacklogPlan(repeats=2, count=120_000, warm=30_000, slow_count=4_000, slow_warm=1_000),
    LatencyPlan(repeats=1, rates=(200, 1_000, 5_000), span_s=2.0, sustained_steps=()),
)

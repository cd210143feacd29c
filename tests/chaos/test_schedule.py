"""The schedule depends only on the seed, and contains every fault."""

from __future__ import annotations

from itertools import islice

from tests.chaos.faults import all_faults
from tests.chaos.schedule import alone, mixed

FAULTS = list(all_faults().values())


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert alone(FAULTS, 7) == alone(FAULTS, 7) != alone(FAULTS, 8)
    assert list(islice(mixed(FAULTS, 7), 200)) == list(islice(mixed(FAULTS, 7), 200))
    assert list(islice(mixed(FAULTS, 7), 200)) != list(islice(mixed(FAULTS, 8), 200))


def test_each_fault_is_scheduled_once_alone() -> None:
    assert sorted(step.fault for step in alone(FAULTS, 3)) == sorted(all_faults())


def test_the_mixture_contains_every_fault_and_kills_where_allowed() -> None:
    steps = list(islice(mixed(FAULTS, 1), 2_000))
    assert {step.fault for step in steps} == set(all_faults())
    killed = {step.fault for step in steps if step.killed_too_after_s is not None}
    assert killed == {fault.name for fault in FAULTS if fault.bears_kills}

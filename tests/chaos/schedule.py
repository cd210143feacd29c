"""Draws the schedule of faults from the seed alone, so that the same seed gives the same schedule."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.chaos.faults import Fault

PAUSE_S = (0.5, 3.0)
KILLED_TOO = 0.3
"""Share of the faults in the mixed part during which a worker is killed as well, if the fault allows it."""


@dataclass(frozen=True)
class Step:
    """One scheduled fault; its random choices depend only on `seed`."""

    fault: str
    seed: int
    pause_s: float
    killed_too_after_s: float | None = None


def alone(faults: Sequence[Fault], seed: int, *, pause_s: float | None = None) -> list[Step]:
    """Each fault once, in random order."""
    rng = random.Random(f"alone {seed}")
    return [_step(rng, fault, pause_s) for fault in rng.sample(faults, len(faults))]


def in_order(faults: Sequence[Fault], seed: int, *, pause_s: float | None = None) -> list[Step]:
    """These faults in this order."""
    rng = random.Random(f"in order {seed}")
    return [_step(rng, fault, pause_s) for fault in faults]


def mixed(faults: Sequence[Fault], seed: int) -> Iterator[Step]:
    """Faults without end; occasionally a worker is killed while another fault lasts."""
    rng = random.Random(f"mixed {seed}")
    for _ in itertools.count():
        fault = rng.choice(faults)
        killed = rng.random() < KILLED_TOO and fault.bears_kills
        step = _step(rng, fault, None)
        after_s = rng.uniform(0, 2)
        yield Step(step.fault, step.seed, step.pause_s, after_s if killed else None)


def _step(rng: random.Random, fault: Fault, pause_s: float | None) -> Step:
    drawn_s = rng.uniform(*PAUSE_S)
    return Step(fault.name, rng.getrandbits(32), drawn_s if pause_s is None else pause_s)

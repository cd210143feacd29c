"""The registry of faults: the modules `*_faults` register theirs with `@fault`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from tests.chaos.system import System

MODULES = (
    "worker_faults", "broker_faults", "network_faults", "model_faults", "data_faults", "refusal_faults", "table_faults",
    "rollout_faults", "node_faults", "topic_faults",
)  # fmt: skip
Row = Literal[
    "worker kill -9", "zombie", "rebalance storm", "broker", "broker absent at start", "network", "state lost",
    "retention", "models", "SIGTERM", "results refused", "records refused",
    "rollouts", "nodes", "partitions added",
]  # fmt: skip
"""A row of the fault matrix."""
Inject = Callable[[System, random.Random], None]


@dataclass(frozen=True)
class Fault:
    """One fault: `inject` causes it, checks its visible effects, and removes it.

    It calls `System.mark` when the measurement of the recovery time starts, and raises AssertionError if a worker
    misbehaves.
    """

    name: str
    row: Row
    inject: Inject
    recovers_within_s: float
    lengthy: bool
    """Whether it is injected in long runs only."""
    bears_kills: bool
    """Whether workers may be killed during the fault."""

    @property
    def what(self) -> str:
        return " ".join((self.inject.__doc__ or "").split())


FAULTS: dict[str, Fault] = {}


def fault(
    row: Row, *, recovers_within_s: float = 60.0, lengthy: bool = False, bears_kills: bool = False
) -> Callable[[Inject], Inject]:
    """Registers the decorated function as a fault, under the function's name."""

    def enter(inject: Inject) -> Inject:
        name = inject.__name__
        FAULTS[name] = Fault(name, row, inject, recovers_within_s, lengthy, bears_kills)
        return inject

    return enter


def all_faults() -> dict[str, Fault]:
    """All faults by name, in the order of the fault matrix."""
    for module in MODULES:
        import_module(f"tests.chaos.{module}")
    return FAULTS

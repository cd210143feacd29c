"""The outcome of an experiment, as values and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.ledger import Balance


@dataclass(frozen=True)
class Injection:
    """One injected fault."""

    fault: str
    seed: int
    pending: int
    """Number of requests without an answer when the fault was injected: there was work that could be lost."""
    killed_too: bool
    first_result_s: float | None
    """From the fault (or its end, if it lasts) to the first result of an affected partition."""
    recovered_s: float | None
    """The same to results from every partition, with every worker ready."""
    problem: str | None


@dataclass(frozen=True)
class Outcome:
    """One experiment: its faults, its ledger, and its other observations."""

    guarantee: str
    seed: int
    bug: str | None
    duration_s: float
    injections: Sequence[Injection]
    balance: Balance
    totals: Mapping[str, int]
    exits: Mapping[str, int]
    unexpected: Sequence[str]
    """Workers that ended by themselves."""
    broken: str | None = None
    """Why the experiment ended early, if it did."""
    logs: str = ""

    @property
    def rollout_problems(self) -> int:
        """Rollouts that broke a promise."""
        return sum((i.problem or "").startswith("AssertionError: rollout ") for i in self.injections)

    @property
    def violations(self) -> list[str]:
        """All problems; empty if every check passed."""
        found = self.balance.violations(self.guarantee)
        found += [f"{i.fault} (seed {i.seed}): {i.problem}" for i in self.injections if i.problem]
        found += (
            [f"{len(self.unexpected)} workers ended by themselves: {self.unexpected[0]}"] if self.unexpected else []
        )
        return found + ([self.broken] if self.broken else [])

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self) | {"violations": self.violations, "faults": [asdict(f) for f in per_fault(self.injections)]}


@dataclass(frozen=True)
class FaultFigures:
    """All injections of one fault."""

    fault: str
    injected: int
    recovered: int
    p50_s: float | None
    p99_s: float | None
    max_s: float | None
    recovered_max_s: float | None
    first_results_s: Sequence[float] = field(default=(), repr=False)


def per_fault(injections: Sequence[Injection]) -> list[FaultFigures]:
    """The figures of each fault, in the order of their names."""
    figures = []
    for name in sorted({i.fault for i in injections}):
        those = [i for i in injections if i.fault == name]
        firsts = sorted(i.first_result_s for i in those if i.first_result_s is not None)
        recoveries = [i.recovered_s for i in those if i.recovered_s is not None]
        recovered = sum(i.recovered_s is not None and not i.problem for i in those)
        p50, p99, most = (_quantile(firsts, q) for q in (0.5, 0.99, 1.0))
        figures.append(FaultFigures(name, len(those), recovered, p50, p99, most, max(recoveries, default=None), firsts))
    return figures


def _quantile(ordered: Sequence[float], q: float) -> float | None:
    """The smallest value that at least the share `q` does not exceed."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else None

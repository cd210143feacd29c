"""The report as tables."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.chaos.battery import caught
from tests.chaos.outcome import Outcome, per_fault

BALANCE = (
    "acknowledged", "answered", "lost", "repeated", "different", "out_of_order", "wrong", "uninvited", "letters_lost",
    "letters_repeated", "in_named_gaps", "uncertain", "sent_twice", "job_rows_lost", "job_rows_repeated",
    "job_rows_wrong",
)  # fmt: skip


def as_text(outcome: Outcome, width: int = 120) -> str:
    """Tables of the faults and of the ledger, and the violations."""
    out = io.StringIO()
    console = Console(file=out, width=width)
    bug = f", bug {outcome.bug}" if outcome.bug else ""
    console.print(f"\n{outcome.guarantee}, seed {outcome.seed}{bug}, {outcome.duration_s:.0f} s; logs: {outcome.logs}")
    console.print(_faults(outcome))
    console.print(_counts("ledger", [(name, getattr(outcome.balance, name)) for name in BALANCE]))
    console.print(_counts("totals", sorted(outcome.totals.items())))
    console.print(_counts("exits of workers, by cause", sorted(outcome.exits.items())))
    for violation in outcome.violations:
        console.print(f"VIOLATED  {violation}", markup=False, highlight=False)
    if not outcome.violations:
        console.print("everything held")
    return out.getvalue()


def _faults(outcome: Outcome) -> Table:
    table = Table("fault", *_NUMBERS, title="faults (seconds to the first result after it, and to recovery)")
    for f in per_fault(outcome.injections):
        numbers = (f.p50_s, f.p99_s, f.max_s, f.recovered_max_s)
        table.add_row(f.fault, str(f.injected), str(f.recovered), *map(_seconds, numbers))
    return table


_NUMBERS = ("injected", "recovered", "p50", "p99", "max", "recovered max")


def _counts(title: str, counts: Sequence[tuple[str, int]]) -> Table:
    table = Table(title, "count")
    for name, count in counts:
        table.add_row(name.replace("_", " "), f"{count:,}")
    return table


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"


def bugs_as_text(outcomes: Sequence[Outcome], width: int = 160) -> str:
    """Which bug was detected by which check."""
    out = io.StringIO()
    table = Table("seeded bug", "guarantee", "seconds", "caught by", "further violations")
    for outcome in outcomes:
        said, others = caught(outcome) or "NOT CAUGHT", "; ".join(text[:60] for text in outcome.violations[:3])
        table.add_row(outcome.bug, outcome.guarantee, f"{outcome.duration_s:.0f}", said, others)
    Console(file=out, width=width).print(table)
    return out.getvalue()

"""The battery: a broker, and experiments on it one after the other."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.chaos.broker import ClusterKafka, Kafka, ProxiedKafka
from tests.chaos.experiment import Report, run
from tests.chaos.faults import Fault, all_faults
from tests.chaos.outcome import Outcome
from tests.chaos.schedule import alone, in_order, mixed
from tests.chaos.seeded_bugs import BUGS, Bug
from tests.chaos.system import Experiment

GUARANTEES = ("at_least_once", "exactly_once")
ALONE_SHARE = 0.5
"""Of the time, for faults one by one; the rest is for the mixture."""
LENGTHY_FROM_S = 600.0
"""Time for one guarantee from which on faults of half a minute and more are drawn."""
OF_CLUSTERS = frozenset({"nodes", "worker kill -9", "zombie", "state lost"})
NAMED_OF_CLUSTERS = frozenset({"rebalance_storm", "sigterm", "bad_rollout", "raising_rollout"})
"""Rows and names of the faults that a cluster meets: none of them needs the proxy, or an only broker."""
BUG_PER_SECOND, BUG_LOAD_S = 600, 3.0
QUICK_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {"session_timeout_s": 4, "heartbeat_interval_s": 0.3, "request_timeout_s": 8}
)
"""Of workers in short runs: the dead are noticed sooner."""


@dataclass(frozen=True)
class Options:
    """The options of a run of the battery."""

    seed: int
    seconds: float
    """For all guarantees together."""
    guarantees: Sequence[str] = GUARANTEES
    faults: Sequence[str] = ()
    """The faults to run, in this order, once each; empty: all, first one by one and then mixed."""
    slots: int = 3
    per_second: int = 1_000
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the workers by name."""
    nodes: int = 1
    """Brokers. Faults of nodes are drawn with several, and those of the only broker and of its network with one."""
    cached: bool = False
    """Whether the model of most requests has a prediction cache."""


@contextmanager
def broker(directory: Path, nodes: int = 1) -> Iterator[Kafka]:
    """A running broker with its proxy, or a cluster, for any number of experiments."""
    kafka = ProxiedKafka(directory / "kafka") if nodes == 1 else ClusterKafka(directory / "kafka", nodes)
    kafka.network.start()
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.stop()
        kafka.network.stop()


@contextmanager
def kept_if_wanted() -> Iterator[Path]:
    """A temporary directory. It is removed after a successful run; an exception in the block keeps it."""
    directory = Path(tempfile.mkdtemp(prefix="inferd-chaos-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def run_battery(kafka: Kafka, options: Options, directory: Path, report: Report) -> list[Outcome]:
    """One experiment for each guarantee."""
    share_s = options.seconds / len(options.guarantees)
    outcomes = []
    for guarantee in options.guarantees:
        experiment = Experiment(
            guarantee, options.seed, "chaos", options.slots, options.per_second,
            lengthy=share_s >= LENGTHY_FROM_S, cached=options.cached, routed=True, settings=options.settings,
        )  # fmt: skip
        steps, until_s = steps_of(options, lengthy=experiment.lengthy), share_s
        if options.faults:
            until_s = float("inf")
        outcomes.append(run(kafka, experiment, steps, directory / guarantee, until_s=until_s, report=report))
    return outcomes


def steps_of(options: Options, *, lengthy: bool) -> Iterable[Any]:
    """The schedule: the named faults once; or each fault one by one, for its share of the time, and then mixed without
    end."""
    faults = all_faults()
    if options.faults:
        return in_order([faults[name] for name in options.faults], options.seed)
    drawn: list[Fault] = [
        fault for fault in faults.values() if (lengthy or not fault.lengthy) and _is_of(fault, options.nodes)
    ]
    alone_s = ALONE_SHARE * options.seconds / len(options.guarantees)
    return itertools.chain(_while_time(alone(drawn, options.seed), alone_s), mixed(drawn, options.seed))


def _is_of(fault: Fault, nodes: int) -> bool:
    """Whether a fault is drawn for so many brokers."""
    if nodes == 1:
        return fault.row != "nodes"
    return fault.row in OF_CLUSTERS or fault.name in NAMED_OF_CLUSTERS


def _while_time(steps: Iterable[Any], seconds: float) -> Iterator[Any]:
    deadline = time.monotonic() + seconds
    for step in steps:
        if time.monotonic() > deadline:
            return
        yield step


def run_bugs(kafka: Kafka, names: Sequence[str], seed: int, directory: Path, report: Report) -> list[Outcome]:
    """One short experiment for each seeded bug, with the faults that reveal it."""
    return [run_bug(kafka, BUGS[name], seed, directory, report) for name in names or BUGS]


def run_bug(kafka: Kafka, bug: Bug, seed: int, directory: Path, report: Report) -> Outcome:
    """Checks that the ledger counts the failure that the bug is expected to cause: see `caught`."""
    faults = all_faults()
    name = f"bug-{bug.name.replace('_', '-')}"
    experiment = Experiment(
        bug.guarantee, seed, name, 2, BUG_PER_SECOND, brief=True, bug=bug.name, routed=bug.routed,
        settings={**QUICK_SETTINGS, "request_timeout_s": 15},
    )  # fmt: skip
    steps = in_order([faults[name] for name in bug.faults], seed, pause_s=BUG_LOAD_S)
    outcome = run(kafka, experiment, steps, directory / bug.name, settles_within_s=6, report=lambda _: None)
    report(f"{bug.name}: {caught(outcome) or 'NOT CAUGHT'} ({outcome.duration_s:.0f} s)")
    return outcome


def caught(outcome: Outcome) -> str | None:
    """The failure that the ledger counted for a seeded bug, and the faults before it; None if there was none. Other
    problems do not count: a machine under load recovers slowly without any bug."""
    bug = BUGS[outcome.bug or ""]
    count = outcome.rollout_problems if bug.shows_as == "rollouts" else getattr(outcome.balance, bug.shows_as)
    return f"{count} {bug.shows_as} after {', '.join(bug.faults) or 'nothing but load'}" if count else None

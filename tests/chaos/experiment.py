"""Runs an experiment: starts the system, injects one fault after the other, waits until idle, checks the ledger."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from confluent_kafka import KafkaException

from inferd.schemas.errors import ModelServingError
from tests.chaos.broker import Kafka
from tests.chaos.faults import Fault, all_faults
from tests.chaos.outcome import Injection, Outcome
from tests.chaos.schedule import Step
from tests.chaos.system import Experiment, System

Report = Callable[[str], None]
RESCUED_WITHIN_S = 120.0
BUG_RECOVERS_WITHIN_S = 25.0


def run(
    kafka: Kafka,
    experiment: Experiment,
    steps: Iterable[Step],
    directory: Path,
    *,
    until_s: float = float("inf"),
    settles_within_s: float = 90.0,
    report: Report = print,
) -> Outcome:
    """Runs the steps that start within `until_s` seconds; returns the outcome. With a seeded bug the experiment ends at
    the first problem."""
    started = time.monotonic()
    system = System(kafka, experiment, directory)
    injections: list[Injection] = []
    broken = None
    try:
        system.start()
        for number, step in zip(itertools.count(1), steps):
            if time.monotonic() - started > until_s:
                break
            injections.append(inject(system, step))
            report(f"{experiment.guarantee} {number}: {describe(injections[-1])}")
            system.check()
            if injections[-1].problem and experiment.bug:
                break
        system.settle(settles_within_s)
    except (AssertionError, OSError, KafkaException, ModelServingError) as error:
        broken = f"the experiment was aborted, so pending requests count as lost: {type(error).__name__}: {error}"
    finally:
        system.close()
    return _outcome(system, injections, time.monotonic() - started, broken)


def _outcome(system: System, injections: list[Injection], duration_s: float, broken: str | None) -> Outcome:
    experiment = system.experiment
    return Outcome(
        guarantee=experiment.guarantee,
        seed=experiment.seed,
        bug=experiment.bug,
        duration_s=duration_s,
        injections=injections,
        balance=system.ledger.balance(system.jobs.account),
        totals=_totals(system, injections),
        exits=dict(system.fleet.exits),
        unexpected=system.fleet.unexpected,
        broken=broken,
        logs=str(system.directory),
    )


def _totals(system: System, injections: Sequence[Injection]) -> dict[str, int]:
    rows = [all_faults()[injection.fault].row for injection in injections]
    exits = system.fleet.exits
    return {
        "kills": sum(count for cause, count in exits.items() if cause.endswith(": -9")),
        "network faults": rows.count("network"),
        "rebalances": system.rebalances(),
        "aborted transactions": system.load.aborted_transactions if hasattr(system, "load") else 0,
        **system.totals,
    }


def inject(system: System, step: Step) -> Injection:
    """Injects one fault and waits for recovery."""
    fault = all_faults()[step.fault]
    system.run_on(step.pause_s)
    system.fleet.supervise()
    pending, marks = system.ledger.pending, len(system.watches)
    problem, recovered_s = None, None
    try:
        _inject(system, fault, step)
        patience_s = fault.recovers_within_s if system.experiment.bug is None else BUG_RECOVERS_WITHIN_S
        recovered_s = _recover(system, marks, patience_s)
    except (AssertionError, OSError, KafkaException, ModelServingError) as error:
        problem = f"{type(error).__name__}: {error}"[:700]
        if system.experiment.bug is None:
            print(f"{step.fault}: {problem}", flush=True)
            rescue(system)
    watch = system.watches[marks] if len(system.watches) > marks else None
    return Injection(
        fault.name, step.seed, pending, step.killed_too_after_s is not None,
        watch.first_result_s if watch is not None else None, recovered_s, problem,
    )  # fmt: skip


def _recover(system: System, marks: int, within_s: float) -> float:
    watch = system.watches[-1] if len(system.watches) > marks else system.mark()
    system.recover(watch, within_s)
    return time.time() - watch.since


def _inject(system: System, fault: Fault, step: Step) -> None:
    rng = random.Random(step.seed)
    killer = None
    if step.killed_too_after_s is not None:
        killer = threading.Timer(step.killed_too_after_s, _kill_one, [system, random.Random(step.seed + 1)])
        killer.start()
    try:
        fault.inject(system, rng)
    finally:
        if killer is not None:
            killer.join()


def _kill_one(system: System, rng: random.Random) -> None:
    with system.fleet.lock:
        slot = rng.randrange(len(system.fleet.slots))
        system.fleet.kill(system.fleet.slots[slot])
        system.fleet.restart(slot)


def rescue(system: System) -> None:
    """Restarts all workers after a fault without recovery, so that the remaining faults can still be injected."""
    system.kafka.network.heal()
    if not system.kafka.running:
        system.kafka.start()
    for slot, worker in enumerate(system.fleet.slots):
        if worker.process.poll() is None:
            system.fleet.kill(worker)
        system.fleet.restart(slot)
    system.recover(system.reader.watch(), RESCUED_WITHIN_S)


def describe(injection: Injection) -> str:
    """One line about a step."""
    first = "-" if injection.first_result_s is None else f"{injection.first_result_s:.2f} s"
    recovered = "-" if injection.recovered_s is None else f"{injection.recovered_s:.1f} s"
    killed = " + kill" if injection.killed_too else ""
    text = f"{injection.fault}{killed}: first result after {first}, recovered after {recovered}"
    return f"{text}  PROBLEM: {injection.problem}" if injection.problem else text

"""Faults of workers: killed, frozen, stopped, joined and left."""

from __future__ import annotations

import random
import signal
from collections.abc import Collection, Sequence

from tests.chaos import kill_points
from tests.chaos.data_faults import results_unacknowledged
from tests.chaos.faults import Inject, fault
from tests.chaos.fleet import freeze, thaw, wait_for_places
from tests.chaos.ledger import Place
from tests.chaos.proxy import END_TXN, OFFSET_COMMIT
from tests.chaos.system import System
from tests.fixtures.workers import Worker, until

KILLED_WITHIN_S = 20.0
TAKEN_WITHIN_S = 20.0
LEAVES_WITHIN_S = 20.0
HELD_ON_S = 1.5
EXIT_ZOMBIE, EXIT_SECOND_SIGNAL = 72, 128 + signal.SIGTERM


def victim(system: System, rng: random.Random, slots: Sequence[int] = ()) -> tuple[int, Worker, frozenset[Place]]:
    """A random worker of these slots, or of all: its slot, and its partitions."""
    slot = rng.choice(slots or range(len(system.fleet.slots)))
    worker = system.fleet.slots[slot]
    return slot, worker, system.fleet.places(worker)


@fault("worker kill -9")
def kill_at_random(system: System, rng: random.Random) -> None:
    """SIGKILL at any moment."""
    with system.fleet.lock:
        slot, worker, places = victim(system, rng)
        system.run_on(rng.uniform(0, 0.5))
        system.mark(places)
        system.fleet.kill(worker)
        system.fleet.restart(slot)


def _kill_at(point: str) -> Inject:
    def inject(system: System, rng: random.Random) -> None:
        slot, worker, places = victim(system, rng)
        kill_points.arm(worker.process.pid, system.fleet.switch(worker.name), point, rng.randint(1, 3))
        until(lambda: worker.process.poll() is not None, KILLED_WITHIN_S, f"{worker.name} passed {point}")
        system.mark(places)
        system.fleet.ended(worker, f"kill -9 {point}", -signal.SIGKILL)
        system.fleet.restart(slot)

    inject.__name__ = f"kill_{point}"
    inject.__doc__ = f"SIGKILL {point.replace('_', ' ')}."
    return inject


for _point in kill_points.POINTS:
    fault("worker kill -9")(_kill_at(_point))


@fault("zombie")
def zombie(system: System, rng: random.Random) -> None:
    """SIGSTOP for longer than the session; others take over; on SIGCONT it leaves with code 72."""
    slot, worker, places = victim(system, rng)
    freeze(worker)
    watch = system.mark(places)
    try:
        system.run_on(system.fleet.session_timeout_s + rng.uniform(1.5, 3.5))
        if system.experiment.bug is None:
            until(lambda: _others_have(system, worker, places) or watch.first_result_s, TAKEN_WITHIN_S, "a takeover")
    finally:
        thaw(worker)
        system.count("zombies")
        _leave(system, slot, worker)


def _leave(system: System, slot: int, worker: Worker) -> None:
    """The zombie exits by itself, unless the seeded bug prevents it; another worker takes its slot."""
    try:
        if system.experiment.bug is None or worker.process.poll() is not None:
            system.fleet.ended(worker, "SIGCONT of a zombie", EXIT_ZOMBIE, LEAVES_WITHIN_S)
        else:
            system.run_on(3)
            system.fleet.kill(worker)
    finally:
        system.fleet.restart(slot)


def _others_have(system: System, worker: Worker, places: Collection[Place]) -> bool:
    others = [system.fleet.places(other) for other in system.fleet.slots if other is not worker]
    return bool(frozenset().union(*others) & frozenset(places))


@fault("zombie")
def short_freeze(system: System, rng: random.Random) -> None:
    """SIGSTOP for less than the session timeout: the worker resumes normally."""
    _, worker, places = victim(system, rng)
    freeze(worker)
    try:
        system.run_on(system.fleet.session_timeout_s * rng.uniform(0.2, 0.4))
    finally:
        system.mark(places)
        thaw(worker)


@fault("rebalance storm", recovers_within_s=60.0)
def rebalance_storm(system: System, rng: random.Random) -> None:
    """Workers join and leave every few seconds."""
    rounds, joined = (1 if system.brief else rng.randint(2, 4)), []
    answered = system.ledger.answered
    try:
        for _ in range(rounds):
            joined.append(worker := system.fleet.launch(len(system.fleet.slots)))
            wait_for_places(system.fleet, worker)
            system.run_on(rng.uniform(0.5, 1) if system.brief else rng.uniform(2, 5))
            system.fleet.terminate(joined.pop())
            system.count("joined and left")
    finally:
        for worker in joined:
            system.fleet.kill(worker)
    system.mark()
    assert system.ledger.answered > answered, "nothing was answered during the storm"


@fault("rebalance storm", recovers_within_s=90.0)
def rebalance_while_unacknowledged(system: System, _rng: random.Random) -> None:
    """A worker joins while results are not acknowledged: revoked partitions cannot be finished in time."""
    direct = len(system.fleet.slots) | 1
    with results_unacknowledged(system):
        system.run_on(1)
        joined = system.fleet.launch(direct)
        try:
            wait_for_places(system.fleet, joined)
        except AssertionError:
            system.fleet.kill(joined)
            raise
    system.run_on(1)
    system.mark()
    system.fleet.terminate(joined)


@fault("network", recovers_within_s=90.0)
def late_commit(system: System, rng: random.Random) -> None:
    """A commit is under way for so long that its partitions have another owner when it arrives: it has no effect."""
    _, worker, places = victim(system, rng, system.fleet.proxied_slots)
    joined = system.fleet.launch(len(system.fleet.slots) | 1)
    try:
        until(lambda: "broker_reached" in joined.text(), 40, f"{joined.name} starts")
        released = worker.text().count("partitions_released")
        system.proxy.held_requests = frozenset({OFFSET_COMMIT, END_TXN})
        until(lambda: worker.text().count("partitions_released") > released, 40, f"{worker.name} gives partitions up")
        system.run_on(HELD_ON_S)
        system.proxy.heal()
        wait_for_places(system.fleet, joined)
        system.run_on(0.5)
        system.mark(places)
        system.fleet.terminate(joined)
    finally:
        system.proxy.heal()
        if joined.process.poll() is None:
            system.fleet.kill(joined)


@fault("SIGTERM")
def sigterm(system: System, rng: random.Random) -> None:
    """SIGTERM under load: the worker finishes, leaves and ends with 0 within its deadline."""
    slot, worker, places = victim(system, rng)
    system.mark(places)
    try:
        system.fleet.terminate(worker)
    finally:
        system.fleet.restart(slot)


@fault("SIGTERM")
def sigterm_twice(system: System, rng: random.Random) -> None:
    """A stop that cannot finish, and a second SIGTERM: the worker exits at once and commits nothing unfinished."""
    slot, worker, places = victim(system, rng, system.fleet.proxied_slots)
    try:
        with results_unacknowledged(system):
            system.run_on(1)
            worker.process.send_signal(signal.SIGTERM)
            system.run_on(1.5)
            assert worker.process.poll() is None, "it stopped though its results were not acknowledged"
            worker.process.send_signal(signal.SIGTERM)
            system.fleet.ended(worker, "SIGTERM twice", EXIT_SECOND_SIGNAL, within_s=3)
    finally:
        system.mark(places)
        system.fleet.restart(slot)

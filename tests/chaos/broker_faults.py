"""Faults of the broker: killed, stopped, frozen, started late."""

from __future__ import annotations

import os
import random
import signal

from tests.chaos.faults import Inject, fault
from tests.chaos.fleet import status
from tests.chaos.system import System
from tests.fixtures.workers import until

UNREADY_AFTER_S = 12.0
"""After an outage of this duration every worker must be unready."""


@fault("broker", recovers_within_s=90.0, bears_kills=True)
def broker_kill(system: System, rng: random.Random) -> None:
    """SIGKILL, and a new broker on the same data after a while."""
    with system.broker_absent(kill=True):
        system.run_on(rng.uniform(0, 2 if system.brief else 6))
        all_live(system)
    system.mark()


@fault("broker", recovers_within_s=90.0, bears_kills=True)
def broker_sigterm(system: System, rng: random.Random) -> None:
    """A graceful stop, and a new broker on the same data after a while."""
    with system.broker_absent(kill=False):
        system.run_on(rng.uniform(0, 2 if system.brief else 6))
        all_live(system)
    system.mark()


def _freeze(seconds: float, name: str, *, lengthy: bool) -> Inject:
    def inject(system: System, _rng: random.Random) -> None:
        pid = system.kafka.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            system.run_on(seconds)
            all_live(system)
            if seconds > UNREADY_AFTER_S:
                assert not any(status(w).get("ready") for w in system.fleet.slots), "ready without a broker"
        finally:
            os.kill(pid, signal.SIGCONT)
            system.count("broker freezes")
            system.mark()

    inject.__name__ = name
    inject.__doc__ = f"SIGSTOP for {seconds:g} s."
    return fault("broker", recovers_within_s=90.0, lengthy=lengthy, bears_kills=True)(inject)


_freeze(5, "broker_freeze", lengthy=False)
_freeze(30, "broker_freeze_30_s", lengthy=True)
_freeze(70, "broker_freeze_70_s", lengthy=True)


@fault("broker absent at start", recovers_within_s=90.0)
def broker_absent_at_start(system: System, _rng: random.Random) -> None:
    """Workers that start before the broker report that they wait for it, and work once it is there."""
    for worker in system.fleet.slots:
        system.fleet.kill(worker)
    with system.broker_absent(kill=True):
        for slot in range(len(system.fleet.slots)):
            system.fleet.restart(slot)
        for worker in system.fleet.slots:
            until(lambda: _waits(status(worker)), 30, f"{worker.name} says what it waits for")  # noqa: B023
        system.run_on(1 if system.brief else 30 if system.experiment.lengthy else 8)
        all_live(system)
    system.mark()


def _waits(said: dict[str, object]) -> bool:
    return "waiting for the broker" in str(said.get("unready"))


def all_live(system: System) -> None:
    """Every worker that runs answers its liveness probe."""
    for worker in system.fleet.slots:
        if worker.process.poll() is None and status(worker):
            assert worker.get("/livez")[0] == 200, f"{worker.name} is not live"

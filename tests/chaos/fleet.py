"""The workers of an experiment: real processes, each in a slot, stopped and restarted, with the cause of each exit."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.chaos import kill_points
from tests.chaos.ledger import PARTITIONS, Place
from tests.chaos.seeded_bugs import BUG
from tests.fixtures.workers import Worker, until

COMMAND = (sys.executable, "-m", "tests.chaos.launch", "worker")
SESSION_TIMEOUT_S = 6.0
SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "session_timeout_s": SESSION_TIMEOUT_S,
        "heartbeat_interval_s": 0.5,
        "request_timeout_s": 10,
        "drain_timeout_s": 20,
        "topic_partitions": PARTITIONS,
    }
)
ENDS_WITHIN_S = 30.0


@dataclass(frozen=True)
class FleetSettings:
    """The number of workers, and how each is started."""

    bootstraps: tuple[str, ...]
    """Slot n reaches the broker at address n modulo their number."""
    namespace: str
    directory: Path
    slots: int = 2
    bug: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the worker by name, over `SETTINGS`."""


class Fleet:
    """The worker slots. `exits` counts exits by cause and code; `unexpected` lists those that no fault caused."""

    def __init__(self, settings: FleetSettings) -> None:
        self.settings = settings
        self.exits: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.slots: list[Worker] = []
        self.lock = threading.RLock()
        """Acquired by any thread that starts or stops workers."""
        self._names = itertools.count(1)
        self._expected: set[Worker] = set()

    @property
    def session_timeout_s(self) -> float:
        return float({**SETTINGS, **self.settings.settings}["session_timeout_s"])

    @property
    def proxied_slots(self) -> list[int]:
        """Slots whose workers connect through the first address, which is the proxy's."""
        return list(range(0, self.settings.slots, len(self.settings.bootstraps)))

    def start_all(self) -> None:
        self.slots = [self.launch(slot) for slot in range(self.settings.slots)]

    def launch(self, slot: int) -> Worker:
        """A new worker with the settings of a slot, which is not put into the slot."""
        chosen, name = self.settings, f"w{next(self._names)}"
        environ = {kill_points.SWITCH: str(self.switch(name))} | ({BUG: chosen.bug} if chosen.bug else {})
        settings = {"data_dir": chosen.directory / f"data{slot}", **SETTINGS, **chosen.settings}
        bootstrap = chosen.bootstraps[slot % len(chosen.bootstraps)]
        return Worker(bootstrap, chosen.namespace, chosen.directory, name, command=COMMAND, environ=environ, **settings)

    def restart(self, slot: int) -> Worker:
        """Starts a new worker in a slot whose worker has exited."""
        with self.lock:
            self.slots[slot] = self.launch(slot)
            return self.slots[slot]

    def switch(self, name: str) -> Path:
        return self.settings.directory / f"{name}.switch"

    # ------------------------------------------------------------------ ends

    def kill(self, worker: Worker) -> None:
        """SIGKILL."""
        self._expected.add(worker)
        worker.kill()
        self.exits["kill -9: -9"] += 1

    def ended(self, worker: Worker, cause: str, code: int, within_s: float = ENDS_WITHIN_S) -> None:
        """Waits until a worker has exited; fails after the deadline, or for an unexpected exit code."""
        self._expected.add(worker)
        try:
            found = worker.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill(worker)
            raise AssertionError(f"{worker.name} did not end within {within_s:g} s after {cause}") from None
        self.exits[f"{cause}: {found}"] += 1
        assert found == code, f"{worker.name} ended with {found} instead of {code} after {cause}: {worker.log}"

    def terminate(self, worker: Worker, within_s: float = ENDS_WITHIN_S) -> None:
        """SIGTERM; it must end with 0."""
        self._expected.add(worker)
        worker.process.send_signal(signal.SIGTERM)
        self.ended(worker, "SIGTERM", 0, within_s)

    def supervise(self) -> None:
        """Restarts workers that exited by themselves, and records the exits."""
        with self.lock:
            for slot, worker in enumerate(self.slots):
                code = worker.process.poll()
                if code is None or worker in self._expected:
                    continue
                self._expected.add(worker)
                self.exits[f"by itself: {code}"] += 1
                self.unexpected.append(f"{worker.name} ended with {code}: {last_line(worker)}")
                self.slots[slot] = self.launch(slot)

    def stop_all(self) -> None:
        """Stops every worker, gracefully if possible."""
        for worker in self.slots:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
                self._expected.add(worker)
        for worker in self.slots:
            try:
                self.exits[f"the end: {worker.process.wait(ENDS_WITHIN_S)}"] += 1
            except subprocess.TimeoutExpired:
                self.unexpected.append(f"{worker.name} did not end at the end")
                worker.kill()

    # ------------------------------------------------------------------ status of workers

    def ready(self) -> bool:
        """Whether every slot's worker is ready."""
        return all(w.process.poll() is None and status(w).get("ready") for w in self.slots)

    def places(self, worker: Worker) -> frozenset[Place]:
        """The input partitions that a worker has."""
        found = [p for p in status(worker).get("partitions", ()) if p["topic"].endswith(".requests")]
        return frozenset(Place(p["topic"].split(".")[1], p["partition"]) for p in found)


def status(worker: Worker) -> dict[str, Any]:
    """A worker's `/status`; empty if it does not answer."""
    if "http://127.0.0.1:" not in worker.text():
        return {}
    return worker.get("/status")[1] or {}


def last_line(worker: Worker) -> str:
    lines = [line for line in worker.text().splitlines() if "worker_left" in line or "error" in line.lower()]
    return lines[-1][:300] if lines else worker.text()[-300:]


def freeze(worker: Worker) -> None:
    os.kill(worker.process.pid, signal.SIGSTOP)


def thaw(worker: Worker) -> None:
    os.kill(worker.process.pid, signal.SIGCONT)


def wait_for_places(fleet: Fleet, worker: Worker, within_s: float = 40.0) -> None:
    until(lambda: fleet.places(worker), within_s, f"{worker.name} has partitions; see {worker.log}")

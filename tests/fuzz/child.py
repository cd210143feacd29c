"""Fuzzes one target with one method, in a separate process whose last input is always on disk, even after a crash.

Runs as `python -m tests.fuzz.child TARGET WAY --inputs N --seconds S --seed K --directory DIR`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import mmap
import os
import sys
import time
import traceback
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # a guided run instruments its imports, and has to be first
    from tests.fuzz.checks import Meter
    from tests.fuzz.target import Target

LAST_INPUT, COUNTS, FINDING = "last-input", "counts.json", "finding.txt"
INPUT_BYTES_MAX = 65_536
HANG_S = 120.0
LOOK_EVERY = 500
EXIT_FOUND = 3
POOL_MAX = 3_000
FRESH_SHARE = 0.02
SMALL_BYTES = 2_048


class LastInput:
    """A file that always contains the current input."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8 + INPUT_BYTES_MAX))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def note(self, data: bytes) -> None:
        self._memory[: 8 + len(data)] = len(data).to_bytes(8, "big") + data


def read_last_input(path: Path) -> bytes:
    """The records that a process left before it ended."""
    raw = path.read_bytes()
    return raw[8 : 8 + int.from_bytes(raw[:8], "big")]


class Run:
    """The limits of a run: a number of inputs or seconds, or the first finding."""

    def __init__(self, meter: Meter, directory: Path, inputs: int, seconds: float) -> None:
        self.meter = meter
        self.directory, self._inputs = directory, inputs
        self._began = time.monotonic()
        self._until = self._began + seconds
        self._last = LastInput(directory / LAST_INPUT)
        self._looked_at = 0

    def __call__(self, data: bytes) -> str:
        """Checks one input; ends the process at a finding."""
        data = data[:INPUT_BYTES_MAX]
        self._last.note(data)
        try:
            return self.meter(data)
        except BaseException:  # noqa: BLE001  # whatever it is, it is a finding
            (self.directory / FINDING).write_text(traceback.format_exc())
            self.finish(EXIT_FOUND)

    def over(self) -> bool:
        """Whether a limit is reached; also detects hangs."""
        if self.meter.inputs - self._looked_at >= LOOK_EVERY or self.meter.inputs == 0:
            self._looked_at = self.meter.inputs
            faulthandler.dump_traceback_later(HANG_S, exit=True)
        return self.meter.inputs >= self._inputs or time.monotonic() > self._until

    def finish(self, code: int = 0) -> NoReturn:
        """Writes the counts and ends the process."""
        meter = self.meter
        counts = {
            "inputs": meter.inputs,
            "said": dict(meter.said),
            "slowest_s": meter.slowest_s,
            "grown_bytes": meter.grown_bytes,
            "seconds": time.monotonic() - self._began,
        }
        (self.directory / COUNTS).write_text(json.dumps(counts))
        sys.stderr.flush()
        os._exit(code)


class Pool:
    """The seeds, and mutants of them that reached more code than most; new mutants are derived from these."""

    def __init__(self, target: Target, seeds: list[bytes], random: Random) -> None:
        self._target, self._random = target, random
        self._inputs, self._n_seeds = list(seeds), len(seeds)

    def next(self) -> bytes:
        """Another input."""
        from tests.fuzz.mutators import mutate

        random, target = self._random, self._target
        if target.fresh is not None and random.random() < FRESH_SHARE:
            return target.fresh(random)
        return mutate(random, random.choice(self._inputs), target.shape, lambda: random.choice(self._inputs))

    def consider(self, data: bytes, said: str) -> None:
        """Occasionally keeps an input that is small, well-formed and not nested too deeply."""
        if said in {"malformed", "too_deep"} or len(data) > SMALL_BYTES or self._random.random() > FRESH_SHARE:
            return
        if len(self._inputs) < self._n_seeds + POOL_MAX:
            self._inputs.append(data)
        else:
            self._inputs[self._random.randrange(self._n_seeds, len(self._inputs))] = data


def mutate_all(target: Target, run: Run, seeds: list[bytes], random: Random) -> None:
    """The seeds, followed by mutants without end."""
    pool = Pool(target, seeds, random)
    for data in chain(seeds, iter(pool.next, None)):
        if run.over():
            break
        pool.consider(data, run(data))


def draw_all(target: Target, run: Run, seeds: list[bytes], random: Random) -> None:
    """Inputs that hypothesis draws."""
    from tests.fuzz.drawn import draw

    draw(target, run, random)


def guide_all(target: Target, run: Run, seeds: list[bytes], random: Random) -> None:
    """Inputs guided by coverage."""
    from tests.fuzz.guided import guide

    guide(target, run, seeds, random)


WAYS: dict[str, Callable[[Any, Run, list[bytes], Random], None]] = {
    "mutated": mutate_all,
    "drawn": draw_all,
    "guided": guide_all,
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    if chosen.way == "guided":
        from tests.fuzz.guided import instrument

        instrument()
    from tests.fuzz.checks import Meter
    from tests.fuzz.corpus import kept
    from tests.fuzz.targets import all_targets

    target = all_targets()[chosen.target]
    seeds = [seed for seed in (*kept(target.name), *target.seeds()) if len(seed) <= INPUT_BYTES_MAX]
    run = Run(Meter(target), chosen.directory, chosen.inputs, chosen.seconds)
    WAYS[chosen.way](target, run, seeds, Random(chosen.seed))
    run.finish()


if __name__ == "__main__":
    main(sys.argv[1:])

"""The compiled kernels compared with bare `Booster.predict` and LightGBM's C API: µs of CPU per row, and the cost of a
kernel.

`python -m bench.kernels`: contenders alternate in one process, on one thread, over rows that are all different; medians
of all turns. Loading is measured with and without kernels, alternately.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import lightgbm
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.layouts import FEATURES
from bench.machine import CpuLedger
from inferd.streams.inference import format_named, kernels_fault, read_model, use_kernels
from inferd.streams.inference.runtime import ModelRuntime

SHAPES = ((100, 31), (500, 63), (2_000, 31))
SIZES = (1, 16, 64, 512, 2_048)
ROWS = 4_096
TRAINING_ROWS = 20_000
SEED = 20_240_229
Rows = NDArray[np.float64]
Predict = Callable[[Rows], object]


@dataclass(frozen=True, slots=True)
class Line:
    """Medians of one model and batch size, µs of CPU per row."""

    model: str
    size: int
    booster: float
    library: float
    kernel: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 there are no kernels."""
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--models", type=int, default=len(SHAPES), help="how many of the models, smallest first")
    options = parser.parse_args(arguments)
    console, ledger = Console(), CpuLedger()
    if (fault := kernels_fault()) is not None:
        console.print(f"bench: there are no kernels: {fault}", markup=False)
        return 1
    for trees, leaves in SHAPES[: options.models]:
        text = train(trees, leaves)
        lines, loads = measure(f"{trees} x {leaves}", text, options.turns)
        show(console, lines)
        console.print(f"load: {loads[False]:.0f} ms by the library alone, {loads[True]:.0f} ms with the kernel")
    console.print(f"others' load: {ledger.verdict()}")
    return 0


def train(trees: int, leaves: int) -> bytes:
    """The text of a binary model over 30 float64 features."""
    random = np.random.default_rng(SEED)
    rows = random.normal(size=(TRAINING_ROWS, FEATURES))
    signal = rows @ random.normal(size=FEATURES) + np.sin(rows[:, 0] * rows[:, 1]) * 3
    parameters = {
        "objective": "binary", "num_leaves": leaves, "min_data_in_leaf": 5, "learning_rate": 0.02, "seed": SEED,
        "deterministic": True, "force_row_wise": True, "verbosity": -1,
    }  # fmt: skip
    labels = signal + random.normal(size=TRAINING_ROWS) > 0
    text: str = lightgbm.train(parameters, lightgbm.Dataset(rows, labels), trees).model_to_string()
    return text.encode()


def measure(name: str, text: bytes, turns: int) -> tuple[list[Line], dict[bool, float]]:
    """The lines of one model, and milliseconds that loading takes with kernels (True) and without."""
    loads: dict[bool, list[float]] = {True: [], False: []}
    runtimes: dict[bool, ModelRuntime] = {}
    for _ in range(turns):
        for on, taken in loads.items():
            use_kernels(on)
            begin = time.thread_time()
            runtimes[on] = format_named("lightgbm").load(text, read_model(text), 1)
            taken.append((time.thread_time() - begin) * 1e3)
    use_kernels(True)
    booster = lightgbm.Booster(model_str=text.decode())
    contenders: list[Predict] = [
        lambda rows: booster.predict(rows, num_threads=1),
        lambda rows: runtimes[False].predict(rows, ("prediction",)),
        lambda rows: runtimes[True].predict(rows, ("prediction",)),
    ]
    matrix = np.random.default_rng(7).normal(size=(ROWS, FEATURES))
    check(contenders, matrix[:512], runtimes[True])
    lines = [Line(name, size, *turn_by_turn(contenders, matrix, size, turns)) for size in SIZES]
    return lines, {on: median(values) for on, values in loads.items()}


def check(contenders: Sequence[Predict], matrix: Rows, runtime: ModelRuntime) -> None:
    """Check that all return the same bytes, and that the last one uses the kernel."""
    assert getattr(runtime, "kernel_fault", "none") is None
    expected = np.asarray(contenders[0](matrix))
    for contender in contenders[1:]:
        found = contender(matrix)
        assert isinstance(found, dict)
        assert found["prediction"].tobytes() == expected.tobytes()


def turn_by_turn(contenders: Sequence[Predict], matrix: Rows, size: int, turns: int) -> list[float]:
    """Median µs per row of each."""
    batches = [matrix[first : first + size] for first in range(0, ROWS, size)]
    batches = batches[: max(4, 1_024 // size)]
    taken: list[list[float]] = [[] for _ in contenders]
    for turn in range(turns):
        for place in range(len(contenders)):
            number = (turn + place) % len(contenders)
            begin = time.thread_time()
            for batch in batches:
                contenders[number](batch)
            taken[number].append((time.thread_time() - begin) * 1e6 / size / len(batches))
    return [median(values) for values in taken]


def show(console: Console, lines: Sequence[Line]) -> None:
    """One table per model."""
    table = Table(
        "model", "rows a call", "Booster.predict", "C API", "kernel", "Booster.predict / kernel", "C API / kernel"
    )
    for line in lines:
        figures = (f"{value:.2f}" for value in (line.booster, line.library, line.kernel))
        ratios = (f"{value / line.kernel:.1f}" for value in (line.booster, line.library))
        table.add_row(line.model, f"{line.size:,}", *figures, *ratios)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

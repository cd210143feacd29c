"""The speed of a batch job, compared with `Booster.predict` on the same rows in memory, with one and two workers.

`python -m bench.jobs`: a job of float64 rows, submitted while workers are running. The time is taken from the job's
status, from its first chunk to its end, and includes submission, scoring, publishing and accounting.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

import lightgbm
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.lab import Lab, open_lab
from bench.layouts import FEATURES, MODEL_ID
from bench.machine import CpuLedger
from bench.peers.inferd_worker import running_worker
from inferd import SyncClient

TIMEOUT_S = 600.0
Rows = NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; exit code 0, or 1 if a measurement is invalid."""
    parser = argparse.ArgumentParser(prog="python -m bench.jobs", description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers to measure")
    parser.add_argument("--broker", metavar="HOST:PORT", help="a running Kafka; default: an embedded one")
    options = parser.parse_args(arguments)
    console, ledger = Console(), CpuLedger()
    rows = np.random.default_rng(7).normal(size=(options.rows, FEATURES))
    try:
        with open_lab(options.broker) as lab:
            lab.prepare_tenant("jobs", with_inferd=True)
            figures = _measure(lab, rows, options.workers, options.repeats)
    except BenchError as error:
        console.print(f"bench: {error.message}", markup=False)
        return 1
    _show(console, figures, options.rows)
    console.print(f"load of other processes: {ledger.verdict()}")
    return 0


def _measure(lab: Lab, rows: Rows, workers: Sequence[int], repeats: int) -> dict[str, list[float]]:
    """Rows per second of each variant, by repeat."""
    booster = lightgbm.Booster(model_file=lab.model.path)
    figures: dict[str, list[float]] = {"Booster.predict, one thread": []}
    for repeat in range(repeats):
        started = time.perf_counter()
        expected = np.asarray(booster.predict(rows, num_threads=1))
        figures["Booster.predict, one thread"].append(len(rows) / (time.perf_counter() - started))
        for count in workers:
            rate = _job(lab, rows, expected, count, f"job-{repeat}-{count}")
            figures.setdefault(f"job, {count} worker{'s' * (count > 1)}", []).append(rate)
    return figures


def _job(lab: Lab, rows: Rows, expected: Rows, workers: int, job_id: str) -> float:
    """Rows per second of one job; raises `BenchError` if a prediction is wrong."""
    task = lab.task("jobs", "jobs")
    with ExitStack() as running:
        for _ in range(workers):
            running.enter_context(running_worker(task))
        client = running.enter_context(SyncClient(task.bootstrap_servers, namespace=task.namespace, tenant=task.tenant))
        client.submit_job(MODEL_ID, rows, job_id=job_id)
        for status in client.watch_job(job_id):
            last = status
        if last.status != "completed" or last.started_at is None or last.finished_at is None:
            raise BenchError(f"job {job_id} is {last.status}")
        for chunk in client.job_result_chunks(job_id):
            predictions = chunk.outputs["prediction"]
            if predictions != expected[chunk.first_row : chunk.first_row + len(predictions)].tolist():
                raise BenchError(f"job {job_id}: chunk {chunk.chunk} is wrong")
        return len(rows) / ((last.finished_at - last.started_at) / 1_000)


def _show(console: Console, figures: dict[str, list[float]], rows: int) -> None:
    table = Table(
        title=f"A job of {rows:,} rows of {FEATURES} float64: median (range) over repeats", title_justify="left"
    )
    for heading in ("", "rows/s", "of Booster.predict", "of one worker"):
        table.add_column(heading, justify="left" if not heading else "right")
    bare = figures["Booster.predict, one thread"]
    one = figures.get("job, 1 worker")
    for name, rates in figures.items():
        shown = f"{median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"
        table.add_row(name, shown, _ratio(rates, bare), _ratio(rates, one) if one and name.startswith("job") else "")
    console.print(table)


def _ratio(rates: Sequence[float], others: Sequence[float]) -> str:
    ratios = [mine / other for mine, other in zip(rates, others, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    sys.exit(main())

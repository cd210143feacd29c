"""The batch job of the demo: all flights as one Parquet file."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferd.client import Client
from inferd.daemon.cli.jobs.files import open_job_rows
from inferd.daemon.cli.read_ahead import read_ahead
from inferd.daemon.demo.flights import FlightSet
from inferd.daemon.demo.narration import Narrator, Step
from inferd.daemon.demo.training import TrainedModel
from inferd.daemon.row_files import FileOptions, Layout
from inferd.schemas.jobs import JobStatus
from inferd.schemas.models import Manifest

FILE = "flights.parquet"
SHOWN_STATUSES = 5
MESSAGES_AHEAD = 4


@dataclass(frozen=True, slots=True)
class FlightJob:
    """A job that has ended."""

    status: JobStatus
    seconds: float
    """Time from reading the file to the last scored row."""
    rows: NDArray[np.int64]
    """Row numbers in the order of the results."""
    scores: NDArray[np.float64]
    """Predictions of these rows, NaN if missing."""


async def run_job(client: Client, manifest: Manifest, flights: FlightSet, folder: Path, step: Step) -> FlightJob:
    """Submits the flights as a Parquet file in `folder`, watches the job and reads its results."""
    path = folder / FILE
    flights.features.to_parquet(path, index=False)
    step.say(f"a batch job of {len(flights):,} flights in one Parquet file ({path.stat().st_size / 1_000:,.0f} kB)")
    started = time.monotonic()
    job_id = await _submit(client, manifest, path)
    status = await _watch(client, job_id, step, started)
    seconds = time.monotonic() - started
    results = [row async for row in client.job_results(job_id)]
    return FlightJob(
        status,
        seconds,
        np.array([row.row for row in results], dtype=np.int64),
        np.array([row.outputs.get("prediction", np.nan) for row in results], dtype=np.float64),
    )


async def _submit(client: Client, manifest: Manifest, path: Path) -> str:
    """Submits the file in the same way as `inferd jobs submit`."""
    layout = Layout(f"{manifest.model_id}:{manifest.version}", manifest, by_position=True)
    with open_job_rows(str(path), FileOptions(), layout, sys.stdin.buffer) as rows:
        return await client.submit_job(
            layout.model, read_ahead(rows.messages, MESSAGES_AHEAD), labels={"source": path.name}
        )


async def _watch(client: Client, job_id: str, step: Step, started: float) -> JobStatus:
    """Waits for the terminal status; adds the last few statuses to the step."""
    lines: list[str] = []
    async for status in client.watch_job(job_id):
        lines.append(
            f"after {time.monotonic() - started:.1f} s  {status.status:9}  {status.input_count:>6,} rows in,"
            f" {status.processed:>6,} processed, {status.failed} failed"
        )
    for line in lines[-SHOWN_STATUSES:]:
        step.say(line)
    step.say(f"{job_id}: {status.chunks_done} chunks of {status.model_id}:{status.version}, results read in row order")
    return status


def check_job(narrator: Narrator, job: FlightJob, model: TrainedModel, flights: FlightSet) -> None:
    """Checks that each flight has its prediction, in order, and that predictions equal LightGBM's."""
    status, count = job.status, len(flights)
    done = f"{status.succeeded:,} of {count:,}"
    narrator.check(
        f"the job is {status.status}, with each flight once and in order: {done}, in {job.seconds:.1f} s",
        status.status == "completed" and job.rows.tolist() == list(range(count)),
    )
    same = int((job.scores == model.predict(flights)).sum()) if len(job.scores) == count else 0
    narrator.check(f"its results equal Booster.predict bit for bit: {same:,} of {count:,}", same == count)

"""The last act: a better version earns its traffic step by step, and a bad one is rolled back by its guards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count, islice

import numpy as np

from inferd.client import Client
from inferd.daemon.demo.flights import FlightSet
from inferd.daemon.demo.narration import Narrator
from inferd.daemon.demo.training import TrainedModel, train
from inferd.deploy import baseline_of
from inferd.schemas.labels import Label
from inferd.schemas.models import Manifest
from inferd.schemas.monitoring import WindowStats, merged
from inferd.schemas.requests import Prediction
from inferd.schemas.rollouts import Rollout
from inferd.streams.inference import manifest_of

ENVIRONMENT = {"INFERD_LABELS_WINDOW_S": "3600", "INFERD_MONITOR": "all"}
"""Settings of the worker."""
BASELINE_ROWS = 20_000
STEPS = "20%:5s:400,50%:3s:400,100%"
GUARDS = ("errors < 1%", "auc > champion - 0.15")
GUARD_REQUESTS_MIN = 300
BLOCK = 400
"""Requests of live traffic that are answered before their labels are sent."""
ENDED_WITHIN_S = 180.0
DRIFTED_SHOWN = 4
BETTER_TREES, BAD_TREES = 160, 20


async def set_baseline(client: Client, manifest: Manifest, model: TrainedModel, flights: FlightSet) -> None:
    """Compares what the version will score with the flights that it was trained on."""
    rows = flights.sample(BASELINE_ROWS).rows()
    baseline = await asyncio.to_thread(baseline_of, model.text, manifest, rows)
    await client.set_baseline(manifest.model_id, manifest.version, baseline)


async def roll_out(narrator: Narrator, client: Client, model_id: str, train_set: FlightSet, flights: FlightSet) -> None:
    """Rolls out version 2, which is better, and version 3, which learned from shuffled outcomes, on live traffic."""
    with narrator.step("train", "two more versions") as step:
        shuffled = np.random.default_rng(1).permutation(train_set.late)
        worse = FlightSet(train_set.features, shuffled, train_set.titles)
        models = [
            await asyncio.to_thread(train, train_set, BETTER_TREES),
            await asyncio.to_thread(train, worse, BAD_TREES),
        ]
        step.say(f"version 2 with {BETTER_TREES} trees, and version 3 on outcomes that were shuffled")
    for version, model in enumerate(models, 2):
        await client.deploy_model(model.text, manifest_of(model.text, model_id, version))
    await client.set_alias(model_id, "champion", 1)
    async with _traffic(client, f"{model_id}@champion", flights):
        good = await _rollout(narrator, client, model_id, 2)
        bad = await _rollout(narrator, client, model_id, 3)
    narrator.check("version 2 was promoted", good.phase == "promoted")
    guard = bad.breach.guard if bad.breach is not None else None
    narrator.check(f"version 3 was rolled back by a guard: {guard}", bad.phase == "rolled_back" and guard is not None)
    alias = next(each for key, each in (await client.models()).aliases.items() if key.alias == "champion")
    narrator.check("the champion is version 2 after both", alias.version == 2)
    await _show_drift(narrator, client, model_id)
    await _show_quality(narrator, client, model_id)


@asynccontextmanager
async def _traffic(client: Client, model: str, flights: FlightSet) -> AsyncIterator[None]:
    """Sends requests of flights, and a label for each once it is answered, until the end of the block."""
    rows, late = flights.rows(), flights.late.tolist()

    async def send() -> None:
        numbers = (number % len(rows) for number in count())
        while True:
            block = list(islice(numbers, BLOCK))
            results = [each async for each in client.predict_many(model, [rows[number] for number in block])]
            await client.send_labels(
                Label(result.id, late[number])
                for number, result in zip(block, results, strict=True)
                if isinstance(result, Prediction)
            )

    task = asyncio.create_task(send())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _rollout(narrator: Narrator, client: Client, model_id: str, version: int) -> Rollout:
    """One rollout, from its start to its end."""
    with narrator.step("rollout", f"version {version}: {STEPS}") as step:
        started = time.monotonic()
        await client.rollouts.start(
            model_id, to=version, steps=STEPS, guards=GUARDS, guard_requests_min=GUARD_REQUESTS_MIN, changed_by="demo"
        )
        step.say(f"version {version} on live traffic: {STEPS}; guards: {', '.join(GUARDS)}")
        async with asyncio.timeout(ENDED_WITHIN_S):
            statuses = [status async for status in client.rollouts.watch(model_id)]
        rollout = statuses[-1].rollout
        assert rollout is not None
        for event in rollout.events:
            step.say(f"after {max(0, event.at - rollout.started_at) / 1_000:4.1f} s  {event.what}")
        if (breach := rollout.breach) is not None:
            beside = "" if breach.champion is None else f", the champion's {breach.champion:.3f}"
            step.say(f"{breach.guard}: it was {breach.value:.3f}{beside}, over {breach.requests} requests")
        step.say(f"{rollout.phase.replace('_', ' ')} {time.monotonic() - started:.1f} s after the start")
    return rollout


async def _show_drift(narrator: Narrator, client: Client, model_id: str) -> None:
    (report,) = await client.model_drift(model_id, version=1)
    features = report.drift.features[:DRIFTED_SHOWN] if report.drift is not None else []
    narrator.table(
        "Drift: the flights of November and December beside those of January to October",
        ("feature", ">PSI", ">KS", ">values"),
        [
            (each.name, f"{each.psi:.3f}", "" if each.ks is None else f"{each.ks:.3f}", f"{each.values:,}")
            for each in features
        ],
    )
    narrator.check("the drift of each feature is known", len(features) == DRIFTED_SHOWN)


async def _show_quality(narrator: Narrator, client: Client, model_id: str) -> None:
    windows = [each for each in await client.model_windows(model_id) if each.quality.rows]
    totals = [_total(windows, version) for version in sorted({each.version for each in windows})]
    narrator.table(
        "Quality by the true delays, as labels",
        (">version", ">labelled", ">AUC", ">accuracy", ">log loss"),
        [
            (
                str(each.version), f"{each.quality.rows:,}", _number(each.quality.auc), _number(each.quality.accuracy),
                _number(each.quality.log_loss),
            )
            for each in totals
        ],
    )  # fmt: skip
    areas = {each.version: each.quality.auc or 0.0 for each in totals}
    narrator.check("labels tell the bad version from the good one", areas.get(2, 0.0) > 0.8 and areas.get(3, 1.0) < 0.7)


def _total(windows: Sequence[WindowStats], version: int) -> WindowStats:
    total = merged(each for each in windows if each.version == version)
    assert total is not None
    return total


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"

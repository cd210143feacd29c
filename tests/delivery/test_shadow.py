"""Shadow versions on a real broker: their results, and workers whose shadow version raises or hangs."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from typing import Any

import aiohttp
import lightgbm
import msgpack
import numpy as np
import pytest

from inferd import Client
from inferd.schemas.models import AliasTarget
from inferd.schemas.monitoring import WindowStats, decode_window, merged
from inferd.schemas.shadow import ShadowResult, decode_shadow_result
from inferd.streams.inference import manifest_of
from tests.fixtures.routes import ForeignTopics, feature_options, order, routes_command, row, status
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, Worker, until

REQUESTS = 400
ROWS = np.random.default_rng(5).normal(size=(REQUESTS, 10))
SHADOW = AliasTarget(1, shadow=[2])
FAULTS = {
    "raises": "raise RuntimeError('no')",
    "blocks": "time.sleep(3600)",
    "loops": "\n        while True: pass",
}
PATCHED = """
import threading, time
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
predict = LightGBMRuntime.predict
def patched(self, inputs, outputs):
    if threading.current_thread().name == 'inferd-shadow':
        {fault}
    return predict(self, inputs, outputs)
LightGBMRuntime.predict = patched
from inferd.daemon.cli import main
main()
"""
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def challenger() -> Any:
    """Another model of the same features."""
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(2_000, 10))
    parameters = {"objective": "binary", "num_leaves": 7, "verbose": -1, "num_threads": 1, "deterministic": True}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, (rows[:, 0] > 0.3).astype(int)), 10)


async def deploy(cluster: Cluster, model: TrainedModel, challenger: Any, name: str = "churn") -> None:
    """Version 1 answers, version 2 is its shadow."""
    async with Client(cluster.bootstrap, namespace=cluster.namespace) as client:
        for version, booster in ((1, model.booster), (2, challenger)):
            content = booster.model_to_string().encode()
            await client.deploy_model(content, manifest_of(content, name, version))
        await client.set_alias(name, "champion", SHADOW)


def send(cluster: Cluster, first: int, last: int) -> None:
    producer = cluster.producer()
    for number in range(first, last):
        reference = ("churn", "churn@champion", "churn:1", "churn:2")[number % 4]
        value = msgpack.packb({"id": f"r{number}", "model_id": reference, "input_data": ROWS[number].tolist()})
        producer.produce(cluster.topics.name("requests"), value, b"k%d" % number, partition=number % 3)
    assert producer.flush(30) == 0


def shadows(worker: Worker) -> dict[str, Any]:
    """What the worker says of its only shadow version; empty before it has any."""
    found = status(worker)["shadows"]
    return found[0] if found else {}


def settled(worker: Worker, asked: int) -> bool:
    """Whether every request of an alias was scored by the shadow version or dropped."""
    said = shadows(worker)
    return bool(said) and said["requests"] + sum(said["dropped"].values()) >= asked


def check_answers(cluster: Cluster, model: TrainedModel, challenger: Any) -> None:
    """Every request has the answer of the version that it named; at least once, since workers may come and go."""
    results = cluster.read("results", lambda got: len(got) >= REQUESTS, 60)
    assert len({msgpack.unpackb(record.value())["id"] for record in results}) == REQUESTS
    expected = model.booster.predict(ROWS), challenger.predict(ROWS)
    for record in results:
        result = msgpack.unpackb(record.value())
        number = int(result["id"][1:])
        assert result["version"] == (2 if number % 4 == 3 else 1)
        assert result["prediction"] == expected[result["version"] - 1][number]


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
async def test_shadow_results_have_the_values_of_both_libraries(
    cluster: Cluster, model: TrainedModel, challenger: Any, start_worker: StartWorker, guarantee: str
) -> None:
    await deploy(cluster, model, challenger)
    worker = start_worker(cluster, processing_guarantee=guarantee)
    await asyncio.to_thread(worker.wait_ready)
    for first in range(0, REQUESTS, 40):
        send(cluster, first, first + 40)
        await asyncio.to_thread(until, partial(settled, worker, first // 2 + 20), 60, "scored or dropped")
    check_answers(cluster, model, challenger)
    expected, shadow = model.booster.predict(ROWS), challenger.predict(ROWS)
    said = shadows(worker)
    scored = said["requests"]
    assert scored + sum(said["dropped"].values()) == REQUESTS // 2
    assert scored > 0
    records = await asyncio.to_thread(cluster.read, "shadow-results", lambda got: len(got) >= scored, 30)
    assert len(records) == scored
    differing = 0
    for record in records:
        result, headers = decode_shadow_result(record.value()), dict(record.headers())
        number = int(result.id[1:])
        differs = int((expected[number] >= 0.5) != (shadow[number] >= 0.5))
        outputs = {"prediction": expected[number]}, {"prediction": shadow[number]}
        assert result == ShadowResult(f"r{number}", "churn", 1, 2, *outputs, differs)
        assert number % 4 < 2
        assert (record.key(), record.partition()) == (b"k%d" % number, number % 3)
        assert headers["inferd-variant"] == b"shadow"
        assert headers["inferd-alias-revision"] == b"1"
        assert headers["content-type"] == b"application/json"
        differing += differs
    assert (said["compared"], said["differing"]) == (scored, differing)
    await over_http(cluster, worker, scored, float(expected[0]), float(shadow[0]))
    await asyncio.to_thread(until, lambda: windowed(cluster).requests == scored + 1, 30, "windows")
    window = windowed(cluster)
    assert (window.variant, window.alias_revision, window.errors) == ("shadow", 1, {})
    assert (window.rows, window.compared) == (scored + 1, scored + 1)
    assert 0 <= window.differing - differing <= 1
    await asyncio.to_thread(until, lambda: windowed(cluster).predictions.counts, 30, "predictions of the shadow")
    assert worker.stop() == 0


def windowed(cluster: Cluster) -> WindowStats:
    """The sum of what workers counted of version 2 as a shadow."""
    found = [decode_window(record.value()) for record in cluster.read_all("model-stats")]
    total = merged(window for window in found if (window.version, window.variant) == (2, "shadow"))
    return total or WindowStats(model_id="churn", version=2, minute=0)


async def over_http(cluster: Cluster, worker: Worker, before: int, expected: float, shadow: float) -> None:
    """A request over HTTP has a shadow result, and the answer of the first version."""
    async with aiohttp.ClientSession() as http:
        body = {"id": "http", "input_data": ROWS[0].tolist()}
        async with http.post(f"{worker.url}/predict/churn", json=body) as answer:
            assert (await answer.json())["prediction"] == expected
    await asyncio.to_thread(until, lambda: shadows(worker)["requests"] > before, 30, "scored")
    records = await asyncio.to_thread(cluster.read, "shadow-results", lambda got: len(got) > before, 30)
    (value,) = [value for record in records if b'"http"' in (value := record.value())]
    assert decode_shadow_result(value).shadow == {"prediction": shadow}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_shadow_that_raises_or_hangs_delays_no_answer_and_no_stop(
    cluster: Cluster, model: TrainedModel, challenger: Any, start_worker: StartWorker, fault: str
) -> None:
    await deploy(cluster, model, challenger)
    worker = start_worker(cluster, command=(sys.executable, "-c", PATCHED.format(fault=FAULTS[fault]), "worker"))
    await asyncio.to_thread(worker.wait_ready)
    send(cluster, 0, 40)
    await asyncio.to_thread(cluster.read, "results", lambda got: len(got) >= 40, 60)
    reason = "error" if fault == "raises" else "hung"
    send(cluster, 40, REQUESTS)
    check_answers(cluster, model, challenger)
    await asyncio.to_thread(until, lambda: settled(worker, REQUESTS // 2), 60, "dropped")
    said = shadows(worker)
    assert said["dropped"][reason] > 0
    assert (said["requests"], sum(said["dropped"].values())) == (0, REQUESTS // 2)
    event = "shadow_raises" if fault == "raises" else "shadow_hangs"
    assert worker.text().count(event) == 1
    if fault != "raises":
        assert "not used for 60 s" in said["last_error"]
        assert said["aside_until"] > 0
        until(lambda: windowed(cluster).errors.get("deadline_exceeded") == said["dropped"]["hung"], 30, "errors")
    assert await asyncio.to_thread(worker.stop, 20) == 0


async def test_a_shadow_that_blocks_delays_no_rebalance(
    cluster: Cluster, model: TrainedModel, challenger: Any, start_worker: StartWorker
) -> None:
    await deploy(cluster, model, challenger)
    command = (sys.executable, "-c", PATCHED.format(fault=FAULTS["blocks"]), "worker")
    workers = [start_worker(cluster, command=command)]
    await asyncio.to_thread(workers[0].wait_ready)
    send(cluster, 0, 40)
    await asyncio.to_thread(cluster.read, "results", lambda got: len(got) >= 40, 60)
    workers.append(start_worker(cluster))
    await asyncio.to_thread(workers[1].wait_ready)
    await asyncio.to_thread(until, lambda: all(status(each)["partitions"] for each in workers), 60, "a rebalance")
    send(cluster, 40, REQUESTS // 2)
    assert await asyncio.to_thread(workers[0].stop, 20) == 0
    send(cluster, REQUESTS // 2, REQUESTS)
    check_answers(cluster, model, challenger)
    assert await asyncio.to_thread(workers[1].stop, 20) == 0


async def test_records_of_routes_have_shadow_results(
    cluster: Cluster, model: TrainedModel, challenger: Any, start_worker: StartWorker
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("orders"), others.create("scored")
    await deploy(cluster, model, challenger, "demo")
    worker = start_worker(cluster, routes_sources=f"{others.prefix}.*", routes_sinks=f"{others.prefix}.*")
    await asyncio.to_thread(worker.wait_ready)
    routes_command(
        cluster, "create", "orders", "--from", source, "--to", sink, "--format", "json", "--model", "demo",
        "--start", "earliest", *feature_options(), "--field", "fraud",
    )  # fmt: skip
    producer = others.producer()
    for number in range(20):
        producer.produce(source, order(number), b"k%d" % number)
    assert producer.flush(30) == 0
    written = {record.key(): json.loads(record.value()) for record in others.read(sink, 20)}
    await asyncio.to_thread(until, lambda: settled(worker, 20), 60, "scored or dropped")
    scored = shadows(worker)["requests"]
    assert scored > 0
    expected = challenger.predict([row(number) for number in range(20)])
    for record in await asyncio.to_thread(cluster.read, "shadow-results", lambda got: len(got) >= scored, 30):
        result, number = decode_shadow_result(record.value()), int(record.key()[1:])
        answer, shadow = written[record.key()]["fraud"]["prediction"], expected[number]
        assert (result.champion, result.shadow) == ({"prediction": answer}, {"prediction": shadow})
        assert result.differing_rows == ((answer >= 0.5) != (shadow >= 0.5))
    assert worker.stop() == 0

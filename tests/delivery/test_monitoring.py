"""Windows on a real Kafka: under exactly_once their sums are a recount of the results, whichever workers are killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from inferd import Client
from inferd.schemas.models import AliasTarget, SplitShare
from inferd.schemas.monitoring import WindowKey, WindowStats, decode_window, merged
from inferd.streams.inference import manifest_of
from inferd.streams.kafka import changelog_name
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, until

CLI = [sys.executable, "-m", "inferd.daemon.cli"]
REQUESTS = 24_000
pytestmark = pytest.mark.timeout(300)
Label = tuple[str, int, str | None, int | None]


def label_of(record: Any) -> tuple[Label, str | None]:
    """Which windows a result belongs to, and its error code."""
    result, headers = msgpack.unpackb(record.value()), dict(record.headers() or ())
    variant, revision = headers.get("inferd-variant"), headers.get("inferd-alias-revision")
    version = result["version"] if "version" in result else FAILING[result["model_id"]]
    name = result["model_id"].partition(":")[0]
    code = result["error"]["code"] if "error" in result else None
    return (name, version, variant and variant.decode(), revision and int(revision)), code


FAILING = {"churn:2": 2}
"""The version of a reference that requests with wrong rows have."""


def windows_in_table(cluster: Cluster) -> list[WindowStats]:
    """The committed windows of the table."""
    name = changelog_name(cluster.namespace, "default", "model-windows")
    newest = {record.key(): record.value() for record in cluster.read_topic(name)}
    return [decode_window(value) for value in newest.values() if value is not None]


def by_label(windows: list[WindowStats]) -> dict[Label, WindowStats]:
    grouped: dict[Label, list[WindowStats]] = {}
    for window in windows:
        key = WindowKey.of(window)
        grouped.setdefault((key.model_id, key.version, window.variant, window.alias_revision), []).append(window)
    return {label: total for label, each in grouped.items() if (total := merged(each)) is not None}


async def deploy(cluster: Cluster, model: TrainedModel) -> None:
    content = model.booster.model_to_string().encode()
    async with Client(cluster.bootstrap, namespace=cluster.namespace) as client:
        for version in (1, 2):
            await client.deploy_model(content, manifest_of(content, "churn", version))
        await client.set_alias(
            "churn", "champion", AliasTarget(split=[SplitShare(1, 70.0), SplitShare(2, 30.0)])
        )  # fmt: skip


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_windows_are_a_recount_of_the_results(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    asyncio.run(deploy(cluster, model))
    settings = {"processing_guarantee": guarantee, "monitor": "all"}
    workers = [start_worker(cluster, **settings) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    producer = cluster.producer(**{"queue.buffering.max.messages": 1_000_000})
    row = [1.0] * model.n_features
    for number in range(REQUESTS):
        name, values = (("churn", row), ("churn@champion", row), ("churn:2", row), ("churn:2", row[:-1]))[number % 4]
        body = {"id": f"r{number}", "model_id": name, "input_data": values}
        producer.produce(cluster.topics.name("requests"), msgpack.packb(body), b"k%d" % number)
        producer.poll(0)
        if number == REQUESTS // 8:
            producer.produce(cluster.topics.name("model-stats"), b"garbage", b"churn", partition=0)
        if guarantee == "exactly_once" and number in (REQUESTS // 4, REQUESTS // 2):
            producer.flush(30)
            until(lambda: done(workers[-1]) > 0, 60, "work before the kill")  # noqa: B023
            workers[0].kill()
            workers = [workers[1], start_worker(cluster, **settings)]
            workers[-1].wait_ready()
    assert producer.flush(60) == 0
    results = cluster.read("results", lambda got: len(got) >= REQUESTS, 120)
    assert len(results) == REQUESTS

    labels = Counter(label_of(record) for record in results)
    requests: Counter[Label] = Counter()
    for (label, _), count in labels.items():
        requests[label] += count
    assert len(requests) >= 3

    def counted() -> bool:
        return sum(window.requests for window in by_label(windows_in_table(cluster)).values()) >= REQUESTS

    until(counted, 60, "the owner has added all counts")
    found = by_label(windows_in_table(cluster))
    assert {label: window.requests for label, window in found.items()} == requests
    assert {(label, code): n for label, window in found.items() for code, n in window.errors.items()} == {
        key: n for key, n in labels.items() if key[1] is not None
    }
    for window in found.values():
        assert sum(window.latency.values()) == window.requests
        assert sum(window.predictions.counts.values()) == window.rows == window.requests - window.failed
    (letter,) = cluster.read_all("dead-letters")
    assert letter.value() == b"garbage"
    for worker in workers:
        assert worker.stop() == 0


def done(worker: Any) -> int:
    tenants = (worker.get("/status")[1] or {}).get("tenants") or [{"results": 0}]
    return int(tenants[0]["results"])


def command(cluster: Cluster, *arguments: str) -> Any:
    """The JSON that a command prints."""
    options = ["--broker", cluster.bootstrap, "--namespace", cluster.namespace, "--output", "json"]
    ended = subprocess.run([*CLI, *arguments, *options], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_drift_from_a_given_and_from_a_learned_baseline(  # noqa: PLR0915
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, tmp_path: Path
) -> None:
    path, train = tmp_path / "model.txt", tmp_path / "train.parquet"
    path.write_bytes(model.data)
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(5_000, model.n_features))
    names = model.booster.feature_name()
    columns = {name: rows[:, n] for n, name in enumerate(names)} | {"label": ["yes"] * len(rows)}
    parquet.write_table(pyarrow.table(columns), train)
    command(cluster, "models", "deploy", str(path), "--name", "churn", "--baseline", str(train))
    command(cluster, "models", "deploy", str(path), "--name", "other")
    worker = start_worker(cluster, processing_guarantee="exactly_once", monitor="all")
    worker.wait_ready()
    producer = cluster.producer(**{"queue.buffering.max.messages": 1_000_000})

    def send(name: str, count: int, *, shift: float) -> None:
        for number in range(count):
            values = rng.normal(size=model.n_features)
            values[0] += shift
            body = {"model_id": name, "input_data": values.tolist()}
            producer.produce(cluster.topics.name("requests"), msgpack.packb(body), b"%d" % number)
            producer.poll(0)
        assert producer.flush(60) == 0

    def drift(name: str, rows: int) -> Any:
        found = command(cluster, "models", "drift", name)
        return found[0] if found and found[0]["rows"] >= rows else None

    send("churn", 3_000, shift=2.0)
    found = until(lambda: drift("churn", 3_000), 60, "the windows of churn")
    assert (found["rows"], found["source"], found["baseline_rows"]) == (3_000, "given", 5_000)
    first, *others = found["features"]
    assert first["name"] == names[0]
    assert first["psi"] > 1
    assert first["ks"] > 0.5
    assert len(others) == model.n_features - 1
    assert max(feature["psi"] for feature in others) < 0.1
    assert found["prediction"]["psi"] > 0.01

    (gauges,) = until(lambda: worker.get("/status")[1]["drift"], 30, "the worker measures drift")
    assert (gauges["model_id"], gauges["source"], gauges["features"][names[0]] > 0.5) == ("churn", "given", True)

    send("other", 10_000, shift=0.0)
    key = b"other/1#learned"
    until(lambda: key in {record.key() for record in cluster.read_all("models")}, 60, "a baseline was learned")

    def compared() -> Any:
        send("other", 500, shift=0.0)
        return drift("other", 400)

    found = until(compared, 60, "rows are compared with it")
    assert (found["source"], found["baseline_rows"] >= 10_000) == ("learned", True)
    assert max(feature["psi"] for feature in found["features"]) < 0.2

    status, over_http = worker.get("/models/other/drift?version=1")
    assert (status, over_http["drift"][0]["source"]) == (200, "learned")
    status, over_http = worker.get("/models/churn/windows")
    assert (status, sum(window["requests"] for window in over_http["windows"])) == (200, 3_000)
    counted = command(cluster, "models", "windows", "churn")
    assert sum(window["requests"] for window in counted) == 3_000
    command(cluster, "models", "remove", "churn:1")
    left = {record.key(): record.value() for record in cluster.read_all("models")}
    assert left[b"churn/1#baseline"] is None
    assert worker.stop() == 0

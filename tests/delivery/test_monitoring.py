"""Windows on a real Kafka: under exactly_once their sums are a recount of the results, whichever workers are killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgpack
import pytest

from inferd import Client
from inferd.schemas.models import AliasTarget, SplitShare
from inferd.schemas.monitoring import WindowStats, decode_window, merged
from inferd.streams.inference import manifest_of
from inferd.streams.kafka import changelog_name
from inferd.streams.lifecycle import WindowKey
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, until

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

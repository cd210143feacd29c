"""The prediction cache with a real Kafka: repeated rows are hits, also after a kill, and answers do not change."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.schemas.models.model import CacheSpec
from tests.fixtures.workers import Cluster, Load, StartWorker, TrainedModel, Worker, until

ROWS = 1_000
"""Distinct rows of a `Load`; each goes to one partition only."""
CACHE = CacheSpec(ttl_s=3_600, max_entries=10_000)
both_guarantees = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


def marks(cluster: Cluster, count: int) -> list[bytes | None]:
    """The `inferd-cache` header of each result."""
    records = cluster.read("results", lambda got: len(got) >= count, 60)
    return [dict(record.headers()).get("inferd-cache") for record in records]


def results_in(worker: Worker, count: int) -> None:
    def done() -> bool:
        tenants = worker.get("/status")[1]["tenants"]
        return bool(tenants) and tenants[0]["results"] >= count

    until(done, 60, f"{count} results of {worker.name}")


@pytest.mark.parametrize(("guarantee", "store"), [("at_least_once", "memory"), ("exactly_once", "rocksdb")])
def test_the_cache_outlives_the_worker_that_filled_it(
    guarantee: str, store: str, cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model, cache=CACHE)
    settings: dict[str, Any] = {"processing_guarantee": guarantee, "cache_store": store}
    worker = start_worker(cluster, **settings)
    worker.wait_ready()
    load = Load(cluster, model)
    load.send(ROWS)
    load.stop()
    results_in(worker, ROWS)
    assert marks(cluster, ROWS) == [b"miss"] * ROWS
    worker.kill()

    worker = start_worker(cluster, **settings)
    worker.wait_ready()
    load.send(2 * ROWS)
    load.stop()
    ledger = load.ledger()
    assert (ledger.lost, ledger.wrong, ledger.different_repeats) == ([], 0, 0)
    found = marks(cluster, 3 * ROWS)
    # Results that were published and not committed before the kill may be repeated.
    assert found.count(b"hit") >= 2 * ROWS
    assert worker.stop() == 0


def test_without_a_cache_in_the_manifest_no_result_speaks_of_one(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.caches.clear()
    cluster.deploy(model)
    worker = start_worker(cluster)
    load = Load(cluster, model)
    load.send(100)
    load.stop()
    results_in(worker, 100)
    assert marks(cluster, 100) == [None] * 100
    assert worker.stop() == 0


@both_guarantees
def test_entries_move_with_their_partitions(
    guarantee: str, cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model, cache=CACHE)
    first = start_worker(cluster, processing_guarantee=guarantee)
    first.wait_ready()
    load = Load(cluster, model)
    load.send(ROWS)
    load.stop()
    results_in(first, ROWS)
    second = start_worker(cluster, processing_guarantee=guarantee)
    second.wait_ready()
    load.send(ROWS)
    load.stop()
    ledger = load.ledger()
    assert (ledger.lost, ledger.wrong, ledger.different_repeats) == ([], 0, 0)
    assert marks(cluster, 2 * ROWS).count(b"hit") >= ROWS
    assert [first.stop(), second.stop()] == [0, 0]

"""Memory stays bounded when more arrives than can be scored, and when nothing can be published; also, two signals under
load."""

from __future__ import annotations

import os
import signal
import threading
import time

import msgpack
import numpy as np
import pytest

from inferd.daemon.broker import EmbeddedKafka
from tests.fixtures.workers import PARTITIONS, Cluster, Load, StartWorker, TrainedModel, Worker, until

both_guarantees = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
MiB = 1_048_576
BUFFERS = {"buffer_bytes_max": 4 * MiB, "in_flight_bytes_max": 4 * MiB}
SMALL_BATCHES = {"batch_rows_max": 256, "batch_bytes_max": 2 * MiB, "inline_ms_max": 20}
GROWTH_BYTES_MAX = 60 * MiB
WIDE_REQUESTS, WIDE_ROWS = 14_000, 100
"""More than 120 MiB: many times what the buffers hold, and twice the allowed growth."""
FROZEN_FOR_S = 8.0
DRAIN_TIMEOUT_S = 20


@both_guarantees
def test_memory_is_bounded_at_twice_the_capacity(
    guarantee: str, cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    worker = start_worker(cluster, processing_guarantee=guarantee, **BUFFERS, **SMALL_BATCHES)
    worker.wait_ready()
    load = Load(cluster, model)
    load.send(2_000)
    until(lambda: done(worker) == 2_000, 40, "the steady state")
    steady = resident(worker)
    load.stop()
    # The producer sends as fast as it can: several times the rate that the worker can score with small micro-batches.
    produced = threading.Thread(target=send_wide, args=(cluster, model))
    produced.start()
    peak = peak_until(worker, lambda: done(worker) == 2_000 + WIDE_REQUESTS, 90)
    produced.join()
    assert peak["resident"] - steady < GROWTH_BYTES_MAX, peak
    assert peak["lag"] > WIDE_REQUESTS / 5, f"the worker was never behind: {peak}"
    assert peak["queued"] < 2 * BUFFERS["buffer_bytes_max"], peak
    (tenant,) = worker.get("/status")[1]["tenants"]
    assert (tenant["errors"], tenant["pending"]) == ({}, 0)
    assert worker.stop() == 0


def send_wide(cluster: Cluster, model: TrainedModel) -> None:
    """Sends requests with this number of rows each."""
    rows = np.random.default_rng(2).normal(size=(WIDE_ROWS, model.n_features)).tolist()
    value = msgpack.packb({"model_id": "demo", "input_data": rows})
    assert WIDE_REQUESTS * len(value) > 2 * GROWTH_BYTES_MAX
    producer = cluster.producer(**{"queue.buffering.max.kbytes": 262_144})
    for n in range(WIDE_REQUESTS):
        producer.produce(cluster.topics.name("requests"), value, partition=n % PARTITIONS)
        producer.poll(0)
    assert producer.flush(60) == 0


@both_guarantees
def test_memory_is_flat_while_the_broker_is_frozen(
    guarantee: str, spare_broker: EmbeddedKafka, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster = Cluster(spare_broker.bootstrap_servers, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    worker = start_worker(cluster, processing_guarantee=guarantee, **BUFFERS, **SMALL_BATCHES)
    worker.wait_ready()
    load = Load(cluster, model)
    load.start(4_000)
    until(lambda: done(worker) > 8_000, 40, "the steady state")
    steady = resident(worker)
    pid = spare_broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    until_s = time.monotonic() + FROZEN_FOR_S
    try:
        peak = peak_until(worker, lambda: time.monotonic() > until_s, FROZEN_FOR_S + 10)
    finally:
        os.kill(pid, signal.SIGCONT)
    load.stop()
    ledger = load.ledger(90)
    peak["resident"] = max(peak["resident"], resident(worker))
    assert (ledger.lost, ledger.wrong, ledger.different_repeats) == ([], 0, 0)
    assert peak["resident"] - steady < GROWTH_BYTES_MAX, peak
    assert peak["in flight"] < 2 * BUFFERS["in_flight_bytes_max"], peak
    assert worker.stop() == 0


@both_guarantees
def test_a_stop_under_load_drains_within_its_deadline(
    guarantee: str, cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    worker = start_worker(cluster, processing_guarantee=guarantee, drain_timeout_s=DRAIN_TIMEOUT_S)
    worker.wait_ready()
    load = Load(cluster, model)
    load.send(30_000)
    until(lambda: done(worker) > 1_000, 40, "work before the stop")
    asked_at = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - asked_at < DRAIN_TIMEOUT_S
    other = start_worker(cluster, processing_guarantee=guarantee)
    other.wait_ready()
    load.stop()
    ledger = load.ledger()
    assert (ledger.lost, ledger.repeated, ledger.wrong, ledger.out_of_order) == ([], 0, 0, 0)
    assert other.stop() == 0


@both_guarantees
def test_a_second_signal_ends_it_at_once_without_loss(
    guarantee: str, spare_broker: EmbeddedKafka, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster = Cluster(spare_broker.bootstrap_servers, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    worker = start_worker(cluster, processing_guarantee=guarantee, drain_timeout_s=120)
    worker.wait_ready()
    load = Load(cluster, model)
    load.start(2_000)
    until(lambda: done(worker) > 2_000, 40, "work before the stop")
    pid = spare_broker.pid
    assert pid is not None
    # Nothing is acknowledged from now on, so the graceful stop has to wait.
    os.kill(pid, signal.SIGSTOP)
    try:
        worker.process.send_signal(signal.SIGTERM)
        until(lambda: "worker_draining" in worker.text(), 10, "the graceful stop")
        code = end_with_another_signal(worker)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert code == 130
    other = start_worker(cluster, processing_guarantee=guarantee)
    other.wait_ready(60)
    load.stop()
    ledger = load.ledger(90)
    assert (ledger.lost, ledger.wrong, ledger.different_repeats) == ([], 0, 0)
    assert ledger.repeated == 0 or guarantee == "at_least_once"
    assert other.stop() == 0


def end_with_another_signal(worker: Worker) -> int:
    """Signals in quick succession count as one, so SIGINT is repeated until the process exits."""

    def ended() -> bool:
        worker.process.send_signal(signal.SIGINT)
        return worker.process.poll() is not None

    until(ended, 15, "the end")
    return worker.process.wait(1)


def peak_until(worker: Worker, over: object, within_s: float) -> dict[str, int]:
    """The most memory, queued and unacknowledged bytes, and lag, seen until `over`."""
    assert callable(over)
    peak = {"resident": 0, "queued": 0, "in flight": 0, "lag": 0}

    def look() -> bool:
        status = worker.get("/status")[1]
        if status:
            now = {
                "resident": status["memory"]["resident_bytes"],
                "queued": status["queued_bytes"],
                "in flight": status["in_flight_bytes"],
                "lag": status["lag"] or 0,
            }
            peak.update({name: max(peak[name], value) for name, value in now.items()})
        return bool(over())

    until(look, within_s, f"the end of the load; {peak}")
    return peak


def resident(worker: Worker) -> int:
    """Bytes of a worker that are in memory."""
    status = worker.get("/status")[1]
    return int(status["memory"]["resident_bytes"])


def done(worker: Worker) -> int:
    """Requests that a worker has answered."""
    status = worker.get("/status")[1]
    return sum(tenant["results"] for tenant in status["tenants"]) if status else 0

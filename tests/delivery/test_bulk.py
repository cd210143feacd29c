"""Thousands of different requests in large batches have the same results with compiled kernels, which read whole
fetches at once, and without them."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import msgpack
import pytest

from inferd.schemas.topics import Stream
from tests.fixtures.poison import JSON, POISON
from tests.fixtures.workers import PARTITIONS, Cluster, StartWorker, TrainedModel

STREAMS: tuple[Stream, ...] = ("results", "dead-letters")
COUNT = 2_000
SENT_MS = int(time.time() * 1000)
"""The same for both runs: events have the time of their requests."""
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
OF_THE_RUN = {"inferd-worker", "inferd-queue-us", "inferd-infer-us", "inferd-error-worker", "inferd-error-time"}
"""Headers that differ from run to run."""
EVENT = [("ce_specversion", b"1.0"), ("ce_id", b"e"), ("ce_source", b"/s"), ("ce_type", b"t")]
CARRIED = [("correlation-id", b"7"), ("x", None)]
Request = tuple[bytes | None, bytes | None, list[tuple[str, str | bytes | None]]]


def requests(seed: int) -> list[Request]:
    """(value, key, headers) of usual, unusual and invalid requests."""
    rng = random.Random(seed)
    small = [poison for poison in POISON if len(poison.value or b"") < 100_000]
    return [poisoned(rng, small) if rng.random() < 0.1 else request(rng, number) for number in range(COUNT)]


def poisoned(rng: random.Random, poisons: list[Any]) -> Request:
    poison = rng.choice(poisons)
    return poison.value, b"p", list(poison.headers)


def request(rng: random.Random, number: int) -> Request:
    row = [rng.gauss(0, 1) for _ in range(10)]
    rows: Any = rng.choice((row, row, row, {f"Column_{n}": value for n, value in enumerate(row)}, [row, row], row[:3]))
    body = {"model_id": rng.choice(("demo", "demo", "demo", "demo:1", "demo:9", "other")), "input_data": rows}
    if rng.random() < 0.7:
        body["id"] = rng.choice((f"r-{number}", f"r-{number}", "not allowed"))
    if rng.random() < 0.1:
        body["outputs"] = ["raw", "prediction"]
    as_json = rng.random() < 0.5
    headers: list[tuple[str, str | bytes | None]] = [*JSON] if as_json else []
    for more in (CARRIED, EVENT, [("deadline", b"1")], [("traceparent", b"00-%032x-%016x-01" % (number, number))]):
        headers += more if rng.random() < 0.05 else []
    key = rng.choice((None, b"", b"key", b"k" * 5_000 if rng.random() < 0.02 else b"other"))
    return json.dumps(body).encode() if as_json else msgpack.packb(body), key, headers


def send(cluster: Cluster, sent: list[Request]) -> None:
    """Sends each fifth of the requests in another codec, and between them a transaction that is aborted."""
    topic = cluster.topics.name("requests")
    size = len(sent) // len(CODECS)
    for place, codec in enumerate(CODECS):
        producer = cluster.producer(**{"compression.type": codec, "linger.ms": 300, "batch.num.messages": 500})
        for number, (value, key, headers) in enumerate(sent[place * size : (place + 1) * size]):
            producer.produce(topic, value, key, number % PARTITIONS, timestamp=SENT_MS, headers=[*headers])
        assert producer.flush(60) == 0
        abort(cluster, topic, f"{cluster.namespace}-{codec}")


def abort(cluster: Cluster, topic: str, transactional_id: str) -> None:
    producer = cluster.producer(**{"transactional.id": transactional_id})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(100):
        producer.produce(topic, b"aborted", partition=number % PARTITIONS)
    producer.flush(30)
    producer.abort_transaction(30)


def answers(cluster: Cluster, stream: Stream) -> list[list[Any]]:
    """Of each partition, its records in their order, without what differs from run to run."""
    tenant = cluster.topics.tenant.encode()
    found: list[list[Any]] = [[] for _ in range(PARTITIONS)]
    for record in cluster.read_all(stream):
        headers = [(name, value and value.replace(tenant, b"")) for name, value in record.headers() or []]
        kept = [header for header in headers if header[0] not in OF_THE_RUN]
        found[record.partition()].append((record.key(), (record.value() or b"").replace(tenant, b""), kept))
    return found


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_requests_in_bulk_have_the_same_results_with_and_without_kernels(
    kafka: str, namespace: str, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    sent = requests(3)
    clusters = {
        kernels: Cluster(kafka, namespace, tenant) for kernels, tenant in (("auto", "tenant-a"), ("off", "tenant-b"))
    }
    for kernels, cluster in clusters.items():
        cluster.create_topics()
        cluster.deploy(model)
        send(cluster, sent)
        worker = start_worker(
            cluster, processing_guarantee=guarantee, kernels=kernels, tenants=cluster.topics.tenant,
            group_id=f"{namespace}-{cluster.topics.tenant}",
        )  # fmt: skip
        worker.wait_ready()
        cluster.read("results", lambda records: len(records) >= COUNT, 60)
        assert worker.stop() == 0
    for stream in STREAMS:
        auto, off = (answers(cluster, stream) for cluster in clusters.values())
        assert sum(map(len, off)) >= (COUNT if stream == "results" else 1)
        assert [len(part) for part in auto] == [len(part) for part in off]
        for mine, other in zip(auto, off, strict=True):
            for one, two in zip(mine, other, strict=True):
                assert one == two

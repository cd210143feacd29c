"""Bad input on the requests topic: each record gets a typed error, the offset advances, and others are not affected."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgpack
import pytest

from tests.fixtures.poison import POISON, pack, send_bad_header_name
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, Worker, until

RESIDENT_BYTES_MAX = 700 * 1024 * 1024


def decode(record: Any) -> Any:
    headers = dict(record.headers() or [])
    is_json = headers.get("content-type") == b"application/json"
    return json.loads(record.value()) if is_json else msgpack.unpackb(record.value())


def lag(worker: Worker) -> int:
    return sum(p["lag"] for p in worker.get("/status")[1]["partitions"])


@pytest.fixture
def worker(cluster: Cluster, model: TrainedModel, start_worker: StartWorker) -> Worker:
    cluster.deploy(model)
    worker = start_worker(cluster)
    worker.wait_ready()
    return worker


def test_every_bad_input_has_its_code_and_does_not_affect_others(cluster: Cluster, worker: Worker) -> None:
    producer = cluster.producer(**{"message.max.bytes": 2_000_000})
    topic = cluster.topics.name("requests")
    for n, poison in enumerate(POISON):
        producer.produce(topic, pack(id=f"before-{n}"), b"good", partition=0)
        producer.produce(topic, poison.value, b"p%d" % n, headers=list(poison.headers), partition=0)
    producer.produce(topic, pack(id="last"), b"good", partition=0)
    assert producer.flush(30) == 0
    total = 2 * len(POISON) + 1
    records = cluster.read("results", lambda r: len(r) >= total, 40)
    assert len(records) == total
    good = [decode(r) for r in records if r.key() == b"good"]
    assert [g["id"] for g in good] == [f"before-{n}" for n in range(len(POISON))] + ["last"]
    assert len({g["prediction"] for g in good}) == 1
    answers = {int(r.key()[1:]): decode(r) for r in records if r.key() != b"good"}
    codes = {p.name: answers[n].get("error", {}).get("code") for n, p in enumerate(POISON)}
    assert codes == {p.name: p.code for p in POISON}
    kept = [n for n, p in enumerate(POISON) if p.dead_letter]
    dead = cluster.read("dead-letters", lambda r: len(r) >= len(kept), 20)
    assert set(kept) ^ {int(r.key()[1:]) for r in dead} == set()
    assert [int(r.key()[1:]) for r in dead] == kept
    for record, n in zip(dead, kept, strict=True):
        headers = dict(record.headers())
        assert record.value() == POISON[n].value, "byte for byte"
        assert headers["inferd-error-code"].decode() == POISON[n].code
        assert int(headers["inferd-error-offset"]) == 2 * n + 1
    until(lambda: lag(worker) == 0, 20, "all offsets committed")
    assert worker.stop() == 0


def test_an_undecodable_header_name_does_not_block_the_partition(cluster: Cluster, worker: Worker) -> None:
    topic = cluster.topics.name("requests")
    asyncio.run(send_bad_header_name(cluster.bootstrap, topic, 0, pack(id="h")))
    producer = cluster.producer()
    producer.produce(topic, pack(id="after"), partition=0)
    producer.flush(30)
    records = cluster.read("results", lambda r: len(r) >= 4, 20)
    answers = [decode(r) for r in records]
    assert [a.get("error", {}).get("code") for a in answers] == [None, "invalid_header", None, None]
    assert answers[3]["id"] == "after"
    (dead,) = cluster.read("dead-letters", lambda r: len(r) >= 1, 20)
    assert dead.value() == pack(id="h")


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_a_decompression_bomb_is_rejected_in_bounded_memory(codec: str, cluster: Cluster, worker: Worker) -> None:
    topic = cluster.topics.name("requests")
    options = {"compression.type": codec, "message.max.bytes": 900_000_000, "linger.ms": 0}
    producer = cluster.producer(**options)
    size = 200_000_000 if codec != "lz4" else 150_000_000
    producer.produce(topic, bytes(size), b"bomb", partition=0)
    assert producer.flush(60) == 0
    plain = cluster.producer()
    plain.produce(topic, pack(id="after"), b"good", partition=0)
    plain.flush(30)
    records = cluster.read("results", lambda r: len(r) >= 2, 30)
    answers = [decode(r) for r in records]
    assert [a.get("error", {}).get("code") for a in answers] == ["too_large", None]
    assert worker.get("/status")[1]["memory"]["peak_bytes"] < RESIDENT_BYTES_MAX


def test_both_encodings_from_generic_producers(cluster: Cluster, worker: Worker) -> None:
    """As sent by kcat: JSON with a header, MessagePack without one; keys and headers are propagated."""
    topic = cluster.topics.name("requests")
    producer = cluster.producer()
    request = {"id": "j", "model_id": "demo:1", "input_data": {f"Column_{n}": 0.5 for n in range(10)}}
    carried = [("correlation-id", b"c-7"), ("traceparent", b"00-abc-def-01"), ("ce_id", b"e-1")]
    producer.produce(
        topic, json.dumps(request), b"k1", headers=[("content-type", b"application/json"), *carried], partition=1
    )
    producer.produce(topic, pack(id="m", outputs=["prediction", "raw", "probabilities"]), b"k2", partition=2)
    producer.flush(30)
    records = {r.key(): r for r in cluster.read("results", lambda r: len(r) >= 2, 20)}
    assert {k: r.partition() for k, r in records.items()} == {b"k1": 1, b"k2": 2}
    as_json, as_msgpack = decode(records[b"k1"]), decode(records[b"k2"])
    assert as_json["prediction"] == as_msgpack["prediction"] == as_msgpack["probabilities"][1]
    headers = dict(records[b"k1"].headers())
    assert headers["content-type"] == b"application/json"
    assert (headers["correlation-id"], headers["traceparent"]) == (b"c-7", b"00-abc-def-01")
    assert headers["ce_relatedid"] == b"e-1"
    assert dict(records[b"k2"].headers())["content-type"] == b"application/msgpack"


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_headers_of_other_software_are_propagated(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    """To results, results of jobs, and dead letters, unchanged: bytes, repeats and missing values."""
    cluster.deploy(model)
    start_worker(cluster, processing_guarantee=guarantee).wait_ready()
    own: list[tuple[str, str | bytes | None]] = [
        ("kafka_correlationId", bytes(range(16))),
        ("correlation-id", b"\x9f\x86"),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01"),
        ("X-Flag", None),
    ]
    producer, topic = cluster.producer(), cluster.topics.name("requests")
    as_json = json.dumps({"id": "j", "model_id": "demo:1", "input_data": [0.5] * 10}).encode()
    producer.produce(topic, as_json, b"json", headers=[("Content-Type", b"application/json"), *own], partition=0)
    producer.produce(topic, pack(id="m"), b"msgpack", headers=own, partition=0)
    producer.produce(topic, b"\xc1", b"bad", headers=[("x-large", b"x" * 4_000)] * 6 + own, partition=0)
    submit = msgpack.packb({"type": "submit", "model_id": "demo:1", "input_batch": [[0.5] * 10]})
    producer.produce(cluster.topics.name("jobs"), submit, b"own-headers", headers=own)
    producer.flush(30)
    results = {r.key(): r.headers() for r in cluster.read("results", lambda r: len(r) >= 3, 20)}
    (letter,) = cluster.read("dead-letters", lambda r: len(r) >= 1, 20)
    (chunk,) = cluster.read("job-results", lambda r: len(r) >= 1, 30)
    assert results[b"json"][:6] == [("content-type", b"application/json"), *own]
    assert results[b"msgpack"][:6] == chunk.headers() == [("content-type", b"application/msgpack"), *own]
    assert [header for header in results[b"bad"] if header in own] == own
    assert len(results[b"bad"]) < len(letter.headers())
    assert letter.headers()[:11] == [("x-large", b"x" * 4_000)] * 6 + own


def test_the_largest_result_with_the_largest_key_and_headers_fits(cluster: Cluster, worker: Worker) -> None:
    """A result must fit for every accepted request; otherwise its partition would be blocked forever."""
    topic = cluster.topics.name("requests")
    producer = cluster.producer(**{"message.max.bytes": 2_000_000})
    names = ("correlation-id", "traceparent", "tracestate", "ce_id")
    carried: list[tuple[str, str | bytes | None]] = [(name, b"x" * 4_000) for name in names]
    carried += [(f"own-{n}", b"x" * 4_000) for n in range(30)]
    rows, key = [[1] * 10] * 9_900, b"k" * 24_576
    producer.produce(topic, pack(rows, outputs=["contributions"]), key, headers=carried, partition=0)
    producer.produce(topic, pack(id="long"), b"k" * 24_577, partition=0)
    producer.produce(topic, pack(id="after"), b"good", partition=0)
    assert producer.flush(30) == 0
    records = cluster.read("results", lambda r: len(r) >= 3, 40)
    assert len(records[0].value()) > 950_000
    assert len(decode(records[0])["contributions"]) == 9_900
    assert [r.key() for r in records] == [key, None, b"good"]
    assert decode(records[1])["error"]["code"] == "too_large"

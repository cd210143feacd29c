"""Requests in open protocols on a real Kafka: answered in kind, by both guarantees, with the same bytes again after a
crash."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.fixtures.asyncapi_rules import faults, validator
from tests.fixtures.groups import forgotten
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, Worker, until

OIP = "application/vnd.oip.v2+json"
SENT_MS = int(time.time()) * 1_000
"""Timestamp of all requests; retention deletes older ones."""
REQUEST = {"model_id": "demo:1", "input_data": [0.5] * 10}
Headers = list[tuple[str, str | bytes | None]]
both_guarantees = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
MODES: dict[str, tuple[Callable[..., KafkaMessage], Callable[..., Any]]] = {
    "binary": (to_binary, from_binary),
    "structured": (to_structured, from_structured),
}


def oip(rows: int = 2, **fields: Any) -> dict[str, Any]:
    matrix = {"name": "rows", "shape": [rows, 10], "datatype": "FP64", "data": [0.5] * 10 * rows}
    return {"model_name": "demo", "id": "mine", "inputs": [matrix], **fields}


def event(mode: str, id_: str, data: Any = REQUEST, data_type: str = "application/json") -> KafkaMessage:
    """A record as the package `cloudevents` writes it; its key is the attribute `partitionkey`."""
    attributes = {"type": "order.created", "source": "/shop", "id": id_, "datacontenttype": data_type}
    return MODES[mode][0](CloudEvent(attributes={**attributes, "partitionkey": id_}, data=data), JSONFormat())


def read_event(record: Any) -> CloudEvent:
    headers = {name: value for name, value in record.headers() if value is not None}
    mode = "binary" if "ce_specversion" in headers else "structured"
    made = MODES[mode][1](KafkaMessage(headers, record.key(), record.value()), JSONFormat(), CloudEvent)
    assert isinstance(made, CloudEvent)
    return made


def content(made: CloudEvent) -> Any:
    data = made.get_data()
    return msgpack.unpackb(data) if isinstance(data, bytes) else data


class Sender:
    """Produces requests, and reads what has their keys."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self._producer = cluster, cluster.producer()

    def send(self, value: bytes, key: str, headers: Headers, partition: int = 0) -> None:
        self._producer.produce(
            self.cluster.topics.name("requests"), value, key, headers=headers, partition=partition,
            timestamp=SENT_MS,
        )  # fmt: skip
        assert self._producer.flush(30) == 0

    def send_oip(self, key: str, *headers: tuple[str, str], **fields: Any) -> None:
        self.send(json.dumps(oip(**fields)).encode(), key, [("content-type", OIP), *headers])

    def send_event(self, message: KafkaMessage, partition: int = 0) -> None:
        self.send(message.value, str(message.key), list(message.headers.items()), partition)

    def results(self, *keys: str, stream: str = "results", copies: int = 1) -> dict[str, Any]:
        """The latest record of each key."""

        def enough(records: list[Any]) -> bool:
            found = [record.key() for record in records]
            return all(found.count(key.encode()) >= copies for key in keys)

        return {record.key().decode(): record for record in self.cluster.read(stream, enough, 60)}


def run(cluster: Cluster, model: TrainedModel, start_worker: StartWorker, **settings: Any) -> tuple[Worker, Sender]:
    cluster.deploy(model)
    worker = start_worker(cluster, **settings)
    worker.wait_ready()
    return worker, Sender(cluster)


@both_guarantees
def test_the_open_inference_protocol(
    guarantee: str, cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    replies = f"{cluster.namespace}.default.replies"
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.create_topics([NewTopic(replies, 2, 1)])[replies].result(30)
    _, sender = run(cluster, model, start_worker, processing_guarantee=guarantee, reply_to_allowed=replies)
    sender.send_oip("good", ("correlation-id", "c-1"))
    sender.send_oip("rows", rows=500, model_name="demo:1", outputs=[{"name": "raw"}])
    sender.send_oip("late", ("deadline", "1"))
    sender.send_oip("unknown", model_version="7")
    sender.send_oip("elsewhere", ("reply-to", replies))
    sender.send(b'{"inputs": ', "poison", [("content-type", OIP), ("mlserver-model", "demo")])
    sender.send(msgpack.packb({**REQUEST, "id": "r"}), "plain", [])
    found = sender.results("good", "rows", "late", "unknown", "poison", "plain")
    said = {key: json.loads(record.value()) for key, record in found.items() if key != "plain"}
    expected = model.booster.predict([[0.5] * 10], num_threads=1)[0]
    headers = dict(found["good"].headers())
    assert (headers["content-type"], headers["correlation-id"]) == (OIP.encode(), b"c-1")
    (output,) = said["good"]["outputs"]
    assert (said["good"]["id"], output["data"], output["shape"]) == ("mine", [expected] * 2, [2])
    assert said["rows"]["outputs"][0]["name"] == "raw"
    assert len(said["rows"]["outputs"][0]["data"]) == 500
    assert said["late"]["error"].startswith("deadline_exceeded: ")
    assert said["unknown"] == {"id": "mine", "error": said["unknown"]["error"]}
    assert said["unknown"]["error"].startswith("version_not_found: ")
    assert said["poison"]["error"].startswith("malformed: ")
    assert msgpack.unpackb(found["plain"].value())["prediction"] == expected
    letters = sender.results("poison", stream="dead-letters")
    assert list(letters) == ["poison"], {key: each.headers() for key, each in letters.items()}
    letter = letters["poison"]
    assert (letter.value(), dict(letter.headers())["inferd-error-code"]) == (b'{"inputs": ', b"malformed")
    assert dict(letter.headers())["content-type"] == OIP.encode()
    reply = sender.results("elsewhere", stream="replies")["elsewhere"]
    assert json.loads(reply.value())["outputs"][0]["data"] == [expected] * 2


@both_guarantees
def test_cloud_events(guarantee: str, cluster: Cluster, model: TrainedModel, start_worker: StartWorker) -> None:
    worker, sender = run(cluster, model, start_worker, processing_guarantee=guarantee)
    document = worker.get("/asyncapi.json")[1]
    assert faults(document) == []
    structured = validator(document, document["components"]["messages"]["resultEvent"]["payload"])
    expected = model.booster.predict([[0.5] * 10], num_threads=1)[0]
    for mode in MODES:
        sender.send_event(event(mode, f"{mode}.json"))
        sender.send_event(event(mode, f"{mode}.msgpack", msgpack.packb(REQUEST), "application/msgpack"))
        asked = json.dumps(oip()) if mode == "binary" else oip()
        sender.send_event(event(mode, f"{mode}.oip", asked, OIP))
        sender.send_event(event(mode, f"{mode}.error", {**REQUEST, "input_data": ["x"] * 10}))
    keys = [f"{mode}.{kind}" for mode in MODES for kind in ("json", "msgpack", "oip", "error")]
    found = sender.results(*keys)
    for place, key in enumerate(keys):
        made = read_event(found[key])
        if key.startswith("structured"):
            structured.validate(json.loads(found[key].value()))
        failed = key.endswith("error")
        assert made.get_attributes() == made.get_attributes() | {
            "id": f"{cluster.topics.name('requests')}-0-{place}", "source": cluster.namespace, "subject": "demo",
            "type": f"ai.inferd.{'error' if failed else 'prediction'}.v1", "relatedid": key,
        }  # fmt: skip
        assert made.get_time() == datetime.fromtimestamp(SENT_MS // 1_000, UTC)
        said = content(made)
        said = json.loads(said) if isinstance(said, str) else said
        if failed:
            assert said["error"]["code"] == "invalid_value"
        else:
            assert said.get("prediction", expected) == expected
            assert key.endswith("oip") is ("outputs" in said)


def test_invalid_events_are_dead_letters_and_block_nothing(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    _, sender = run(cluster, model, start_worker)
    structured = {"content-type": "application/cloudevents+json"}
    bad: dict[str, tuple[bytes, dict[str, str]]] = {
        "no-id": (json.dumps(REQUEST).encode(), {"ce_specversion": "1.0", "ce_source": "/", "ce_type": "t"}),
        "no-version": (json.dumps(REQUEST).encode(), {"ce_id": "1", "ce_source": "/", "ce_type": "t"}),
        "old": (b'{"specversion": "0.3", "id": "1", "source": "/", "type": "t"}', structured),
        "twice": (b'{"specversion": "1.0", "id": "1", "id": "1", "source": "/", "type": "t"}', structured),
        "base64": (
            b'{"specversion": "1.0", "id": "1", "source": "/", "type": "t", "data_base64": "%"}', structured,
        ),
    }  # fmt: skip
    for key, (value, headers) in bad.items():
        sender.send(value, key, [*headers.items()])
    sender.send(b"[]", "batch", [("content-type", "application/cloudevents-batch+json")])
    sender.send_event(event("binary", "after"))
    found = sender.results(*bad, "batch", "after")
    assert read_event(found["after"]).get_type() == "ai.inferd.prediction.v1"
    assert {key: read_event(found[key]).get_type() for key in bad} == dict.fromkeys(bad, "ai.inferd.error.v1")
    letters = sender.results(*bad, "batch", stream="dead-letters")
    codes = {key: dict(record.headers())["inferd-error-code"].decode() for key, record in letters.items()}
    assert codes == {
        "no-id": "invalid_header", "no-version": "invalid_header", "old": "malformed", "twice": "malformed",
        "base64": "malformed", "batch": "unsupported_content_type",
    }  # fmt: skip
    assert all(letters[key].value() == value for key, (value, _) in bad.items())


def test_the_same_bytes_again_after_a_crash(cluster: Cluster, model: TrainedModel, start_worker: StartWorker) -> None:
    """A worker that finds no committed offsets repeats results: those of events have the same id and time."""
    worker, sender = run(cluster, model, start_worker)
    keys = ["binary", "structured", "oip", "bad"]
    for mode in MODES:
        sender.send_event(event(mode, mode))
    sender.send_oip("oip")
    sender.send(b"{", "bad", [("content-type", "application/cloudevents+json")])
    sender.results(*keys)
    worker.kill()
    until(lambda: forgotten(cluster), 60, "the group has no offsets")
    start_worker(cluster).wait_ready()

    def records() -> list[Any]:
        return [record for record in cluster.read_all("results") if record.key().decode() in keys]

    until(lambda: len(records()) == 2 * len(keys), 60, "each result is there twice")
    varying = ("inferd-worker", "inferd-queue-us", "inferd-infer-us")
    found = [
        (record.key(), record.value(), [each for each in record.headers() if each[0] not in varying])
        for record in records()
    ]
    assert sorted(found[: len(keys)]) == sorted(found[len(keys) :])

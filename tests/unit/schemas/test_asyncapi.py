"""The AsyncAPI document: it follows the specification, and real records follow it."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from inferd.schemas.asyncapi import MESSAGES, Application, describe, route_channels
from inferd.schemas.asyncapi.messages import RECORD
from inferd.schemas.asyncapi.types import Request, ResultEvent
from inferd.schemas.audit import decode_audit
from inferd.schemas.capture import decode_captured
from inferd.schemas.cloud_events.attributes import TYPES
from inferd.schemas.codec import (
    decode_alias,
    decode_chunk_result,
    decode_job_message,
    decode_manifest,
    decode_result,
    decode_status,
)
from inferd.schemas.codecs import JSON, MSGPACK, all_codecs
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.headers import _PARSED
from inferd.schemas.labels import decode_label
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.monitoring import decode_baseline
from inferd.schemas.requests.envelope import Envelope
from inferd.schemas.rollouts import decode_rollout_message
from inferd.schemas.routes import Format, Route, Sink, Source, decode_route
from inferd.schemas.shadow import decode_shadow_result
from inferd.schemas.topics import STREAMS
from inferd.streams.inference.scoring import Scorer
from tests.fixtures.asyncapi_rules import faults, validator
from tests.fixtures.lane import sum_model
from tests.fixtures.scoring import Fetched, catalog_of, score

GOLDEN = Path(__file__).parents[2] / "golden" / "wire"
APPLICATION = Application(version="1.2", namespace="inferd", tenants=["a", "b"], connection=KafkaConnection())
AVRO = '{"type": "record", "name": "order", "fields": [{"name": "amount", "type": "double"}]}'
ROUTES = [
    Route("orders", Source(["orders.v1", "orders.v2"], Format("avro", schema=AVRO)), "m", Sink("orders.scored")),
    Route("plain", Source(["orders.json"], Format("json")), "m", Sink("out", mode="result")),
    Route(
        "events", Source(["orders.events"], Format("cloudevents", data="avro", schema=AVRO)), "m", Sink("events.out")
    ),
    Route("oip", Source(["orders.oip"], Format("oip")), "m", Sink("oip.out", mode="result")),
    Route("own", Source(["orders.own"], Format("toy")), "m", Sink("own.scored")),
]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """As a client reads it."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(describe(APPLICATION, route_channels("a", ROUTES))))
    return found


def payload_faults(document: dict[str, Any], name: str, payload: Any) -> list[str]:
    schema = document["components"]["messages"][name]["payload"]
    return [error.message for error in validator(document, schema).iter_errors(payload)]


# ------------------------------------------------------------------------------------------------- the specification


def test_it_follows_the_specification(document: dict[str, Any]) -> None:
    assert faults(document) == []
    assert faults(json.loads(msgspec.json.encode(describe(APPLICATION)))) == []


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unknown colour": lambda d: d.update(colour=1),
    "version is missing": lambda d: d["info"].pop("version"),
    "there is nothing": lambda d: d["components"]["schemas"].pop("Feature"),
    "action 'read'": lambda d: d["operations"]["receive-requests"].update(action="read"),
    "other parameters": lambda d: d["channels"]["requests"].pop("parameters"),
    "is that of another one": lambda d: d["channels"]["results"].update(address="inferd.{tenant}.requests"),
    "keyword prefixItems": lambda d: d["components"]["schemas"]["Alias"].update(prefixItems=[]),
    "is not valid under any": lambda d: d["components"]["schemas"]["Alias"].update(type="text"),
    "other characters": lambda d: d["channels"].update({"a b": {}}),
    "no reference to a channel": lambda d: d["operations"]["receive-jobs"]["channel"].update({"$ref": "#/info"}),
}


@pytest.mark.parametrize("said", CHANGES)
def test_the_rules_find_faults(document: dict[str, Any], said: str) -> None:
    changed = copy.deepcopy(document)
    CHANGES[said](changed)
    assert any(said in fault for fault in faults(changed)), faults(changed)


def test_every_topic_is_described(document: dict[str, Any]) -> None:
    streams = {name: channel for name, channel in document["channels"].items() if not name.startswith("route-")}
    assert set(streams) == set(STREAMS)
    assert all(channel["address"] == f"inferd.{{tenant}}.{name}" for name, channel in streams.items())
    assert document["components"]["parameters"]["tenant"]["enum"] == ["a", "b"]
    operations = {(each["action"], each["channel"]["$ref"]) for each in document["operations"].values()}
    assert {("receive", "#/channels/requests"), ("send", "#/channels/results")} <= operations
    assert document["operations"]["receive-requests"]["reply"] == {"channel": {"$ref": "#/channels/results"}}


def test_every_message_is_there_in_every_codec(document: dict[str, Any]) -> None:
    used = {
        reference["$ref"].rpartition("/")[2]
        for channel in document["channels"].values()
        for reference in channel["messages"].values()
        if "$ref" in reference
    }
    assert used == set(document["components"]["messages"])
    for codec in all_codecs():
        assert document["components"]["messages"][f"request-{codec.name}"]["contentType"] == codec.content_type


def test_every_interpreted_header_is_described(document: dict[str, Any]) -> None:
    properties = document["components"]["messages"]["request-json"]["headers"]["properties"]
    assert set(_PARSED) <= set(properties)


def test_the_routes_are_described(document: dict[str, Any]) -> None:
    source = document["channels"]["route-a-orders-orders_v1"]
    assert source["address"] == "orders.v1"
    assert source["messages"]["record"]["payload"]["schema"] == json.loads(AVRO)
    assert document["operations"]["receive-route-a-orders-orders_v2"]["action"] == "receive"
    assert document["operations"]["send-route-a-plain-out"]["action"] == "send"
    oip = document["channels"]["route-a-oip-oip_out"]["messages"]["record"]
    assert oip["contentType"] == "application/vnd.oip.v2+json"
    event = document["channels"]["route-a-events-orders_events"]["messages"]["record"]
    assert (event["contentType"], "ce_type" in event["headers"]["properties"]) == ("application/vnd.apache.avro", True)


def test_types_are_those_of_the_decoders() -> None:
    assert {field.name for field in msgspec.structs.fields(Request)} == {
        field.name for field in msgspec.structs.fields(Envelope)
    }
    (type_,) = [field.type for field in msgspec.structs.fields(ResultEvent) if field.name == "type"]
    assert set(type_.__args__) == set(TYPES)


def test_servers_say_how_to_connect() -> None:
    connection = KafkaConnection("k1:9092,k2:9092", "SASL_SSL", sasl_mechanism="SCRAM-SHA-512")
    servers = describe(dataclasses.replace(APPLICATION, connection=connection))["servers"]
    assert servers["kafka-1"] == {"protocol": "kafka-secure", "host": "k2:9092", "security": [{"type": "scramSha512"}]}


# ---------------------------------------------------------------------------------------------------------- examples


def scored(value: bytes, *headers: tuple[str, bytes]) -> bytes:
    """The result of a request, which must be known to be valid except for its model and features."""
    outcome = score(Scorer(catalog_of(sum_model()), DEFAULT_LIMITS), [Fetched(value, 0, None, headers)])
    error = outcome.failures.get(0)
    assert error is None or error.code in ("model_not_found", "version_not_found"), error
    return outcome.values[0]


def as_request(value: bytes, content_type: str) -> None:
    scored(value, ("content-type", content_type.encode()))


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "request": lambda value: as_request(value, "application/json"),
    "requestBinaryEvent": lambda value: as_request(value, "application/json"),
    "requestOpenInference": lambda value: as_request(value, "application/vnd.oip.v2+json"),
    "requestEvent": lambda value: as_request(value, "application/cloudevents+json"),
    "result": lambda value: decode_result(value, JSON),
    "resultBinaryEvent": lambda value: decode_result(value, JSON),
    "jobStatus": lambda value: decode_status(value, JSON),
    "chunkResult": lambda value: decode_chunk_result(value, JSON),
    "manifest": lambda value: decode_manifest(value, codec=JSON),
    "alias": lambda value: decode_alias(value, codec=JSON),
    "baseline": lambda value: decode_baseline(value, JSON),
    "route": lambda value: decode_route(value, codec=JSON),
    "label": lambda value: decode_label(value, JSON, DEFAULT_LIMITS),
    "capturedRequest": lambda value: decode_captured(msgpack.packb(json.loads(value))),
    "shadowResult": decode_shadow_result,
    "auditRecord": decode_audit,
    **{
        f"job{kind}": lambda value: decode_job_message(value, JSON, DEFAULT_LIMITS)
        for kind in ("Open", "Rows", "Close", "Submit", "Cancel", "Retry")
    },
}
DECODERS |= {
    f"{kind}Rollout": lambda value: decode_rollout_message(value, JSON)
    for kind in ("start", "pause", "resume", "promote", "abort")
}
ANSWERS = {"resultOpenInference", "resultEvent"}
"""Messages that only inferd writes, and does not read."""
INTERNAL = {
    "deadLetter",
    "artifactPart",
    "barrierResult",
    "chunk",
    "barrier",
    "windowStats",
    "predictionToLabel",
    "rolloutStatus",
}


def test_examples_are_valid_and_accepted(document: dict[str, Any]) -> None:
    for message in MESSAGES:
        name = f"{message.name}-json" if message.content_type == RECORD else message.name
        assert bool(message.examples) is (message.name not in INTERNAL), name
        for example in document["components"]["messages"][name].get("examples", []):
            assert payload_faults(document, name, example["payload"]) == [], (name, example)
            if message.name not in ANSWERS:
                DECODERS[message.name](json.dumps(example["payload"]).encode())


# ------------------------------------------------------------------------------------------------------ real records


def plain(value: Any) -> Any:
    """A decoded value with bytes as base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def golden(kind: str) -> list[tuple[str, str, Any]]:
    """Name, codec and decoded value of each record."""
    found = json.loads((GOLDEN / f"{kind}.json").read_text())
    if kind == "jobs":
        return [
            (name, codec, plain(msgpack.unpackb(bytes.fromhex(value))) if codec == "msgpack" else json.loads(value))
            for codec, values in found.items()
            for name, value in values.items()
        ]
    return [
        (name, codec, plain(msgpack.unpackb(bytes.fromhex(value))) if codec == "msgpack" else json.loads(value))
        for name, values in found.items()
        for codec, value in values.items()
    ]


@pytest.mark.parametrize(
    ("kind", "message"),
    [("requests", "request"), ("results", "result"), ("manifests", "manifest"), ("aliases", "alias")],
)
def test_golden_records_follow_the_document(document: dict[str, Any], kind: str, message: str) -> None:
    records = golden(kind)
    assert {codec for _, codec, _ in records} == {"json", "msgpack"}
    for name, codec, value in records:
        assert payload_faults(document, f"{message}-{codec}", value) == [], name


JOB_RECORDS = {
    **{kind: f"job{kind.capitalize()}" for kind in ("open", "rows", "close", "submit", "cancel", "retry")},
    **dict.fromkeys(("chunk", "referred"), "chunk"),
    **dict.fromkeys(("queued", "status"), "jobStatus"),
    "barrier": "barrier",
    "barrier_result": "barrierResult",
    "chunk_result": "chunkResult",
}


def test_golden_job_records_follow_the_document(document: dict[str, Any]) -> None:
    messages = document["components"]["messages"]
    for name, codec, value in golden("jobs"):
        message = JOB_RECORDS[name]
        described = f"{message}-{codec}" if f"{message}-{codec}" in messages else message
        assert payload_faults(document, described, value) == [], (name, codec)


def test_answers_of_a_worker_follow_the_document(document: dict[str, Any]) -> None:
    request = {"model_id": "sum", "input_data": [1.0, 2.0]}
    tensors = [{"name": name, "shape": [2], "datatype": "FP64", "data": [1, 2]} for name in ("a", "b")]
    oip = {"model_name": "sum", "id": "x", "inputs": tensors}
    event = {"specversion": "1.0", "id": "e", "source": "/", "type": "t"}
    asked: list[tuple[str, str, Any]] = [
        ("result-json", "application/json", request),
        ("result-json", "application/json", {**request, "model_id": "none"}),
        ("resultOpenInference", "application/vnd.oip.v2+json", oip),
        ("resultOpenInference", "application/vnd.oip.v2+json", {**oip, "model_name": "none"}),
        ("resultEvent", "application/cloudevents+json", {**event, "data": request}),
        ("resultEvent", "application/cloudevents+json", {**event, "data": {**request, "model_id": "none"}}),
    ]
    for name, content_type, body in asked:
        said = json.loads(scored(json.dumps(body).encode(), ("content-type", content_type.encode())))
        assert payload_faults(document, name, said) == [], said


@pytest.mark.parametrize(
    "payload",
    [{}, {"model_id": "m"}, {"model_id": "a b", "input_data": []}, {"model_id": "m", "input_data": [1], "x": 1},
     {"model_id": "m", "input_data": {"a": []}}, {"model_id": "m", "input_data": [1], "outputs": []}],
)  # fmt: skip
def test_requests_that_are_rejected_do_not_follow_it(document: dict[str, Any], payload: Any) -> None:
    assert payload_faults(document, "request-json", payload) != []
    outcome = score(Scorer(catalog_of(sum_model()), DEFAULT_LIMITS), [Fetched(MSGPACK.encode(payload))])
    assert outcome.failures[0].code in ("malformed", "invalid_id", "invalid_value")

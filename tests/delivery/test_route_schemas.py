"""Routes in Avro and Protobuf with a real schema registry; the producers are Confluent's own serializers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.message_factory import GetMessageClass

from inferd.daemon.broker import EmbeddedRegistry
from inferd.streams.routes.formats import RegisteredSchema
from inferd.streams.routes.formats.protobuf.schema import parse_schema
from tests.fixtures.http_client import ask
from tests.fixtures.registry import registry_settings
from tests.fixtures.routes import ForeignTopics, doctor, routes_command, row, status
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, until

COUNT = 500
NOW_MS = int(time.time()) * 1_000
STRUCTURED = b"application/cloudevents+json"
N_FEATURES = 10
Clients = Callable[[str], SchemaRegistryClient]


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Makes Confluent's clients of registries, which are closed after the test."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(SchemaRegistryClient({"url": url}))


def order_schema(*more: dict[str, Any]) -> str:
    """The schema of orders: the features of the demo model at several depths."""
    nested = {"type": "record", "name": "Details", "fields": [
        {"name": "a", "type": "double"}, {"name": "b", "type": ["null", "double"], "default": None}]}  # fmt: skip
    fields: list[dict[str, Any]] = [
        {"name": "id", "type": "long"},
        {"name": "details", "type": ["null", nested], "default": None},
        {"name": "list", "type": {"type": "array", "items": "float"}},
        {"name": "map", "type": {"type": "map", "values": "double"}},
        {"name": "rest", "type": {"type": "array", "items": "double"}},
        *more,
    ]
    return json.dumps({"type": "record", "name": "Order", "namespace": "shop", "fields": fields})


def order(number: int) -> dict[str, Any]:
    values = row(number)
    return {
        "id": number,
        "details": {"a": values[0], "b": values[1]},
        "list": [9.0, values[2]],
        "map": {"x": 1.0, "y": values[3]},
        "rest": values[4:],
    }


FEATURES = ("Column_0=details.a", "Column_1=details.b", "Column_2=list[1]", "Column_3=map.y")
REST = tuple(f"Column_{place}=rest[{place - 4}]" for place in range(4, N_FEATURES))


def options_of(features: tuple[str, ...]) -> list[str]:
    return [text for feature in features for text in ("--feature", feature)]


def expected_predictions(model: TrainedModel) -> Any:
    """Predictions of all orders; `list` has values of 32 bits."""
    import numpy as np

    rows = np.array([row(number) for number in range(COUNT)])
    rows[:, 2] = rows[:, 2].astype(np.float32)
    return model.booster.predict(rows)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_avro_is_enriched_under_a_wider_schema(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, registry: str, clients: Clients, guarantee: str
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("orders"), others.create("scored", partitions=3)
    cluster.deploy(model)
    worker = start_worker(
        cluster, processing_guarantee=guarantee, routes_sources=f"{others.prefix}.*", routes_sinks=sink,
        schema_registry_url=registry,
    )  # fmt: skip
    worker.wait_ready()
    routes_command(
        cluster, "create", "orders", "--from", source, "--to", sink, "--format", "avro", "--model", "demo",
        *options_of(FEATURES + REST), "--field", "fraud", "--start", "earliest",
    )  # fmt: skip
    schemas = clients(registry)
    producer = others.producer()
    # Half of the records have another version of the schema.
    texts = (order_schema(), order_schema({"name": "note", "type": "string", "default": "none"}))
    context = SerializationContext(source, MessageField.VALUE)
    originals: dict[int, bytes] = {}
    for number in range(COUNT):
        serializer = AvroSerializer(schemas, texts[number * 2 // COUNT], conf={"normalize.schemas": False})
        value = serializer(order(number) | ({"note": "x"} if number * 2 >= COUNT else {}), context)
        assert value is not None
        originals[number] = value
        producer.produce(source, value, b"k%d" % number)
    producer.produce(source, b"\0\0\0\0\1", b"broken")
    producer.produce(source, b"\0\x7f\xff\xff\xff\1", b"unknown schema")
    producer.produce(source, b"{}", b"json")
    assert producer.flush(30) == 0

    records = others.read(sink, COUNT)

    expected = expected_predictions(model)
    deserializer = AvroDeserializer(schemas)
    numbers = set()
    for record in records:
        value = deserializer(record.value(), SerializationContext(sink, MessageField.VALUE))
        assert isinstance(value, dict)
        number = value["id"]
        assert record.value()[5 : len(originals[number])] == originals[number][5:]
        fraud = {name: given for name, given in value["fraud"].items() if given is not None}
        assert fraud == {"prediction": expected[number], "model_id": "demo", "version": 1}
        numbers.add(number)
    assert numbers == set(range(COUNT))
    assert len(schemas.get_versions(f"{sink}-value")) == 2
    letters = others.read(f"{cluster.namespace}.default.dead-letters", 3)
    codes = {letter.key(): dict(letter.headers())["inferd-error-code"] for letter in letters}
    assert codes == {b"broken": b"malformed", b"unknown schema": b"schema_not_found", b"json": b"malformed"}
    assert worker.stop() == 0


def test_a_route_that_does_not_fit_a_schema_is_refused_when_it_is_created(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, registry: str, clients: Clients,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By the command, over HTTP, by `routes try` and by `doctor`, which ask a real registry."""
    others = ForeignTopics(cluster)
    source, sink, narrow = others.create("orders"), others.create("scored"), others.create("narrow")
    cluster.deploy(model)
    schemas = clients(registry)
    first = schemas.register_schema(f"{source}-value", Schema(order_schema(), "AVRO"))
    other = {"type": "record", "name": "Order", "namespace": "shop", "fields": [{"name": "x", "type": "string"}]}
    schemas.register_schema(f"{narrow}-value", Schema(json.dumps(other), "AVRO"))
    schemas.set_compatibility(f"{narrow}-value", "FULL")
    settings = {"routes_sources": source, "routes_sinks": f"{others.prefix}.*", "schema_registry_url": registry}
    worker = start_worker(cluster, **settings)
    for name, value in settings.items():
        monkeypatch.setenv(f"INFERD_{name.upper()}", value)
    base = ("create", "orders", "--from", source, "--format", "avro", "--model", "demo", "--field", "fraud")
    paths = options_of(FEATURES + REST)
    wrong = ("Column_0=details.c", *FEATURES[1:], *REST)

    def refused(*arguments: str) -> str:
        done = routes_command(cluster, *base, *arguments, check=False)
        assert done.returncode != 0
        return done.stderr

    message = refused("--to", sink, *options_of(wrong))
    where = f"schema {first}, the latest of subject {source}-value,"
    assert f"feature 'Column_0': path details.c: {where}" in message
    assert f"subject {narrow}-value of the schema registry does not take the schema" in refused("--to", narrow, *paths)
    assert "'id' already" in refused("--to", sink, *paths, "--field", "id")
    worker.wait_ready()
    body = {
        "name": "orders", "source": {"topics": [source], "format": {"name": "avro"}}, "model": "demo",
        "sink": {"topic": sink}, "features": dict(each.split("=") for each in wrong),
    }  # fmt: skip
    answer = ask(worker, "PUT", "/routes/orders", json.dumps(body).encode(), Content_Type="application/json")
    assert (answer.status, "path details.c" in answer.json()["error"]["message"]) == (422, True)

    created = routes_command(cluster, *base, "--to", sink, *paths)
    assert "not checked" not in created.stderr
    until(lambda: status(worker)["routes"] != [], 20, "the worker runs the route")
    assert [each["state"] for each in doctor(cluster)] == ["ok"]
    schemas.set_compatibility(f"{source}-value", "NONE")
    schemas.register_schema(f"{source}-value", Schema(json.dumps(other), "AVRO"))
    tried = routes_command(cluster, "try", "orders", check=False)
    assert "feature 'Column_0': path details.a: schema" in tried.stderr
    (check,) = doctor(cluster)
    assert "feature 'Column_0': path details.a: schema" in check["detail"]
    assert worker.stop() == 0


ORDER_PROTO = """
syntax = "proto3";
package shop;
message Other { int32 x = 1; }
message Order {
  message Details { double a = 1; optional double b = 2; }
  int64 id = 1; Details details = 2; repeated float list = 3; map<string, double> map = 4; repeated double rest = 5;
}
"""


def test_a_route_of_protobuf_is_held_against_the_schemas_of_its_topics(
    cluster: Cluster, model: TrainedModel, registry: str, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("orders"), others.create("scored")
    cluster.deploy(model)
    schemas = clients(registry)
    for topic in (source, sink):
        schemas.register_schema(f"{topic}-value", Schema(ORDER_PROTO, "PROTOBUF"))
    schemas.set_compatibility(f"{sink}-value", "BACKWARD")
    monkeypatch.setenv("INFERD_SCHEMA_REGISTRY_URL", registry)
    base = ("create", "orders", "--from", source, "--to", sink, "--format", "protobuf", "--model", "demo")
    refused = routes_command(
        cluster, *base, *options_of(("Column_0=details.c", *FEATURES[1:], *REST)), check=False
    ).stderr  # fmt: skip
    assert "feature 'Column_0': path details.c: message Order of schema" in refused
    assert f"the latest of subject {source}-value" in refused
    assert "not checked" not in routes_command(cluster, *base, *options_of(FEATURES + REST)).stderr


@pytest.mark.parametrize("producer_of_schemas", ["python", "text"])
def test_protobuf_is_enriched_under_a_wider_schema(
    cluster: Cluster,
    model: TrainedModel,
    start_worker: StartWorker,
    registry: str,
    clients: Clients,
    producer_of_schemas: str,
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("orders"), others.create("scored")
    cluster.deploy(model)
    worker = start_worker(cluster, routes_sources=source, routes_sinks=sink, schema_registry_url=registry)
    worker.wait_ready()
    routes_command(
        cluster, "create", "orders", "--from", source, "--to", sink, "--format", "protobuf", "--model", "demo",
        *options_of(FEATURES + REST), "--field", "fraud", "--start", "earliest",
    )  # fmt: skip
    message = GetMessageClass(parse_schema(RegisteredSchema("PROTOBUF", ORDER_PROTO)).message((1,)))
    schemas = clients(registry)
    if producer_of_schemas == "python":  # it registers the serialized descriptor
        serializer = ProtobufSerializer(message, schemas, {"use.deprecated.format": False})
        context = SerializationContext(source, MessageField.VALUE)
        values = [serializer(message(**order(number)), context) for number in range(COUNT)]
    else:  # as Confluent's serializer for Java does
        schema_id = schemas.register_schema(f"{source}-value", Schema(ORDER_PROTO, "PROTOBUF"))
        header = b"\0" + schema_id.to_bytes(4, "big") + b"\2\2"
        values = [header + message(**order(number)).SerializeToString() for number in range(COUNT)]
    producer = others.producer()
    for number, value in enumerate(values):
        producer.produce(source, value, b"k%d" % number)
    assert producer.flush(30) == 0

    records = others.read(sink, COUNT)

    expected = expected_predictions(model)
    wider = schemas.get_latest_version(f"{sink}-value").schema
    enriched = GetMessageClass(parse_schema(RegisteredSchema("PROTOBUF", wider.schema_str or "")).message((1,)))
    deserializer = ProtobufDeserializer(enriched, {"use.deprecated.format": False})
    found = {}
    for record in records:
        value = deserializer(record.value(), SerializationContext(sink, MessageField.VALUE))
        found[value.id] = value.fraud.prediction.number_value
        assert (value.fraud.model_id, value.fraud.version) == ("demo", 1)
    assert found == dict(enumerate(expected))
    assert worker.stop() == 0


def event_of(number: int, serialize: Callable[[Any], bytes | None]) -> KafkaMessage:
    """An order as an event: in each mode, with data in JSON and in Avro."""
    in_avro, structured = bool(number % 2), bool(number // 2 % 2)
    data: Any = serialize(order(number)) if in_avro else order(number)
    attributes = {
        "id": f"e-{number}", "source": "/shop", "type": "order", "priority": str(number),
        "datacontenttype": "application/avro" if in_avro else "application/json",
    }  # fmt: skip
    if structured:
        return to_structured(CloudEvent(attributes, data), JSONFormat())
    return to_binary(CloudEvent(attributes, data if in_avro else json.dumps(data)), JSONFormat())


def read_event(record: Any) -> CloudEvent:
    headers = {name: value for name, value in record.headers() if value is not None}
    read = from_structured if headers["content-type"].startswith(STRUCTURED) else from_binary
    made = read(KafkaMessage(headers, None, record.value()), JSONFormat(), CloudEvent)
    assert isinstance(made, CloudEvent)
    return made


def expected_of_events(model: TrainedModel) -> dict[int, float]:
    in_json = model.booster.predict([row(number) for number in range(COUNT)])
    in_avro = expected_predictions(model)
    return {number: (in_avro if number % 2 else in_json)[number] for number in range(COUNT)}


@pytest.mark.parametrize("mode", ["enrich", "result"])
def test_cloud_events_with_data_in_avro_and_json(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, registry: str, clients: Clients, mode: str
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("events"), others.create("scored")
    cluster.deploy(model)
    worker = start_worker(
        cluster, processing_guarantee="exactly_once" if mode == "enrich" else "at_least_once", routes_sources=source,
        routes_sinks=sink, schema_registry_url=registry,
    )  # fmt: skip
    worker.wait_ready()
    more = ("--carry", "id", "--carry", "priority=$headers.ce_priority") if mode == "result" else ("--field", "fraud")
    routes_command(
        cluster, "create", "events", "--from", source, "--to", sink, "--format", "cloudevents", "--model", "demo",
        *options_of(FEATURES + REST), "--mode", mode, "--start", "earliest", *more,
    )  # fmt: skip
    serializer = AvroSerializer(clients(registry), order_schema())
    context = SerializationContext(source, MessageField.VALUE)
    producer = others.producer()
    for number in range(COUNT):
        message = event_of(number, lambda tree: serializer(tree, context))
        producer.produce(source, message.value, b"k%d" % number, headers=[*message.headers.items()], timestamp=NOW_MS)
    producer.produce(source, b"{}", b"no event")
    producer.produce(source, b'{"specversion": "1.0"}', b"invalid", headers=[("content-type", STRUCTURED)])
    assert producer.flush(30) == 0

    records = others.read(sink, COUNT)

    deserializer = AvroDeserializer(clients(registry))
    found = {}
    for record in records:
        made = read_event(record)
        data = made.get_data()
        if made.get_datacontenttype() != "application/json":
            data = deserializer(data, SerializationContext(sink, MessageField.VALUE))
        elif isinstance(data, str | bytes):
            data = json.loads(data)
        assert isinstance(data, dict)
        number = data["id"]
        assert (record.key(), made.get_extension("priority")) == (b"k%d" % number, str(number))
        if mode == "result":
            assert (data["priority"], made.get_extension("relatedid")) == (str(number), f"e-{number}")
            assert made.get_id().startswith(f"{source}-{record.partition()}-")
            assert (made.get_type(), made.get_source()) == ("ai.inferd.prediction.v1", cluster.namespace)
            assert made.get_time() == datetime.fromtimestamp(NOW_MS / 1_000, UTC)
        else:
            assert (made.get_id(), made.get_type()) == (f"e-{number}", "order")
        found[number] = (data if mode == "result" else data["fraud"])["prediction"]
    assert found == expected_of_events(model)
    letters = others.read(f"{cluster.namespace}.default.dead-letters", 2)
    codes = {letter.key(): dict(letter.headers())["inferd-error-code"] for letter in letters}
    assert codes == {b"no event": b"malformed", b"invalid": b"malformed"}
    assert worker.stop() == 0


def test_records_wait_for_a_registry_that_is_away(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, clients: Clients, tmp_path: Path
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("orders"), others.create("scored")
    cluster.deploy(model)
    own = EmbeddedRegistry(registry_settings(tmp_path))
    with own:
        url = own.url
        serializer = AvroSerializer(clients(url), order_schema())
        context = SerializationContext(source, MessageField.VALUE)
        values = [serializer(order(number), context) for number in range(COUNT)]
    worker = start_worker(cluster, routes_sources=source, routes_sinks=sink, schema_registry_url=url)
    worker.wait_ready()
    routes_command(
        cluster, "create", "orders", "--from", source, "--to", sink, "--format", "avro", "--model", "demo",
        *options_of(FEATURES + REST), "--mode", "result", "--carry", "id",
    )  # fmt: skip
    producer = others.producer()
    for number, value in enumerate(values):
        producer.produce(source, value, b"k%d" % number)
    assert producer.flush(30) == 0
    until(lambda: "schema registry" in json.dumps(status(worker)["routes"]), 30, "/status names what records wait for")
    assert "schema_registry_waits" in worker.text()
    assert others.read(sink, 0, within_s=1) == []
    with own:
        records = others.read(sink, COUNT)
        deserializer = AvroDeserializer(clients(url))
        found = [deserializer(each.value(), SerializationContext(sink, MessageField.VALUE)) for each in records]
        expected = expected_predictions(model)
        assert {each["id"]: each["prediction"] for each in found if each} == dict(enumerate(expected))
        assert worker.stop() == 0

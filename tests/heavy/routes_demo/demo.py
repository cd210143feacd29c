"""`make demo-routes`: existing topics are scored in their own format, and read by clients that know nothing of inferd.

kafkajs writes real flights in JSON, and Confluent's serializer for Python the same flights in Avro with a schema
registry. Two routes score them. Confluent's client reads what came of the JSON, and kafkajs what came of the Avro.
Its argument is the folder with Node.js and the packages of package-lock.json (see the Makefile).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from inferd import Client
from inferd.daemon.broker import EmbeddedKafka, EmbeddedKafkaSettings, EmbeddedRegistry, EmbeddedRegistrySettings
from inferd.daemon.demo.flights import FlightSet, load_flights
from inferd.daemon.demo.narration import Narrator
from inferd.daemon.demo.training import train
from inferd.daemon.demo.worker_process import WorkerProcess
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.routes import Format, Route, Sink, Source
from inferd.streams.inference import manifest_of

CLIENT = "client.js"
FLIGHTS = 5_000
TIMEOUT_S = 120
MODEL, FIELD = "late_arrival", "delay"
JSON_TOPIC, JSON_SINK = "flights.json", "flights.json.scored"
AVRO_TOPIC, AVRO_SINK = "flights.avro", "flights.avro.scored"
PLACES = {
    "carrier": "flight.carrier",
    "origin": "flight.from",
    "destination": "flight.to",
    "wind_speed_mph": "weather.wind[0]",
    "wind_gust_mph": "weather.wind[1]",
}
"""Features that are deeper in a record; the others are at the top."""


def record_of(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """A flight as an airline might write it."""
    top = {name: value for name, value in row.items() if name not in PLACES}
    flight = {"carrier": row["carrier"], "from": row["origin"], "to": row["destination"]}
    wind = [row["wind_speed_mph"], row["wind_gust_mph"]]
    return {"id": number, "flight": flight, "weather": {"wind": wind}, **top}


def avro_schema(names: Sequence[str]) -> str:
    """The schema of `record_of`."""
    text, number = ["null", "string"], ["null", "double"]
    flight = [{"name": name, "type": text} for name in ("carrier", "from", "to")]
    wind = {"type": "array", "items": number}
    fields: list[dict[str, Any]] = [
        {"name": "id", "type": "long"},
        {"name": "flight", "type": {"type": "record", "name": "Route", "fields": flight}},
        {"name": "weather", "type": {"type": "record", "name": "Weather", "fields": [{"name": "wind", "type": wind}]}},
    ]
    fields += [{"name": name, "type": number, "default": None} for name in names if name not in PLACES]
    return json.dumps({"type": "record", "name": "Flight", "namespace": "airline", "fields": fields})


class Demo:
    """The demo, with its processes running."""

    def __init__(self, narrator: Narrator, node: Path, broker: str, registry: str) -> None:
        self._narrator, self._broker, self._registry = narrator, broker, registry
        self._installed = node
        flights = load_flights()
        self._model = train(flights.train)
        self._held_out: FlightSet = flights.held_out.head(FLIGHTS)
        self._names: list[str] = list(self._held_out.features.columns)
        rows = [dict(zip(self._names, row, strict=True)) for row in self._held_out.rows()]
        self._records = [record_of(number, row) for number, row in enumerate(rows)]
        self._expected = self._model.predict(self._held_out).tolist()

    def create_topics(self) -> None:
        """The topics of somebody else, with different numbers of partitions."""
        topics = [NewTopic(JSON_TOPIC, 3, 1), NewTopic(JSON_SINK, 3, 1), NewTopic(AVRO_TOPIC, 4, 1)]
        admin = AdminClient({"bootstrap.servers": self._broker})
        created = admin.create_topics([*topics, NewTopic(AVRO_SINK, 2, 1)])
        for each in created.values():
            each.result(30)

    async def create_routes(self) -> None:
        """Deploys the model, and creates a route for each topic."""
        async with Client(KafkaConnection(self._broker)) as client:
            manifest = manifest_of(self._model.text, MODEL, version=1)
            await client.deploy_model(self._model.text, manifest)
            for name, source, sink in (("json", JSON_TOPIC, JSON_SINK), ("avro", AVRO_TOPIC, AVRO_SINK)):
                route = Route(
                    name=f"flights-{name}",
                    source=Source([source], Format(name)),
                    model=MODEL,
                    sink=Sink(sink, field=FIELD),
                    features=PLACES,
                )
                await client.create_route(route, start="earliest")

    def produce_json(self) -> None:
        """With kafkajs."""
        lines = [json.dumps({"key": str(each["id"]), "value": each}) for each in self._records]
        self._node("produce", self._broker, JSON_TOPIC, text="\n".join(lines))

    def produce_avro(self) -> None:
        """With Confluent's client for Python, which registers the schema."""
        with SchemaRegistryClient({"url": self._registry}) as registry:
            serializer = AvroSerializer(registry, avro_schema(self._names))
            context = SerializationContext(AVRO_TOPIC, MessageField.VALUE)
            producer = Producer({"bootstrap.servers": self._broker})
            for each in self._records:
                producer.produce(AVRO_TOPIC, serializer(each, context), str(each["id"]).encode())
            assert producer.flush(60) == 0

    def read_json(self) -> list[dict[str, Any]]:
        """What the route wrote for the JSON, with Confluent's client."""
        consumer = Consumer(
            {"bootstrap.servers": self._broker, "group.id": "reader", "auto.offset.reset": "earliest"}
        )  # fmt: skip
        consumer.subscribe([JSON_SINK])
        values: list[dict[str, Any]] = []
        deadline = time.monotonic() + TIMEOUT_S
        while len(values) < FLIGHTS and time.monotonic() < deadline:
            values += [json.loads(each.value() or b"") for each in consumer.consume(1_000, 0.5) if not each.error()]
        consumer.close()
        return values

    def read_avro(self) -> list[dict[str, Any]]:
        """What the route wrote for the Avro, with kafkajs."""
        url = self._registry
        return [
            json.loads(line) for line in self._node("read", self._broker, AVRO_SINK, str(FLIGHTS), url).splitlines()
        ]

    def check(self, what: str, values: Sequence[dict[str, Any]]) -> None:
        """Compares records of a sink with the originals and with LightGBM's own predictions."""
        found = {value["id"]: value.pop(FIELD) for value in values}
        same = [value for value in values if value == self._records[value["id"]]]
        exact = [number for number, field in found.items() if field["prediction"] == self._expected[number]]
        check = self._narrator.check
        check(f"{what}: all {FLIGHTS:,} flights, each once", len(values) == len(found) == FLIGHTS)
        check(f"{what}: nothing else has changed in them", len(same) == FLIGHTS)
        check(f"{what}: every prediction is LightGBM's own, bit for bit", len(exact) == FLIGHTS)

    def _node(self, *arguments: str, text: str | None = None) -> str:
        command = [str(self._installed / "bin/node"), str(self._installed / "npm" / CLIENT), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"client.js failed: {done.stderr[-2_000:]}")
        return done.stdout


def run(node: Path) -> bool:
    """Whether all checks passed."""
    narrator = Narrator()
    narrator.title("Routes", "existing topics, scored in their own format; clients in Python and JavaScript")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inferd-demo-routes-")))
        with narrator.step("broker", "starting Apache Kafka and Apicurio Registry"):
            kafka = EmbeddedKafka(EmbeddedKafkaSettings(data_dir=folder / "kafka", port=0), narrator.progress)
            registry = EmbeddedRegistry(
                EmbeddedRegistrySettings(data_dir=folder / "registry", port=0), narrator.progress
            )
            stack.enter_context(kafka)
            stack.enter_context(registry)
        settings = {
            "INFERD_BROKER": kafka.bootstrap_servers,
            "INFERD_SCHEMA_REGISTRY_URL": registry.url,
            "INFERD_ROUTES_SOURCES": "flights.*",
            "INFERD_ROUTES_SINKS": "flights.*",
            "INFERD_LOG_FORMAT": "json",
            "INFERD_HTTP_PORT": "0",
            "INFERD_DATA_DIR": str(folder / "worker"),
        }
        with narrator.step("worker", "starting a worker that may read and write flights.*"):
            stack.enter_context(WorkerProcess(settings, folder / "worker.log"))
        with narrator.step("train", "training LightGBM on the flights of January to October"):
            demo = Demo(narrator, node, kafka.bootstrap_servers, registry.url)
        demo.create_topics()
        with narrator.step("produce", f"{FLIGHTS:,} flights in JSON (kafkajs), and in Avro (confluent-kafka)"):
            demo.produce_json()
            demo.produce_avro()
        with narrator.step("routes", f"{JSON_TOPIC} → {JSON_SINK}, {AVRO_TOPIC} → {AVRO_SINK}"):
            asyncio.run(demo.create_routes())
        with narrator.step("read", f"{JSON_SINK} with confluent-kafka"):
            from_json = demo.read_json()
        with narrator.step("read", f"{AVRO_SINK} with kafkajs and its own Avro library"):
            from_avro = demo.read_avro()
        narrator.heading("One flight")
        narrator.text(json.dumps(from_json[0] if from_json else None))
        demo.check("JSON", from_json)
        demo.check("Avro", from_avro)
    return narrator.write_checks()


if __name__ == "__main__":
    sys.exit(0 if run(Path(sys.argv[1])) else 1)

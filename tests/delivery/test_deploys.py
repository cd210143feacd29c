"""Models on a real Kafka, as workers see them: deployed, replaced, aliased, removed, and rejected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm
import msgpack
import msgspec
import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition

from inferd.schemas.codec import encode_alias, encode_manifest
from inferd.schemas.dead_letters import DeadLetter
from inferd.schemas.models.model import Alias, Manifest
from tests.fixtures.workers import PART_BYTES, PARTITIONS, Cluster, StartWorker, TrainedModel, Worker, until


@pytest.fixture(scope="module")
def second_model() -> TrainedModel:
    """Another model over the same 10 features."""
    rows = np.random.default_rng(2).normal(size=(500, 10))
    parameters = {"objective": "regression", "num_leaves": 7, "verbose": -1, "num_threads": 1, "deterministic": True}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, rows[:, 3]), 5)
    return TrainedModel(booster, booster.model_to_string().encode(), 10)


@dataclass
class Models:
    """The topics as a deployer, a client and an operator use them."""

    cluster: Cluster
    consumer: Consumer
    worker: Worker | None = None
    row: list[float] = field(default_factory=lambda: np.random.default_rng(5).normal(size=10).tolist())
    asked: int = 0

    def write(self, stream: Any, key: str, value: bytes | None, **options: Any) -> None:
        producer = self.cluster.producer(**options)
        producer.produce(self.cluster.topics.name(stream), value, key.encode())
        assert producer.flush(30) == 0

    def deploy_bytes(self, data: bytes, manifest: Manifest) -> Manifest:
        """Deploys bytes that are not a model, with an otherwise valid manifest."""
        announced = msgspec.structs.replace(manifest, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for part, start in enumerate(range(0, len(data), PART_BYTES)):
            self.write("model-artifacts", f"{announced.sha256}/{part}", data[start : start + PART_BYTES])
        self.write("models", f"demo/{manifest.version}", encode_manifest(announced))
        return announced

    def alias(self, name: str, target: Alias) -> None:
        self.write("models", f"demo@{name}", encode_alias(target))

    def ask(self, model_id: str) -> Any:
        """The result of one request."""
        self.asked += 1
        asked = f"q{self.asked}"
        body = {"id": asked, "model_id": model_id, "input_data": self.row}
        producer = self.cluster.producer()
        producer.produce(
            self.cluster.topics.name("requests"), msgpack.packb(body), b"k", partition=self.asked % PARTITIONS
        )
        assert producer.flush(30) == 0

        def answer() -> Any:
            message = self.consumer.poll(1.0)
            result = msgpack.unpackb(message.value()) if message is not None and not message.error() else {}
            return result if result.get("id") == asked else None

        return until(answer, 20, f"an answer to {asked}")

    def version(self, number: int) -> Any:
        """A version's entry in /status; None if it is not listed."""
        assert self.worker is not None
        status = self.worker.get("/status")[1]
        return next((model for model in status["models"] if model["version"] == number), None) if status else None

    def until_state(self, number: int, state: str, digest: str | None = None) -> Any:
        def seen() -> Any:
            version = self.version(number)
            right = version is not None and version["state"] == state and digest in (None, version["digest"])
            return version if right else None

        return until(seen, 20, f"version {number} {state}")

    def dead_letters(self, count: int) -> list[DeadLetter]:
        records = self.cluster.read("dead-letters", lambda found: len(found) >= count, 20)
        return [DeadLetter.parse(record.key(), record.value(), record.headers()) for record in records]

    def errors(self) -> list[Any]:
        """The errors in the worker's log."""
        assert self.worker is not None
        lines = [json.loads(line) for line in self.worker.text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["level"] in ("error", "critical")]


@pytest.fixture
def models(cluster: Cluster) -> Iterator[Models]:
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": f"{cluster.namespace}-answers"})
    topic = cluster.topics.name("results")
    consumer.assign([TopicPartition(topic, n, 0) for n in range(PARTITIONS)])
    yield Models(cluster, consumer)
    consumer.close()


def test_the_life_of_a_model(
    models: Models, model: TrainedModel, second_model: TrainedModel, start_worker: StartWorker
) -> None:
    expected = {1: model.booster.predict([models.row])[0], 2: second_model.booster.predict([models.row])[0]}

    def answers(reference: str, version: int) -> bool:
        result = models.ask(reference)
        return bool((result.get("version"), result.get("prediction")) == (version, expected[version]))

    models.cluster.deploy(model, version=1)
    models.worker = worker = start_worker(models.cluster)
    worker.wait_ready()
    assert answers("demo", 1)

    models.cluster.deploy(second_model, version=2)
    models.until_state(2, "ready")
    assert answers("demo", 2)
    assert answers("demo:1", 1)

    models.alias("champion", Alias(1))
    until(lambda: models.version(1)["aliases"] == ["champion"], 20, "the alias")
    assert answers("demo", 1)
    assert answers("demo@champion", 1)
    assert answers("demo:2", 2)

    models.write("models", "demo/2", None)
    until(lambda: models.version(2) is None, 20, "the removal")
    assert models.ask("demo:2")["error"]["code"] == "version_not_found"
    assert answers("demo", 1)

    models.alias("champion", Alias(2))
    until(lambda: models.version(1)["aliases"] == [], 20, "the alias")
    assert models.ask("demo")["error"]["code"] == "version_not_found"
    assert models.errors() == []
    assert worker.stop() == 0


def test_bad_deploys_change_nothing(models: Models, model: TrainedModel, start_worker: StartWorker) -> None:
    true = models.cluster.deploy(model, version=1)
    models.worker = worker = start_worker(models.cluster)
    other = start_worker(models.cluster)
    worker.wait_ready()
    other.wait_ready()

    flipped = bytearray(model.data)
    for at in range(len(flipped) // 3, len(flipped), 97):
        flipped[at] ^= 0x10
    models.deploy_bytes(bytes(flipped), model.manifest(version=3))
    assert "did not pass its trial" in models.until_state(3, "failed")["reason"]

    truncated = models.deploy_bytes(model.data[: len(model.data) // 2], true)
    reason = models.until_state(1, "failed", truncated.sha256)["reason"]
    assert "did not pass its trial" in reason
    assert reason.endswith(f"; digest {true.sha256} continues to serve")
    assert worker.get("/readyz")[0] == 200

    models.write("models", "demo/4", b"\xc1 garbage")
    models.write("models", "demo", b"\xc1 garbage")
    # A record of the maximum size: with its headers, its dead letter exceeds the producer's default limit.
    huge = b"x" * 1_048_400
    models.write("model-artifacts", f"{'0' * 64}/0", huge, **{"message.max.bytes": 3_000_000})

    found = models.dead_letters(5)
    assert len(found) == 5, "one of two workers copies them"
    letters = {letter.key: letter for letter in found}
    assert {key: letter.code for key, letter in letters.items()} == {
        b"demo/3": "internal",
        b"demo/1": "internal",
        b"demo/4": "malformed",
        b"demo": "malformed",
        f"{'0' * 64}/0".encode(): "too_large",
    }
    assert letters[b"demo/4"].value == b"\xc1 garbage"
    assert letters[f"{'0' * 64}/0".encode()].value == huge
    assert letters[b"demo/3"].topic == models.cluster.topics.name("models")

    result = models.ask("demo")
    assert (result["version"], result["digest"]) == (1, true.sha256)
    assert result["prediction"] == model.booster.predict([models.row])[0]
    said = [error["event"] for error in models.errors()]
    assert sorted(said) == ["model_failed", "model_failed", *["model_record_rejected"] * 3]
    assert (worker.stop(), other.stop()) == (0, 0)


def test_an_unusable_data_directory_is_reported(models: Models, start_worker: StartWorker, tmp_path: Path) -> None:
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "artifacts").write_text("in the way")
    models.worker = worker = start_worker(models.cluster, data_dir=tmp_path / "occupied")
    assert worker.process.wait(30) == 1
    (told,) = models.errors()
    assert "set INFERD_DATA_DIR to a directory that this user may write" in told["reason"]


def test_records_of_an_aborted_transaction_are_not_deployed(
    models: Models, model: TrainedModel, start_worker: StartWorker
) -> None:
    models.cluster.deploy(model, version=1)
    name = models.cluster.topics.name
    producer = models.cluster.producer(**{"transactional.id": models.cluster.namespace})
    producer.init_transactions(30)
    # An aborted transaction is the end of both topics when the worker starts.
    producer.begin_transaction()
    producer.produce(name("models"), encode_manifest(model.manifest(version=2)), b"demo/2")
    producer.produce(name("model-artifacts"), b"x", f"{'0' * 64}/0".encode())
    producer.abort_transaction(30)
    models.worker = worker = start_worker(models.cluster)
    worker.wait_ready()
    assert models.version(2) is None

    producer.begin_transaction()
    producer.produce(name("models"), encode_manifest(model.manifest(version=3)), b"demo/3")
    producer.flush(30)
    assert models.ask("demo")["version"] == 1
    producer.commit_transaction(30)
    models.until_state(3, "ready")
    assert models.ask("demo")["version"] == 3
    assert worker.stop() == 0

"""More models than a worker may hold in memory: loaded for their requests and unloaded for others; other requests do
not wait."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import lightgbm
import msgpack
import numpy as np
import pytest

from inferd.schemas.codec import encode_alias, encode_manifest
from inferd.schemas.jobs.codec import encode_open
from inferd.schemas.models import Manifest
from inferd.schemas.models.model import Alias
from inferd.streams.models.trial.trial import TrialCase, try_models
from tests.fixtures.jobs import JobOnTopics, rows_of
from tests.fixtures.workers import PARTITIONS, Cluster, StartWorker, TrainedModel, until

GATED = (sys.executable, "-m", "tests.fixtures.gated_loads", "worker")
ROOT = str(Path(__file__).parents[2])
ROWS = 40
MODELS = int(os.environ.get("MODELS", "200"))
HELD = MODELS // 10
WITHIN_S = 60.0 + 2 * MODELS
JOBS = 3
TREES = int(os.environ.get("MODEL_TREES", "1"))
WORKER_BYTES_MAX = 500_000_000
"""Memory of a worker without its models."""
pytestmark = pytest.mark.timeout(300 + 3 * MODELS)
Results = dict[int, list[dict[str, Any]]]


def model_of(seed: int) -> TrainedModel:
    """A model of TREES trees: one tree of up to 4 leaves, or several of up to 255 leaves and 26,000 bytes each."""
    rows = np.random.default_rng(seed).normal(size=(200 if TREES == 1 else 5_000, 3))
    parameters = {
        "objective": "regression", "num_leaves": 4 if TREES == 1 else 255, "min_data_in_leaf": 5, "verbose": -1,
        "num_threads": 1, "deterministic": True,
    }  # fmt: skip
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, rows[:, 0] * rows[:, 1] * seed), TREES)
    return TrainedModel(booster, booster.model_to_string().encode(), 3)


@pytest.fixture(scope="module")
def large_model() -> TrainedModel:
    """A model of more than a megabyte, whose memory is measured to a few percent."""
    rows = np.random.default_rng(9).normal(size=(5_000, 10))
    parameters = {"objective": "regression", "num_leaves": 63, "verbose": -1, "num_threads": 1, "deterministic": True}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, rows[:, 0] * rows[:, 1]), 200)
    return TrainedModel(booster, booster.model_to_string().encode(), 10)


def memory_of(*models: TrainedModel) -> int:
    """The memory of a model."""
    verdicts = try_models([TrialCase(model.data, model.manifest()) for model in models], measure=True)
    return int(median(verdict.resident_bytes for verdict in verdicts))


def ask(cluster: Cluster, requests: list[tuple[int, str, str]], row: list[float], **headers: str) -> None:
    """Sends requests: (partition, id, model), …"""
    producer = cluster.producer()
    for partition, name, model_id in requests:
        body = {"id": name, "model_id": model_id, "input_data": row}
        producer.produce(
            cluster.topics.name("requests"), msgpack.packb(body), b"k", partition=partition,
            headers=[(key, value.encode()) for key, value in headers.items()],
        )  # fmt: skip
    assert producer.flush(30) == 0


def results(cluster: Cluster) -> Results:
    """Results by partition, in order."""
    found: Results = defaultdict(list)
    for record in cluster.read_all("results"):
        found[record.partition()].append(msgpack.unpackb(record.value()))
    return found


def ids(found: Results, partition: int) -> list[str]:
    return [result["id"] for result in found[partition]]


def test_many_models_in_a_worker_that_may_hold_a_tenth_of_them(cluster: Cluster, start_worker: StartWorker) -> None:
    models = [model_of(seed) for seed in range(1, 6)]
    names = [f"m{number}" for number in range(MODELS)]
    producer = cluster.producer()
    for model in models:
        cluster.produce_artifact(producer, model.data, model.manifest().sha256)
    manifests = {name: models[place % len(models)].manifest(name) for place, name in enumerate(names)}
    for name, manifest in manifests.items():
        producer.produce(cluster.topics.name("models"), encode_manifest(manifest), f"{name}/1".encode())
    assert producer.flush(30) == 0
    bytes_max = HELD * memory_of(*models)
    worker = start_worker(cluster, models_bytes_max=bytes_max)
    worker.wait_ready(WITHIN_S)
    status = worker.get("/status")[1]
    assert {version["state"] for version in status["models"]} == {"ready", "unloaded"}
    held = status["model_memory"]["loaded"]
    assert HELD / 5 < held < HELD * 5

    asked = random.Random(3).sample(names, len(names)) + ["m0"] * HELD
    row = [0.5, -1.0, 2.0]
    ask(cluster, [(n % PARTITIONS, f"r{n}", name) for n, name in enumerate(asked)], row)
    cluster.read("results", lambda records: len(records) >= len(asked), WITHIN_S)
    found = results(cluster)
    for partition in range(PARTITIONS):
        assert ids(found, partition) == [f"r{n}" for n in range(len(asked)) if n % PARTITIONS == partition]
    expected = {model.manifest().sha256: float(model.booster.predict([row])[0]) for model in models}
    for result in (result for of_partition in found.values() for result in of_partition):
        name = asked[int(result["id"][1:])]
        assert (result["model_id"], result["prediction"]) == (name, expected[manifests[name].sha256])
    status = worker.get("/status")[1]
    assert status["memory"]["resident_bytes"] < bytes_max + WORKER_BYTES_MAX
    memory = status["model_memory"]
    assert memory["bytes"] <= memory["bytes_max"] == bytes_max
    assert memory["loads"] - memory["unloads"] == memory["loaded"]
    assert memory["unloads"] > MODELS / 3
    assert (memory["waiting"], memory["load_failures"]) == (0, 0)

    unloaded = [version["model_id"] for version in worker.get("/status")[1]["models"] if version["state"] == "unloaded"]
    for name in unloaded[:JOBS]:
        check_job(cluster, manifests[name], models)
    assert worker.stop() == 0


def check_job(cluster: Cluster, manifest: Manifest, models: Sequence[TrainedModel]) -> None:
    """A job over a model that is not loaded has the predictions of the library."""
    model = next(model for model in models if model.manifest().sha256 == manifest.sha256)
    job = JobOnTopics(cluster, model, f"job-{manifest.model_id}", rows_of(50, 3), per_message=20)
    job.send(encode_open(manifest.model_id))
    job.send_rows()
    job.close()
    assert job.wait_ended(60)["status"] == "completed"
    assert job.ledger().predictions.tobytes() == model.booster.predict(job.rows).tobytes()


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_request_that_waits_for_its_model_does_not_delay_others(
    kafka: str, namespace: str, start_worker: StartWorker, large_model: TrainedModel, tmp_path: Path, guarantee: str
) -> None:
    model = large_model
    own, other = Cluster(kafka, namespace), Cluster(kafka, namespace, "other")
    for cluster in (own, other):
        cluster.create_topics()
        cluster.deploy(model)
        producer = cluster.producer()
        producer.produce(cluster.topics.name("models"), encode_alias(Alias(1)), b"demo@champion")
        assert producer.flush(30) == 0
    own.deploy(model, "another")
    own.deploy(model, "slow")
    gate = tmp_path / "gate"
    settings = {
        "models_bytes_max": int(3.5 * memory_of(model, model, model)),
        "tenants": "default,other",
        "processing_guarantee": guarantee,
        "command": GATED,
        "environ": {"GATE": str(gate), "PYTHONPATH": ROOT},
    }
    worker = start_worker(own, **settings)
    worker.wait_ready(120)
    states = {(m["tenant"], m["model_id"]): m["state"] for m in worker.get("/status")[1]["models"]}
    assert states == {
        ("default", "another"): "ready", ("default", "demo"): "ready", ("default", "slow"): "unloaded",
        ("other", "demo"): "ready",
    }  # fmt: skip
    row = np.random.default_rng(5).normal(size=10).tolist()
    ask(own, [(0, "a", "demo"), (0, "b", "slow"), (0, "c", "demo"), (0, "d", "slow")], row)
    ask(own, [(1, "late", "slow")], row, deadline=str(int(time.time() * 1000) + 1_000))
    ask(own, [(2, f"r{n}", "demo") for n in range(ROWS)], row)
    ask(other, [(n % PARTITIONS, f"r{n}", "demo") for n in range(ROWS)], row)

    until(lambda: len(ids(results(own), 2)) == ROWS, 30, "results of another partition")
    until(lambda: sum(map(len, results(other).values())) == ROWS, 30, "results of another tenant")
    until(lambda: ids(results(own), 1) == ["late"], 30, "an error at the deadline")
    found = results(own)
    assert found[1][0]["error"]["code"] == "deadline_exceeded"
    assert ids(found, 0) == ["a"]
    assert worker.get("/status")[1]["model_memory"]["waiting"] == 1
    assert worker.get("/readyz")[0] == 200

    worker.kill()
    gate.touch()
    successor = start_worker(own, **settings)
    until(lambda: set(ids(results(own), 0)) == {*"abcd"}, 60, "the requests that waited")
    assert successor.stop() == 0
    found = results(own)
    order = list(dict.fromkeys(ids(found, 0)))
    assert order == [*"abcd"], "in the order of their partition"
    if guarantee == "exactly_once":
        assert [len(ids(found, n)) for n in range(3)] == [4, 1, ROWS]
    prediction = float(model.booster.predict([row])[0])
    assert {result["prediction"] for result in found[0] + found[2]} == {prediction}

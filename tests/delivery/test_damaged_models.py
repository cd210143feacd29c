"""Damaged files of every format on the models topic of a running worker, whose earlier versions continue to serve.

`make model-mutants` deploys thousands; `make test` a few (`MUTANTS` per format).
"""

from __future__ import annotations

import hashlib
import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from inferd import SyncClient
from inferd.schemas.codec import encode_manifest
from inferd.schemas.models import Manifest
from inferd.streams.inference import manifest_of, read_model
from tests.fixtures.workers import Cluster, TrainedModel, Worker, until
from tests.unit.streams.inference.formats.catboost import catboost_models
from tests.unit.streams.inference.formats.mutations import OF_BYTES, is_read
from tests.unit.streams.inference.formats.onnx import onnx_models
from tests.unit.streams.inference.formats.sklearn import sklearn_models
from tests.unit.streams.inference.formats.sklearn.test_sklearn_file import mutants as skops_mutants
from tests.unit.streams.inference.formats.xgboost import xgboost_models

MUTANTS = int(os.environ.get("MUTANTS", "6"))
WITHIN_S = 300.0 + 2 * MUTANTS
GROWTH_BYTES_MAX = 64 * 2**20
"""Versions that are damaged and still predict are loaded, and some memory is the allocator's."""
ROW = [0.5, -0.25, 1.5, 2.0]
pytestmark = pytest.mark.timeout(4 * WITHIN_S)


@pytest.fixture(scope="module")
def files(model: TrainedModel) -> dict[str, bytes]:
    """A sound file of each format."""
    return {
        "lightgbm": model.data,
        "xgboost": xgboost_models.train("softprob").content,
        "catboost": catboost_models.train("logloss").content,
        "onnx": onnx_models.converted("forest", zipmap=False),
        "sklearn": sklearn_models.trained("tree").content,
    }


def damaged_files(name: str, content: bytes) -> list[bytes]:
    """Half of them pass the check of their structure, where enough do: these reach the library."""
    chance = random.Random(f"{name} {MUTANTS}")
    drawn = [chance.choice(OF_BYTES)(content, chance) for _ in range(20 * MUTANTS)]
    if name == "sklearn":
        drawn += skops_mutants(content, 4 * MUTANTS, 5)
    passing = [mutant for mutant in drawn if mutant != content and is_read(read_model, mutant)][: MUTANTS // 2]
    refused = [mutant for mutant in drawn if mutant and not is_read(read_model, mutant)]
    return [*passing, *refused[: MUTANTS - len(passing)]]


@pytest.fixture(scope="module")
def place(kafka: str) -> Cluster:
    made = Cluster(kafka, f"damaged-{uuid.uuid4().hex[:8]}")
    made.create_topics()
    return made


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the worker and its trial processes may leave temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def worker(
    place: Cluster, files: dict[str, bytes], temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """Serves version 1 of a model of each format."""
    with SyncClient(place.bootstrap, namespace=place.namespace) as connected:
        for name, content in files.items():
            connected.deploy_model(content, manifest_of(content, name, 1))
    directory = tmp_path_factory.mktemp("worker")
    started = Worker(place.bootstrap, place.namespace, directory, "w1", environ={"TMPDIR": str(temporary)})
    try:
        started.wait_ready(WITHIN_S)
        wait_decided(started, dict.fromkeys(files, 1))
        yield started
    finally:
        started.kill()


def announce(place: Cluster, good: Manifest, number: int, content: bytes) -> None:
    """Writes the records of a version as another program might: without checking the file first."""
    producer = place.producer()
    digest = hashlib.sha256(content).hexdigest()
    manifest = msgspec.structs.replace(good, version=number, sha256=digest, size=len(content))
    producer.produce(place.topics.name("model-artifacts"), content, f"{digest}/0".encode())
    producer.produce(place.topics.name("models"), encode_manifest(manifest), f"{good.model_id}/{number}".encode())
    assert producer.flush(60) == 0


def wait_decided(worker: Worker, versions: dict[str, int]) -> dict[str, dict[int, str]]:
    """The state of each version up to the given number, once none is pending."""

    def decided() -> dict[str, dict[int, str]] | None:
        assert worker.process.poll() is None, worker.text()[-3_000:]
        found: dict[str, dict[int, str]] = {name: {} for name in versions}
        for each in (worker.get("/status")[1] or {}).get("models", ()):
            if each["state"] in ("ready", "failed"):
                found[each["model_id"]][each["version"]] = each["state"]
        return found if all(len(found[name]) >= count for name, count in versions.items()) else None

    states: dict[str, dict[int, str]] = until(decided, WITHIN_S, "every version is ready or failed")
    return states


def answers(client: SyncClient, rows: dict[str, list[float]]) -> dict[str, Any]:
    """The predictions of version 1 of each model."""
    return {
        name: client.predict(f"{name}:1", row, outputs=["prediction", "probabilities"], timeout_s=WITHIN_S).outputs
        for name, row in rows.items()
    }


def test_no_damaged_file_ends_a_worker_or_leaves_files_behind(
    place: Cluster, worker: Worker, files: dict[str, bytes], temporary: Path
) -> None:
    goods = {name: manifest_of(content, name, 1) for name, content in files.items()}
    rows = {name: (3 * ROW)[: len(goods[name].features)] for name in files}
    damaged = {name: damaged_files(name, content) for name, content in files.items()}
    with SyncClient(place.bootstrap, namespace=place.namespace) as client:
        before = answers(client, rows)
        resident, last = [], dict.fromkeys(files, 1)
        for half in (0, 1):
            for name, mutants in damaged.items():
                for mutant in mutants[half::2]:
                    last[name] += 1
                    announce(place, goods[name], last[name], mutant)
            states = wait_decided(worker, last)
            assert answers(client, rows) == before
            resident.append(worker.get("/status")[1]["memory"]["resident_bytes"])
    assert all(number == len(damaged[name]) + 1 for name, number in last.items())
    assert all("failed" in of_model.values() for of_model in states.values())
    assert resident[1] - resident[0] < GROWTH_BYTES_MAX, resident
    until(lambda: not psutil.Process(worker.process.pid).children(recursive=True), 60, "no process is left")
    assert list(temporary.rglob("*")) == []
    assert worker.stop(120) == 0

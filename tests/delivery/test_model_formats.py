"""Models of scikit-learn and ONNX: deployed by the command, scored over Kafka, equal to their own libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest

from inferd import Client
from tests.fixtures.workers import Cluster, Worker
from tests.unit.streams.inference.formats.onnx.onnx_models import converted
from tests.unit.streams.inference.formats.onnx.onnx_models import numbers as rows_of_numbers
from tests.unit.streams.inference.formats.sklearn.sklearn_models import trained

COMMAND = (sys.executable, "-c", "from inferd.daemon.cli import main; main()")
pytestmark = pytest.mark.timeout(500)
ENCODINGS: tuple[Literal["msgpack", "json"], ...] = ("msgpack", "json")


@pytest.fixture(scope="module")
def place(kafka: str) -> Cluster:
    made = Cluster(kafka, f"formats-{uuid.uuid4().hex[:8]}")
    made.create_topics()
    return made


@pytest.fixture(scope="module")
def worker(place: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    started = Worker(place.bootstrap, place.namespace, tmp_path_factory.mktemp("worker"), "w1")
    yield started
    started.kill()


def deploy(place: Cluster, path: Path, name: str) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("INFERD_")}
    environment |= {"INFERD_BROKER": place.bootstrap, "INFERD_NAMESPACE": place.namespace}
    command = [*COMMAND, "models", "deploy", str(path), "--name", name, "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def outputs_of(
    place: Cluster, name: str, rows: list[Any], encoding: Literal["msgpack", "json"]
) -> dict[str, Any]:
    async with Client(place.bootstrap, namespace=place.namespace, encoding=encoding) as client:
        result = await client.predict(name, rows, outputs=["prediction", "probabilities"], timeout_s=200)
    return dict(result.outputs)


@pytest.mark.usefixtures("worker")
async def test_a_ticket_classifier_of_scikit_learn(place: Cluster, tmp_path: Path) -> None:
    model = trained("tfidf")
    path = tmp_path / "tickets.skops"
    path.write_bytes(model.content)
    deploy(place, path, "tickets")
    texts = [*model.rows[:5], "ünïcode 数据 🙂", ""]
    for encoding in ENCODINGS:
        got = await outputs_of(place, "tickets", [[text] for text in texts], encoding)
        assert got["prediction"] == model.estimator.predict(texts).tolist()
        assert got["probabilities"] == model.estimator.predict_proba(texts).tolist()


@pytest.mark.usefixtures("worker")
async def test_a_forest_of_onnx(place: Cluster, tmp_path: Path) -> None:
    content = converted("forest", zipmap=False)
    path = tmp_path / "forest.onnx"
    path.write_bytes(content)
    deploy(place, path, "forest")
    rows = rows_of_numbers(3)[:6]
    labels, scores = onnxruntime.InferenceSession(content).run(None, {"X": rows})
    for encoding in ENCODINGS:
        got = await outputs_of(place, "forest", np.asarray(rows, float).tolist(), encoding)
        assert got["prediction"] == labels.tolist()
        assert got["probabilities"] == scores.tolist()

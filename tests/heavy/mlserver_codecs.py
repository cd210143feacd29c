"""MLServer's codecs as clients of a running worker, for models of every format. `make test-mlserver`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from inferd import SyncClient
from inferd.streams.inference import manifest_of
from tests.fixtures.format_models import NAMES, FormatModel, format_model
from tests.fixtures.workers import Cluster, TrainedModel, Worker, until

PYTHON = Path(__file__).parents[2] / ".venv-mlserver" / "bin" / "python"
CLIENT = Path(__file__).with_name("mlserver_client.py")
WITHIN_S = 600.0
LIGHTGBM = "lgb"
pytestmark = pytest.mark.timeout(1_800)


@pytest.fixture(scope="module")
def models(model: TrainedModel) -> dict[str, FormatModel]:
    """A model of each format, by name."""
    rows = pd.DataFrame(np.random.default_rng(2).normal(size=(9, model.n_features)))
    rows.columns = pd.Index([feature.name for feature in model.manifest().features])
    rows.iloc[3, 4] = np.nan
    expected = {"prediction": model.booster.predict(rows.to_numpy(), num_threads=1).tolist()}
    return {name: format_model(name) for name in NAMES} | {
        LIGHTGBM: FormatModel(LIGHTGBM, ".txt", model.data, rows, expected, ())
    }


@pytest.fixture(scope="module")
def place(kafka: str) -> Cluster:
    made = Cluster(kafka, "mlserver-codecs")
    made.create_topics()
    return made


@pytest.fixture(scope="module")
def worker(
    place: Cluster, models: dict[str, FormatModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """A worker that serves them."""
    with SyncClient(place.bootstrap, namespace=place.namespace) as client:
        for name, model in models.items():
            client.deploy_model(model.content, manifest_of(model.content, name, 1))
    started = Worker(place.bootstrap, place.namespace, tmp_path_factory.mktemp("worker"), "w1", http_timeout_s=WITHIN_S)
    try:
        started.wait_ready(WITHIN_S)
        for name in models:
            until(partial(is_served, started, name), WITHIN_S, f"{name} is served")
        yield started
    finally:
        started.kill()


def is_served(worker: Worker, name: str) -> bool:
    return worker.get(f"/v2/models/{name}/ready")[0] == 200


def columns_of(model: FormatModel) -> dict[str, dict[str, Any]]:
    """The columns of a model's rows as pandas takes them; MLServer encodes texts in columns of objects only."""
    return {
        name: {"dtype": str(dtype) if dtype.kind in "fib" else "object", "data": [row[name] for row in model.rows]}
        for name, dtype in model.frame.dtypes.items()
    }


def codecs_of(model: FormatModel) -> tuple[str, ...]:
    """Columns one by one, as a data frame, and as a matrix if all are floats."""
    floats = all(dtype.kind == "f" for dtype in model.frame.dtypes)
    return ("columns", "frame", *(["matrix"] if floats else []))


def test_every_codec_and_format(worker: Worker, models: dict[str, FormatModel]) -> None:
    asked = [(model, codec) for model in models.values() for codec in codecs_of(model)]
    assert sum(codec == "matrix" for _, codec in asked) == 2
    requests = [
        {
            "url": f"{worker.url}/v2/models/{model.name}/infer",
            "codec": codec,
            "columns": columns_of(model),
            "outputs": list(model.expected),
        }
        for model, codec in asked
    ]
    for (model, codec), values in zip(asked, said_of(requests), strict=True):
        assert values == model.expected, (model.name, codec)


def said_of(lines: list[Any]) -> list[Any]:
    """What MLServer's codecs make of each line."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    command = [str(PYTHON), str(CLIENT)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_codec_and_format_on_kafka(place: Cluster, worker: Worker, models: dict[str, FormatModel]) -> None:
    """Requests are records; as to MLServer's own Kafka server, headers name the model."""
    asked = {f"{model.name}.{codec}": (model, codec) for model in models.values() for codec in codecs_of(model)}
    bodies = said_of(
        [
            {"codec": codec, "columns": columns_of(model), "outputs": list(model.expected)}
            for model, codec in asked.values()
        ]
    )
    producer = place.producer()
    for (key, (model, _)), body in zip(asked.items(), bodies, strict=True):
        headers: list[tuple[str, str | bytes | None]] = [
            ("content-type", "application/vnd.oip.v2+json"),
            ("mlserver-model", model.name),
        ]
        producer.produce(place.topics.name("requests"), json.dumps(body), key, headers=headers)
    assert producer.flush(60) == 0
    records = place.read("results", lambda found: len({each.key() for each in found}) >= len(asked), WITHIN_S)
    responses = {record.key().decode(): json.loads(record.value()) for record in records}
    values = said_of([{"response": responses[key]} for key in asked])
    for (key, (model, _)), found in zip(asked.items(), values, strict=True):
        assert found == model.expected, key

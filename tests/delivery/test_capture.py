"""Captured requests on a real broker: over Kafka, over HTTP and after a kill; read by the client and exported."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from inferd import SyncClient
from inferd.schemas.capture import CapturedRequest
from tests.fixtures.workers import Cluster, Load, StartWorker, TrainedModel, Worker, until

REQUESTS = 600
pytestmark = pytest.mark.timeout(300)


def captured_of(cluster: Cluster) -> list[CapturedRequest]:
    with SyncClient(cluster.bootstrap, namespace=cluster.namespace) as client:
        return list(client.captured("demo:1"))


def predict_over_http(worker: Worker, row: Sequence[float]) -> None:
    body = json.dumps({"id": "over-http", "input_data": list(row)}).encode()
    request = urllib.request.Request(f"{worker.url}/predict/demo", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def export(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from inferd.daemon.cli import main; main()", "capture", "export", *arguments]
    options = ["--broker", cluster.bootstrap, "--namespace", cluster.namespace]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_captured_requests_are_what_the_model_was_given_and_predicted(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, tmp_path: Path, guarantee: str
) -> None:
    cluster.deploy(model)
    worker = start_worker(cluster, processing_guarantee=guarantee, capture_share=1)
    worker.wait_ready()
    load = Load(cluster, model)
    load.send(REQUESTS // 2)
    cluster.read("results", lambda records: len(records) >= REQUESTS // 4, 60)
    worker.kill()
    load.send(REQUESTS // 2)
    worker = start_worker(cluster, processing_guarantee=guarantee, capture_share=1)
    worker.wait_ready()
    row = [0.5] * model.n_features
    predict_over_http(worker, row)
    ledger = load.ledger()
    assert not ledger.lost
    until(lambda: any(each.id == "over-http" for each in captured_of(cluster)), 30, "the HTTP request is captured")

    captured = captured_of(cluster)
    ids = [each.id for each in captured]
    assert set(ids) == {"over-http", *(f"r{n}" for n in range(REQUESTS))}
    if guarantee == "exactly_once":
        assert len(ids) == REQUESTS + 1
    for each in captured:
        rows = np.array(list(each.features.values())).T
        assert list(each.outputs["prediction"]) == model.booster.predict(rows).tolist()

    with urllib.request.urlopen(f"{worker.url}/models/demo/captured?version=1", timeout=60) as answer:
        assert sorted(json.loads(line)["id"] for line in answer.read().splitlines()) == sorted(ids)

    path = tmp_path / "rows.parquet"
    done = export(cluster, "demo", "--since", "1h", "--outputs", "prediction,raw", "-o", str(path))
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(path)
    assert sorted(table["id"]) == sorted(ids)
    names = [name for name in table if name.startswith("Column_")]
    assert table["prediction"].tolist() == model.booster.predict(table[names].to_numpy()).tolist()
    assert table["raw"].isna().all(), "no request asked for it"
    later = export(cluster, "demo", "--since", "2999-01-01T00:00Z", "-o", str(tmp_path / "none.csv"))
    assert (later.returncode, "wrote nothing" in later.stderr) == (0, True)
    assert not (tmp_path / "none.csv").exists()
    assert worker.stop() == 0


def test_nothing_is_captured_by_default(cluster: Cluster, model: TrainedModel, start_worker: StartWorker) -> None:
    cluster.deploy(model)
    start_worker(cluster).wait_ready()
    load = Load(cluster, model)
    load.send(20)
    assert not load.ledger().lost
    assert captured_of(cluster) == []

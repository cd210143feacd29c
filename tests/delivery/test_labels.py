"""Labels on a real broker: joined with predictions once, whatever their key, order and partition, and under kills."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from sklearn import metrics

from inferd import SyncClient
from inferd.schemas.labels import Label
from inferd.schemas.monitoring import Quality, WindowStats, decode_window, merged
from tests.fixtures.workers import Cluster, Load, StartWorker, TrainedModel, until

REQUESTS = 800
WINDOW_S = 3_600
pytestmark = pytest.mark.timeout(300)


def quality_of(cluster: Cluster) -> Quality:
    """The sum of what labels added to the windows of `demo:1`."""
    found: list[WindowStats] = [decode_window(record.value()) for record in cluster.read_all("model-stats")]
    total = merged(found)
    return total.quality if total is not None else Quality()


def send_labels(cluster: Cluster, labels: dict[str, int]) -> None:
    """With other keys and partitioners than inferd's, and each label twice."""
    producer = cluster.producer(partitioner="consistent_random")
    for request_id, label in labels.items():
        for copy in range(2):
            value = msgpack.packb({"id": request_id, "label": label})
            producer.produce(cluster.topics.name("labels"), value, b"%d" % (len(request_id) + copy))
    assert producer.flush(60) == 0


def labels_total(worker: Any, outcome: str) -> int:
    with urllib.request.urlopen(f"{worker.url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = [line for line in text.splitlines() if line.startswith("inferd_labels_total") and f'"{outcome}"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in found)


def inferd(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from inferd.daemon.cli import main; main()", *arguments]
    options = ["--broker", cluster.bootstrap, "--namespace", cluster.namespace]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)


def labelled_rows(cluster: Cluster) -> int:
    shown = inferd(cluster, "models", "quality", "demo:1", "--output", "json")
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    return int(found[0]["labelled_rows"]) if found else 0


def over_http(worker: Any, labels: list[dict[str, Any]]) -> Any:
    body, headers = json.dumps({"labels": labels}).encode(), {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{worker.url}/labels", body, headers), timeout=30) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_labels_count_once_in_the_windows_of_their_versions(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    cluster.deploy(model)
    options: dict[str, Any] = {"processing_guarantee": guarantee, "labels_window_s": WINDOW_S}
    first, second = (start_worker(cluster, **options) for _ in range(2))
    for worker in (first, second):
        worker.wait_ready()
    rng = np.random.default_rng(0)
    labels = {f"r{n}": int(rng.integers(0, 2)) for n in range(REQUESTS)}
    load = Load(cluster, model)
    early = dict(list(labels.items())[:20])
    send_labels(cluster, early)
    load.send(REQUESTS)
    cluster.read("results", lambda records: len(records) >= REQUESTS // 4, 60)
    first.kill()
    assert not load.ledger(120).lost
    send_labels(cluster, {request_id: label for request_id, label in labels.items() if request_id not in early})
    producer = cluster.producer()
    producer.produce(cluster.topics.name("labels"), msgpack.packb({"id": "r0", "label": "text"}), b"r0")
    producer.produce(cluster.topics.name("labels"), b"garbage", b"r1")
    assert producer.flush(30) == 0

    until(lambda: quality_of(cluster).rows >= REQUESTS, 90, "all labels are joined")
    until(lambda: any(record.value() == b"garbage" for record in cluster.read_all("dead-letters")), 30, "dead letter")
    quality = quality_of(cluster)
    assert quality.rows == REQUESTS
    rows = np.random.default_rng(0).normal(size=(1_000, model.n_features))
    scores = model.booster.predict(rows)[[n % 1_000 for n in range(REQUESTS)]]
    true = list(labels.values())
    assert quality.accuracy == pytest.approx(metrics.accuracy_score(true, scores >= 0.5))
    assert quality.log_loss == pytest.approx(metrics.log_loss(true, scores))
    assert quality.auc == pytest.approx(metrics.roc_auc_score(true, scores), abs=0.002)
    assert second.stop() == 0


def test_the_command_sends_a_file_of_labels(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, tmp_path: Path
) -> None:
    cluster.deploy(model)
    worker = start_worker(cluster, labels_window_s=WINDOW_S)
    worker.wait_ready()
    load = Load(cluster, model)
    load.send(40)
    assert not load.ledger().lost
    file = tmp_path / "outcomes.csv"
    file.write_text("request,churned\n" + "".join(f"r{n},{n % 2}\n" for n in range(30)), encoding="utf-8")
    done = inferd(cluster, "labels", "send", str(file), "--id", "request", "--label", "churned")
    assert (done.returncode, done.stderr) == (0, "sent 30 labels\n")
    with SyncClient(cluster.bootstrap, namespace=cluster.namespace) as client:
        assert client.send_labels(Label(f"r{n}", n % 2) for n in range(25, 40)) == 15
    until(lambda: quality_of(cluster).rows >= 40, 60, "all labels are joined")
    until(lambda: labelled_rows(cluster) == 40, 60, "the windows have them")
    assert over_http(worker, [{"id": "r0", "label": 0}]) == {"sent": 1}
    until(lambda: labels_total(worker, "repeated") >= 6, 30, "repeated labels are counted")
    (report,) = worker.get("/models/demo/quality")[1]["quality"]
    assert (report["version"], report["labelled_rows"]) == (1, 40)
    assert quality_of(cluster).rows == 40
    assert labels_total(worker, "joined") == 40
    assert worker.stop() == 0

"""The programs in docs/operations.md work as described."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgpack

from tests.fixtures.workers import Cluster, StartWorker, TrainedModel

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
PROGRAMS: list[str] = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def run(name: str, *arguments: str) -> str:
    """Standard output of the program with this name."""
    (program,) = [program for program in PROGRAMS if program.startswith(f'"""{name}')]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def result_ids(cluster: Cluster, count: int) -> list[str]:
    records = cluster.read("results", lambda found: len(found) >= count, 30)
    return [msgpack.unpackb(record.value())["id"] for record in records]


def test_offsets_are_reset_and_dead_letters_sent_again(
    kafka: str, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster = Cluster(kafka, namespace)
    requests = cluster.topics.name("requests")
    worker = start_worker(cluster)
    cluster.deploy(model)
    worker.wait_ready()
    producer = cluster.producer()
    bodies = [{"id": f"q{n}", "model_id": "demo", "input_data": [0.0] * 10} for n in range(3)]
    for body in bodies:
        producer.produce(requests, msgpack.packb(body), partition=0)
    producer.produce(requests, b"\xc1", key=b"k", headers=[("correlation-id", b"c")], partition=0)
    assert producer.flush(30) == 0
    assert result_ids(cluster, 4) == ["q0", "q1", "q2", "0-3"]

    assert run("redrive.py", kafka, cluster.topics.name("dead-letters"), "too_large") == "0 sent again\n"
    assert run("redrive.py", kafka, cluster.topics.name("dead-letters"), "malformed") == "1 sent again\n"
    assert result_ids(cluster, 5)[4:] == ["0-4"]
    assert worker.stop() == 0

    output = run("reset_offsets.py", kafka, namespace, requests, "earliest").splitlines()
    assert output[0] == f"{requests} 0: 0"
    again = start_worker(cluster)
    again.wait_ready()
    assert result_ids(cluster, 10)[5:] == ["q0", "q1", "q2", "0-3", "0-4"]
    assert again.stop() == 0
    assert run("reset_offsets.py", kafka, namespace, requests, "latest").splitlines()[0] == f"{requests} 0: 5"
    assert run("reset_offsets.py", kafka, namespace, requests, "1").splitlines()[0] == f"{requests} 0: 0"

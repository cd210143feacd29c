"""The commands of operators against a real broker and a real worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest

from tests.fixtures.http_client import ask
from tests.fixtures.workers import Cluster, Load, TrainedModel, Worker, until

COMMAND = (sys.executable, "-c", "from inferd.daemon.cli import main; main()")
Done = subprocess.CompletedProcess[str]
Inferd = Callable[..., Done]


@pytest.fixture(scope="module")
def place(kafka: str, model: TrainedModel) -> Cluster:
    """Topics and a model for this module."""
    made = Cluster(kafka, f"operators-{uuid.uuid4().hex[:8]}")
    made.create_topics()
    made.deploy(model)
    return made


@pytest.fixture(scope="module")
def inferd(place: Cluster) -> Inferd:
    """Runs a command as a user does."""

    def run(*arguments: object, **changes: str) -> Done:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
        environment |= {"INFERD_BROKER": place.bootstrap, "INFERD_NAMESPACE": place.namespace, **changes}
        command = [*COMMAND, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="module")
def worker(place: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    started = Worker(place.bootstrap, place.namespace, tmp_path_factory.mktemp("worker"), "w1")
    started.wait_ready()
    yield started
    started.kill()


def test_the_audit_names_who_moved_an_alias_by_command_and_over_http(
    place: Cluster, worker: Worker, inferd: Inferd
) -> None:
    moved = inferd("models", "alias", "demo@champion", 1, "--by", "ana")
    assert moved.returncode == 0, moved.stderr
    headers = {"content_type": "application/json"}
    answer = ask(worker, "PUT", "/models/demo/aliases/canary", b'{"version": 1}', **headers)
    assert answer.status == 200
    shown = inferd("audit", "--action", "alias", "--output", "json")
    by_command, over_http = json.loads(shown.stdout)
    assert (by_command["subject"], by_command["by"]) == ("demo@champion", "ana")
    assert by_command["origin"].startswith("kafka inferd-client-")
    assert (over_http["subject"], over_http["by"], over_http["origin"]) == ("demo@canary", "http", "http 127.0.0.1")
    assert over_http["details"]["target"] == "1"


def test_a_dead_letter_is_redriven_once_and_rejected_again(place: Cluster, worker: Worker, inferd: Inferd) -> None:
    producer = place.producer()
    producer.produce(place.topics.name("requests"), b"not a request", partition=2, headers={"x": b"1"})
    assert producer.flush(30) == 0
    assert len(place.read("dead-letters", lambda found: len(found) >= 1, 30)) == 1
    dry_run = inferd("dead-letters", "redrive", "--code", "malformed", "--dry-run", "--output", "json")
    assert dry_run.returncode == 0, dry_run.stderr
    dry = json.loads(dry_run.stdout)
    assert (dry["redriven"], dry["dry_run"]) == (1, True)
    done = inferd("dead-letters", "redrive", "--code", "malformed", "--limit", 1)
    assert "sent 1 again" in done.stderr, done.stderr
    _, again = place.read("dead-letters", lambda found: len(found) >= 2, 30)
    assert (again.partition(), again.value()) == (2, b"not a request")
    headers = dict(again.headers())
    assert (headers["x"], headers["inferd-redrive-attempts"]) == (b"1", b"1")
    answer = ask(worker, "POST", "/dead-letters/redrive?code=malformed", b"", inferd_request="1").json()
    assert (answer["redriven"], answer["skipped"], answer["done"]) == (1, {"already redriven": 1}, True)
    noted = json.loads(inferd("audit", "--action", "redrive", "--output", "json").stdout)
    assert [each["by"] for each in noted][1:] == ["http"]


def test_a_paused_model_takes_nothing_across_a_restart_and_loses_nothing(
    place: Cluster, worker: Worker, inferd: Inferd, model: TrainedModel, tmp_path: Path
) -> None:
    assert inferd("pause", "--model", "demo", "--reason", "a test").returncode == 0
    until(lambda: worker.get("/status")[1]["pauses"], 20, "the worker knows of the pause")
    before = len(place.read_all("results"))
    load = Load(place, model)
    load.send(40)
    refused = ask(
        worker, "POST", "/predict/demo", b'{"input_data": [0,0,0,0,0,0,0,0,0,0]}', content_type="application/json"
    )
    assert (refused.status, refused.code) == (503, "model_not_ready")
    worker.kill()
    again = Worker(place.bootstrap, place.namespace, tmp_path, "w2")
    try:
        again.wait_ready()
        pause = again.get("/status")[1]["pauses"][0]
        assert (pause["kind"], pause["name"], pause["reason"]) == ("model", "demo", "a test")
        until(lambda: again.get("/status")[1]["lag"] == 40, 20, "all requests wait")
        assert len(place.read_all("results")) == before
        assert inferd("resume", "--model", "demo").returncode == 0
        found = place.read("results", lambda results: len(results) >= before + 40, 40)
        assert len(found) == before + 40
    finally:
        again.kill()


def test_offsets_move_only_without_members_and_only_with_execute(
    place: Cluster, inferd: Inferd, tmp_path: Path
) -> None:
    worker = Worker(place.bootstrap, place.namespace, tmp_path, "w3")
    topic = place.topics.name("requests")

    def committed() -> dict[int, int]:
        shown = json.loads(inferd("offsets", "show", "--output", "json").stdout)
        return {each["partition"]: each["committed"] for each in shown if each["topic"] == topic}

    try:
        worker.wait_ready()
        until(lambda: worker.get("/status")[1]["lag"] == 0, 20, "everything is committed")
        refused = inferd("offsets", "reset", "--to-earliest", "--execute")
        assert (refused.returncode, "has members" in refused.stderr) == (1, True), refused.stderr
        assert worker.stop() == 0
        before, results = committed(), len(place.read_all("results"))
        planned = inferd("offsets", "reset", "--to-earliest")
        assert "nothing was changed" in planned.stderr
        assert committed() == before
        done = inferd("offsets", "reset", "--partition", 1, "--shift-by", -5, "--execute")
        assert done.returncode == 0, done.stderr
        assert committed() == before | {1: before[1] - 5}
        worker = Worker(place.bootstrap, place.namespace, tmp_path, "w4")
        assert len(place.read("results", lambda found: len(found) >= results + 5, 60)) == results + 5
    finally:
        worker.kill()
    assert json.loads(inferd("audit", "--action", "offsets", "--output", "json").stdout)[0]["subject"] == topic


def test_past_requests_are_replayed_with_another_version(
    place: Cluster, inferd: Inferd, model: TrainedModel, tmp_path: Path
) -> None:
    worker = Worker(place.bootstrap, place.namespace, tmp_path, "w5")
    try:
        worker.wait_ready()
        producer = place.producer()
        names = [feature.name for feature in model.manifest("demo", 1).features]
        rows = [[float(n)] * 10 for n in range(6)]
        bodies: list[object] = [
            rows[0],
            dict(zip(names, rows[1], strict=True)),
            rows[2:4],
            [dict(zip(names, rows[4], strict=True))],
        ]
        for n, body in enumerate(bodies):
            value = msgpack.packb({"id": f"past-{n}", "model_id": "demo", "input_data": body})
            producer.produce(place.topics.name("requests"), value, partition=n % 4)
        assert producer.flush(30) == 0
        until(lambda: worker.get("/status")[1]["lag"] == 0, 30, "all requests are answered")
        place.deploy(model, version=2)
        until(
            lambda: any(m["version"] == 2 and m["state"] == "ready" for m in worker.get("/status")[1]["models"]),
            60,
            "v2",
        )
        done = inferd("replay", "--from", "10m", "--model", "demo:2", "--compare", "--output", "json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["requests"] >= 4
        comparison = found["comparison"]
        assert (comparison["failed"], comparison["missing"], comparison["equal"]) == (0, 0, 1.0), found
        assert comparison["rows"] == found["rows"]
        assert json.loads(inferd("audit", "--action", "replay", "--output", "json").stdout)[0]["subject"] == "demo:2"
        shown = inferd("top", "--once", "--url", worker.url)
        assert "1 of 1 ready" in shown.stdout, shown.stdout + shown.stderr
    finally:
        worker.kill()

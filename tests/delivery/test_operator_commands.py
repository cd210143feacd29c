"""The commands of operators against a real broker and a real worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.fixtures.http_client import ask
from tests.fixtures.workers import Cluster, TrainedModel, Worker

COMMAND = (sys.executable, "-c", "from inferd.daemon.cli import main; main()")
Done = subprocess.CompletedProcess[str]
Inferd = Callable[..., Done]


@pytest.fixture(scope="module")
def place(kafka: str) -> Cluster:
    """Topics for this module."""
    made = Cluster(kafka, f"operators-{uuid.uuid4().hex[:8]}")
    made.create_topics()
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
def worker(place: Cluster, model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    place.deploy(model)
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

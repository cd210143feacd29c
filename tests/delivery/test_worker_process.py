"""The worker's process and the operator's commands on a real Kafka."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from inferd.daemon.broker import EmbeddedKafka
from inferd.daemon.cli.output import EXIT_FAILED
from inferd.daemon.process import EXIT_SETTINGS
from tests.fixtures.broker import broker_settings
from tests.fixtures.workers import Cluster, Load, StartWorker, TrainedModel, until

INFERD = [sys.executable, "-m", "inferd.daemon.cli"]
UP_WITHIN_S = 90.0
SESSION_TIMEOUT_S = 10


class Commands:
    """Runs `inferd …` in one namespace."""

    def __init__(self, bootstrap: str, namespace: str, directory: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
        self.environ = inherited | {
            "INFERD_BROKER": bootstrap,
            "INFERD_NAMESPACE": namespace,
            "INFERD_GROUP_ID": namespace,
            "INFERD_DATA_DIR": str(directory),
        }

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [*INFERD, *arguments]
        return subprocess.run(
            command, env=self.environ | environ, capture_output=True, text=True, timeout=120, check=False
        )

    def answer(self, *arguments: str, **environ: str) -> Any:
        done = self.run(*arguments, "--output", "json", **environ)
        return json.loads(done.stdout)


@pytest.fixture
def commands(kafka: str, namespace: str, tmp_path: Path) -> Commands:
    return Commands(kafka, namespace, tmp_path / "data")


def states(checks: list[dict[str, Any]]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in checks}


def test_topics_are_created_once_and_listed(commands: Commands, namespace: str) -> None:
    missing = commands.answer("topics", "list")
    assert {topic["partitions"] for topic in missing} == {0}
    created = commands.answer("topics", "create", "--tenant", "default,acme", "--partitions", "3")
    assert len(created) == 2 * len(missing)
    again = commands.answer("topics", "create", "--tenant", "acme", "--partitions", "3")
    partitions = {topic["name"]: topic["partitions"] for topic in again}
    assert partitions[f"{namespace}.acme.requests"] == 3
    assert partitions[f"{namespace}.acme.models"] == 1
    problems = [topic["problem"] for topic in commands.answer("topics", "list") if topic["problem"]]
    assert problems, "they have 3 partitions, the setting says 4"
    assert all("INFERD_TOPIC_PARTITIONS" in problem for problem in problems)


def test_topics_that_do_not_fit_are_named_by_command_worker_and_doctor(
    commands: Commands, kafka: str, namespace: str
) -> None:
    commands.run("topics", "create")
    admin = AdminClient({"bootstrap.servers": kafka})
    topic = f"{namespace}.default.results"
    admin.delete_topics([topic])[topic].result(30)
    until(lambda: topic not in admin.list_topics(timeout=10).topics, 30, "the topic to be gone")
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
    for arguments, code in ((("topics", "create"), EXIT_FAILED), (("worker", "--http-port", "0"), EXIT_SETTINGS)):
        done = commands.run(*arguments)
        assert done.returncode == code, done.stderr
        assert f"{topic} has 2 partitions" in done.stderr
        assert "Traceback" not in done.stderr
    assert states(commands.answer("doctor"))["topics"] == "fail"


def test_the_doctor_finds_no_problem_while_a_worker_runs(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, commands: Commands
) -> None:
    cluster.deploy(model)
    start_worker(cluster).wait_ready()
    done = commands.run("doctor", "--output", "json")
    checks = json.loads(done.stdout)
    assert done.returncode == 0, checks
    found = states(checks)
    assert {found[name] for name in ("broker", "version", "brokers", "topics", "access", "group", "models")} == {"ok"}


def test_the_doctor_finds_a_model_that_does_not_load(
    cluster: Cluster, model: TrainedModel, commands: Commands, namespace: str
) -> None:
    broken = TrainedModel(model.booster, model.data, model.n_features)
    cluster.deploy(broken)
    producer = cluster.producer()
    key = f"{broken.manifest().sha256}/0".encode()
    producer.produce(cluster.topics.name("model-artifacts"), b"x" * len(broken.data), key)
    assert producer.flush(30) == 0
    done = commands.run("doctor", "--output", "json")
    (check,) = [check for check in json.loads(done.stdout) if check["name"] == "models" and check["state"] != "ok"]
    assert check["state"] in {"warn", "fail"}
    assert "demo:1" in check["detail"]


def test_the_doctor_finds_missing_rights_and_writes_nothing(tmp_path: Path, namespace: str) -> None:
    authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with EmbeddedKafka(broker_settings(tmp_path / "kafka", extra=authorizer)) as kafka:
        commands = Commands(kafka.bootstrap_servers, namespace, tmp_path / "data")
        commands.run("topics", "create")
        assert states(commands.answer("doctor"))["access"] == "ok"
        names = [f"{namespace}.default.{stream}" for stream in ("requests", "results")]
        allow_describing(kafka.bootstrap_servers, names)
        checks = commands.answer("doctor")
        (access,) = [check for check in checks if check["name"] == "access" and check["state"] == "fail"]
        assert f"READ on topic {names[0]}" in access["detail"]
        assert f"WRITE on topic {names[1]}" in access["detail"]
        assert f"--operation READ --topic {names[0]}" in access["remedy"]
        cluster = Cluster(kafka.bootstrap_servers, namespace)
        assert cluster.read("dead-letters", lambda _records: True, 10) == []


def allow_describing(bootstrap: str, topics: list[str]) -> None:
    """ACLs that allow only DESCRIBE of these topics."""
    allowed = [
        AclBinding(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.LITERAL,
            "User:ANONYMOUS",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        for topic in topics
        for operation in (AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
    ]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_acls(allowed).values():
        made.result(30)


def test_dead_letters_are_listed_and_shown(
    cluster: Cluster, start_worker: StartWorker, commands: Commands, model: TrainedModel
) -> None:
    cluster.deploy(model)
    worker = start_worker(cluster)
    worker.wait_ready()
    producer = cluster.producer()
    topic = cluster.topics.name("requests")
    for value in (b"\xc1", b'{"model_id": "demo", "inpt": [1]}'):
        headers: list[tuple[str, str | bytes | None]] = [
            ("content-type", b"application/json" if value.startswith(b"{") else b"application/msgpack")
        ]
        producer.produce(topic, value, b"key", partition=2, headers=headers)
    assert producer.flush(30) == 0
    listed = until(lambda: len(found := commands.answer("dead-letters", "list")) == 2 and found, 30, "two dead letters")
    assert [entry["code"] for entry in listed] == ["malformed", "malformed"]
    assert {(entry["source"]["topic"], entry["source"]["partition"]) for entry in listed} == {(topic, 2)}
    place = f"{listed[1]['partition']}:{listed[1]['offset']}"
    shown = commands.answer("dead-letters", "show", place)
    assert shown["value"] == {"model_id": "demo", "inpt": [1]}
    assert commands.run("dead-letters", "show", place, "--raw").stdout == '{"model_id": "demo", "inpt": [1]}'
    assert worker.stop() == 0


def test_a_zombie_exits_without_loss(cluster: Cluster, model: TrainedModel, start_worker: StartWorker) -> None:
    cluster.deploy(model)
    zombie, other = (start_worker(cluster, session_timeout_s=SESSION_TIMEOUT_S) for _ in range(2))
    zombie.wait_ready()
    other.wait_ready()
    load = Load(cluster, model)
    load.start(per_second=1_000)
    until(lambda: (zombie.get("/status")[1] or {}).get("batches"), 30, "work before the freeze")
    zombie.process.send_signal(signal.SIGSTOP)
    frozen_at = time.monotonic()  # beyond twice the session timeout it would end with code 1
    try:
        until(lambda: time.monotonic() > frozen_at + SESSION_TIMEOUT_S + 1, 20, "the session to be over")
    finally:
        zombie.process.send_signal(signal.SIGCONT)
    assert zombie.process.wait(20) == 72, zombie.text()[-4_000:]
    load.stop()
    ledger = load.ledger()
    assert (ledger.lost, ledger.wrong, ledger.different_repeats) == ([], 0, 0)
    assert other.stop() == 0


class Up:
    """`inferd up`, whose output is read while it runs."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
        environ = inherited | {
            "INFERD_DATA_DIR": str(directory),
            "INFERD_BROKER_PORT": "0",
            "INFERD_HTTP_PORT": "0",
            "INFERD_LOG_FORMAT": "json",
        }
        self.err = directory.with_suffix(".err")
        with self.err.open("ab") as log:
            command = [*INFERD, "up", "--output", "json", *arguments]
            self.process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=log, text=True)
        self.said: dict[str, str] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said = json.loads(line)

    def wait_started(self) -> dict[str, str]:
        def started() -> dict[str, str]:
            assert self.process.poll() is None, self.err.read_text()[-3_000:]
            return self.said

        until(started, UP_WITHIN_S, "inferd up says where it is")
        return self.said

    def broker_pids(self) -> list[int]:
        try:
            children = psutil.Process(self.process.pid).children()
            return [child.pid for child in children if child.name() == "java"]
        except psutil.NoSuchProcess:
            return []

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(90)
        self._reader.join(10)
        return code


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        started.append(Up(tmp_path / "data", *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(10)
        if one.process.stdout:
            one.process.stdout.close()


def test_up_runs_both_survives_its_broker_and_stops_in_order(
    up: Callable[..., Up], model: TrainedModel, tmp_path: Path
) -> None:
    first = up()
    said = first.wait_started()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", said["broker"])
    cluster = Cluster(said["broker"], "inferd")
    cluster.deploy(model)
    load = Load(cluster, model)
    load.send(500)
    (pid,) = first.broker_pids()
    os.kill(pid, signal.SIGKILL)
    until(lambda: first.broker_pids() not in ([], [pid]), 60, "the broker to be started again")
    load.stop()
    assert load.ledger().lost == []
    assert first.stop(signal.SIGINT) == 0, first.err.read_text()[-3_000:]
    assert first.broker_pids() == []

    second = up()
    again = Cluster(second.wait_started()["broker"], "inferd")
    assert len({record.value() for record in again.read("results", lambda found: len(found) >= 500, 30)}) == 500
    assert second.stop(signal.SIGTERM) == 0


def test_up_uses_the_broker_it_is_given(up: Callable[..., Up], kafka: str, namespace: str) -> None:
    given = up("--broker", kafka, "--namespace", namespace, "--group-id", namespace)
    assert given.wait_started()["broker"] == kafka
    assert given.broker_pids() == []
    assert given.stop(signal.SIGTERM) == 0


def test_up_runs_a_registry_where_one_is_wanted(up: Callable[..., Up], kafka: str, namespace: str) -> None:
    running = up("--registry", "--registry-port", "0", "--broker", kafka, "--namespace", namespace)
    running.wait_started()
    (url,) = re.findall(r"schema registry on (http://127\.0\.0\.1:\d+/apis/ccompat/v7)", running.err.read_text())
    with urllib.request.urlopen(f"{url}/subjects", timeout=30) as answer:
        assert json.load(answer) == []
    (pid,) = running.broker_pids()
    assert running.stop(signal.SIGTERM) == 0
    assert not psutil.pid_exists(pid)


def test_up_can_be_stopped_while_its_broker_starts(up: Callable[..., Up]) -> None:
    starting = up()
    until(lambda: "starting Apache Kafka" in starting.err.read_text(), 30, "the start")
    assert starting.stop(signal.SIGTERM) in {0, 130, 143}
    assert starting.broker_pids() == []

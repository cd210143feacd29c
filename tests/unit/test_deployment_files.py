"""The files below deploy/ say what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.broker.jars import read_lock
from daemon.settings import Settings
from streams.topics import topic_specs

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "deploy/requirements.lock")
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)(?: ; (.+?))? \\$", re.MULTILINE)


@pytest.fixture
def services() -> dict[str, Any]:
    compose: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    return compose["services"]


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in service["environment"].items() if name.startswith("INFERD_")}


def test_the_topic_list_is_what_the_workers_expect() -> None:
    lines = (ROOT / "deploy/topics.txt").read_text().splitlines()
    listed = [line.split() for line in lines if line and not line.startswith("#")]

    assert [
        (name, int(partitions), int(replication), dict(item.split("=") for item in settings))
        for name, partitions, replication, *settings in listed
    ] == [
        (spec.name, spec.partitions, spec.replication, dict(spec.config)) for spec in topic_specs(Settings().streams())
    ]


def test_compose_runs_the_kafka_of_the_embedded_broker(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{read_lock().kafka_version}"


@pytest.mark.parametrize("name", ["topics", "worker-1", "worker-2"])
def test_compose_sets_what_the_settings_allow(services: dict[str, Any], name: str) -> None:
    environment = environment_of(services[name])
    assert all(isinstance(value, str) for value in environment.values())
    assert Settings.from_environment(environment).broker == "kafka:19092"


def test_a_container_is_given_longer_to_stop_than_a_worker_takes(services: dict[str, Any]) -> None:
    assert float(services["worker-1"]["stop_grace_period"].removesuffix("s")) > Settings().drain_timeout_s


def pins_of(lock: str) -> dict[tuple[str, str], str]:
    text = (ROOT / lock).read_text()
    return {(name, marker): version for name, version, marker in PIN.findall(text)}


def test_the_locks_agree_with_each_other() -> None:
    demo, everything, deployed = (pins_of(lock) for lock in LOCKS)
    for lock in (demo, deployed):
        for (name, marker), version in lock.items():
            candidates = {known for (other, _), known in everything.items() if other == name}
            assert version in candidates, (name, marker)
    assert deployed.keys() <= demo.keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_lock_names_an_index(lock: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text())
    pins = [entry for entry in entries if not entry.startswith("#")]
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)
    assert not re.search(r"--(extra-)?index-url|--find-links|://", "\n".join(entries))


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in project["dependencies"]}
    for lock in LOCKS:
        assert wanted <= {name for name, _ in pins_of(lock)}

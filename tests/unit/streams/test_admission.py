"""Which tenants are served and which wait, for what, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from inferd.schemas.connection import KafkaConnection
from inferd.streams import admission as admission_module
from inferd.streams.admission import MODELS_UNREAD, Admission
from inferd.streams.kafka.rights import Right, describe_missing, worker_rights
from inferd.streams.kafka.topic_checks import TopicsError, TopicState
from inferd.streams.settings import StreamSettings

A_JOBS = {f"ns.a.{stream}" for stream in ("jobs", "job-chunks", "job-results")}
A_LIFECYCLE = {"ns.a.model-stats", "ns.a.rollouts"}
A_TOPICS = {"ns.a.requests", *A_JOBS, *A_LIFECYCLE}
B_TOPICS = {topic.replace(".a.", ".b.") for topic in A_TOPICS}


@dataclass
class FakeModels:
    """Models of tenants that are read once the rights exist, unless `held`."""

    followed: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    held: bool = False

    def follow(self, tenants: frozenset[str]) -> None:
        self.followed = tenants
        if not self.held:
            self.read |= tenants

    @property
    def loaded(self) -> frozenset[str]:
        return self.read


@dataclass
class World:
    """A broker's ACLs and topics, and the admission that checks them."""

    admission: Admission
    models: FakeModels = field(default_factory=FakeModels)
    missing: list[str] = field(default_factory=list)
    """Missing ACLs, in words."""
    unfit: dict[str, str] = field(default_factory=dict)
    contradictions: dict[str, str] = field(default_factory=dict)
    away: bool = False
    excluded: list[frozenset[str]] = field(default_factory=list)
    checks: int = 0
    asked: list[int] = field(default_factory=list)
    """Number of rights that each check requested."""

    async def missing_rights(self, _client: Any, rights: Sequence[Right]) -> list[Right]:
        self.checks += 1
        if self.away:
            raise KafkaConnectionError("connection refused")
        self.asked.append(len(rights))
        return [right for right in rights if str(right) in self.missing]

    async def ensure_topics(self, settings: StreamSettings) -> list[TopicState]:
        if problems := [self.unfit[tenant] for tenant in settings.tenants if tenant in self.unfit]:
            raise TopicsError(problems)
        return [TopicState(f"ns.{tenant}.requests", "requests", 4, 1) for tenant in settings.tenants]

    async def check_noted_partitions(self, settings: StreamSettings) -> None:
        if problems := [self.contradictions[t] for t in settings.tenants if t in self.contradictions]:
            raise TopicsError(problems, lasting=True)

    async def start(self) -> list[TopicState]:
        topics = await self.admission.open()
        self.models.follow(self.admission.readable)
        self.admission.admit(self.models)
        return topics

    async def check(self) -> None:
        await self.admission._step(self.models)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


class FakeClient:
    """A connection."""

    def __init__(self, **_: Any) -> None: ...

    async def bootstrap(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    settings = StreamSettings(KafkaConnection(), "w1", tmp_path, namespace="ns", tenants=("a", "b"))
    excluded: list[frozenset[str]] = []
    world = World(Admission(settings, excluded.append), excluded=excluded)
    monkeypatch.setattr(admission_module, "missing_rights", world.missing_rights)
    monkeypatch.setattr(admission_module, "ensure_topics", world.ensure_topics)
    monkeypatch.setattr(admission_module, "check_noted_partitions", world.check_noted_partitions)
    monkeypatch.setattr(admission_module, "AIOKafkaClient", FakeClient)
    monkeypatch.setattr(admission_module, "CHECK_INTERVAL_S", 3_600.0)
    return world


async def test_a_query_that_fails_does_not_affect_another_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The routes and the tenants ask at the same time; a query that fails closes the client."""
    connected, attempts = asyncio.Event(), 0

    async def bootstrap(_client: FakeClient) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await connected.wait()
            raise KafkaConnectionError("connection refused")

    async def rights(client: Any, rights: Sequence[Right]) -> list[Right]:
        assert client is not None
        assert attempts == 2
        return list(rights)

    monkeypatch.setattr(FakeClient, "bootstrap", bootstrap)
    monkeypatch.setattr(admission_module, "missing_rights", rights)
    right = Right("READ", "topic", "orders", "a")
    first, second = (asyncio.create_task(world.admission.missing([right])) for _ in range(2))
    await world.until(lambda: attempts)
    connected.set()
    with pytest.raises(KafkaConnectionError):
        await first
    assert await second == [right]


async def test_with_all_rights_every_tenant_is_served(world: World) -> None:
    topics = await world.start()
    assert {topic.name for topic in topics} == {"ns.a.requests", "ns.b.requests"}
    assert (world.admission.waits, world.admission.fault, world.excluded) == ({}, None, [frozenset()])
    assert world.admission.unserved_reason("a") is None


@pytest.mark.parametrize(
    "right",
    [
        "READ on topic ns.a.jobs",
        "READ on topic ns.a.models",
        "DESCRIBE_CONFIGS on topic ns.a.results",
        "WRITE on transactional-id inferd-ns.a.jobs-2",
        "WRITE on topic inferd-a.predictions-changelog",
    ],
)
async def test_a_tenant_without_a_right_at_the_start_waits_alone_for_it(world: World, right: str) -> None:
    world.missing = [right]
    await world.start()
    named = right.replace("jobs-2", "jobs-*")
    assert named in world.admission.waits["a"]
    assert "kafka-acls --bootstrap-server 127.0.0.1:9092 --add" in world.admission.waits["a"]
    assert world.admission.waits.keys() == {"a"}
    assert world.excluded[-1] == A_TOPICS
    assert world.models.followed == {"b"}
    assert world.admission.unserved_reason("a") == world.admission.waits["a"]
    assert world.admission.fault is None, "the other tenant is served"
    world.missing = []
    await world.check()
    assert (world.admission.waits, world.excluded[-1]) == ({}, frozenset())


@pytest.mark.parametrize(
    ("right", "stopped"),
    [
        ("READ on topic ns.a.requests", {"ns.a.requests"}),
        ("WRITE on topic ns.a.results", {"ns.a.requests"}),
        ("WRITE on topic ns.a.dead-letters", A_TOPICS),
        ("READ on topic ns.a.job-chunks", A_JOBS),
        ("WRITE on transactional-id inferd-ns.a.jobs-0", A_JOBS),
        ("WRITE on topic ns.a.model-stats", {"ns.a.requests", *A_LIFECYCLE}),
        ("WRITE on transactional-id inferd-ns.a.lifecycle-0", A_LIFECYCLE),
        ("READ on topic ns.a.models", set()),
        ("WRITE on topic ns.a.models", A_LIFECYCLE),
        ("WRITE on topic ns.a.rollout-status", A_LIFECYCLE),
        ("READ on group inferd", A_TOPICS | B_TOPICS),
    ],
)
async def test_a_lost_right_stops_only_what_needs_it(world: World, right: str, stopped: set[str]) -> None:
    await world.start()
    world.missing = [right]
    await world.check()
    assert right.replace("-0", "-*") in world.admission.waits["a"]
    assert world.excluded[-1] == stopped
    assert world.admission.unserved_reason("a") is None, "its models are loaded: over HTTP it is served"
    world.missing = []
    await world.check()
    assert (world.admission.waits, world.excluded[-1]) == ({}, frozenset())


async def test_if_all_tenants_wait_the_worker_has_a_fault(world: World) -> None:
    await world.start()
    world.missing = ["READ on group inferd"]
    await world.check()
    assert world.admission.fault is not None
    assert "tenant a waits: " in world.admission.fault
    assert "READ on group inferd" in world.admission.fault


async def test_model_records_of_a_tenant_are_not_read_without_the_right(world: World) -> None:
    await world.start()
    world.missing = ["READ on topic ns.a.model-artifacts"]
    await world.check()
    assert world.models.followed == {"b"}
    world.missing = []
    await world.check()
    assert world.models.followed == {"a", "b"}


async def test_a_tenant_is_served_only_once_its_models_are_loaded(world: World) -> None:
    world.missing = ["READ on topic ns.a.models"]
    await world.start()
    world.models.held, world.missing = True, []
    await world.check()
    assert world.admission.waits["a"] == MODELS_UNREAD
    assert world.excluded[-1] == A_TOPICS
    world.models.read |= {"a"}
    await world.check()
    assert (world.admission.waits, world.excluded[-1]) == ({}, frozenset())


async def test_wrong_topics_make_a_later_tenant_wait(world: World) -> None:
    world.missing, world.unfit = ["READ on topic ns.a.jobs"], {"a": "topic ns.a.jobs has 7 partitions"}
    await world.start()
    world.missing = []
    await world.check()
    assert world.admission.waits["a"] == "topic ns.a.jobs has 7 partitions"
    world.unfit = {}
    await world.check()
    assert world.admission.waits == {}


async def test_wrong_topics_at_the_start_are_an_error(world: World) -> None:
    world.unfit = {"a": "topic ns.a.jobs has 7 partitions"}
    with pytest.raises(TopicsError, match="7 partitions"):
        await world.start()


async def test_a_contradictory_number_of_partitions_is_an_error_at_the_start_and_makes_a_later_tenant_wait(
    world: World,
) -> None:
    world.contradictions = {"a": "set INFERD_TOPIC_PARTITIONS=4"}
    with pytest.raises(TopicsError, match="set INFERD_TOPIC_PARTITIONS=4"):
        await world.start()
    world.missing = ["READ on topic ns.a.jobs"]
    await world.start()
    world.missing = []
    await world.check()
    assert world.admission.waits["a"] == "set INFERD_TOPIC_PARTITIONS=4"


async def test_nothing_changes_while_the_broker_does_not_respond(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "CHECK_INTERVAL_WAITING_S", 0.001)
    await world.start()
    world.missing = ["READ on topic ns.a.jobs"]
    await world.check()
    world.away, world.missing = True, []
    running = asyncio.create_task(world.admission.run(world.models))
    checks = world.checks
    await world.until(lambda: world.checks > checks + 2)
    assert world.admission.waits.keys() == {"a"}
    world.away = False
    await world.until(lambda: not world.admission.waits)
    running.cancel()


async def test_a_denial_triggers_a_check_of_all_rights_at_once(world: World) -> None:
    await world.start()
    running = asyncio.create_task(world.admission.run(world.models))
    await world.until(lambda: len(world.asked) == 2)
    assert world.asked[1] < world.asked[0], "while no right is missing, one partition is checked for all"
    world.missing = ["WRITE on transactional-id inferd-ns.b.jobs-3"]
    world.admission.recheck()
    await world.until(lambda: world.admission.waits)
    assert world.admission.waits.keys() == {"b"}
    running.cancel()


async def test_the_reason_of_a_waiting_tenant_is_logged_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    await world.start()
    world.missing = ["READ on topic ns.a.jobs"]
    for _ in range(3):
        await world.check()
    world.missing = []
    await world.check()
    out = capsys.readouterr().out
    assert (out.count("tenant_waits"), out.count("tenant_served")) == (1, 1)


def test_exactly_once_needs_transactional_ids_for_requests_too(tmp_path: Path) -> None:
    settings = StreamSettings(KafkaConnection(), "w1", tmp_path, namespace="ns")
    once = replace(settings, processing_guarantee="exactly_once")
    more = {*worker_rights(once)} - {*worker_rights(settings)}
    assert {right.name for right in more} == {f"inferd-ns.default.requests-{n}" for n in range(4)}


def test_missing_rights_are_named_with_the_commands_that_grant_them() -> None:
    missing = [
        *(Right("WRITE", "transactional-id", f"g-ns.a.jobs-{n}") for n in range(12)),
        Right("READ", "topic", "t"),
        Right("DESCRIBE_CONFIGS", "topic", "t"),
    ]
    described = describe_missing(missing, KafkaConnection(sasl_username="ann"))
    assert described == (
        "the broker does not allow WRITE on transactional-id g-ns.a.jobs-*; READ, DESCRIBE_CONFIGS on topic t."
        " Grant it: kafka-acls --bootstrap-server 127.0.0.1:9092 --add --allow-principal User:ann"
        " --operation WRITE --transactional-id g-ns.a.jobs- --resource-pattern-type prefixed;"
        " kafka-acls --bootstrap-server 127.0.0.1:9092 --add --allow-principal User:ann"
        " --operation READ --operation DESCRIBE_CONFIGS --topic t"
    )
    many = describe_missing([Right("READ", "topic", f"t{n}") for n in range(99)], KafkaConnection())
    assert "and more on 93 others" in many
    assert len(many) < 1_000

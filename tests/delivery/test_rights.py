"""Kafka ACLs: the documented rights suffice, and every missing right is named."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from inferd import KafkaConnection, SyncClient
from inferd.daemon.checks.kafka import check_access, grants
from inferd.daemon.settings.settings import Settings
from inferd.schemas.models.model import CacheSpec
from inferd.streams.kafka.rights import worker_rights
from tests.fixtures.routes import ForeignTopics, feature_options, order, routes_command, status
from tests.fixtures.secured_broker import PASSWORD, Right, SecuredKafka, secured
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, Worker, until

__all__ = ["secured"]

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([^|]+) \| (topic|group|transactional-id) \| `([^`]+)` \| ([A-Z_, ]+) \|$", re.MULTILINE)
TENANTS = ("a", "b")
NOTICED_S = 40.0
LOST = ("READ on {}.a.requests", "WRITE on {}.a.results", "READ on {}.a.models", "WRITE on {}.a.models", "READ on {}")
ROWS = [[float(n)] * 10 for n in range(50)]


def documented(who: str, namespace: str, tenants: tuple[str, ...] = TENANTS) -> list[Right]:
    """The rights in the table in docs/operations.md for the principal `who`, without those of optional functions."""
    rights = []
    for user, resource, pattern, operations in ROW.findall(PAGE):
        if user.strip("`").startswith(who) and ", if " not in user:
            for tenant in tenants:
                name = pattern.replace("<namespace>", namespace).replace("<group>", namespace)
                name = name.replace("<tenant>", tenant)
                kind = resource.upper().replace("-", "_")
                rights += [
                    Right(operation, kind, name.rstrip("*"), name.endswith("*")) for operation in operations.split(", ")
                ]
    return list(dict.fromkeys(rights))


def connection(secured: SecuredKafka, user: str) -> KafkaConnection:
    return KafkaConnection(secured.servers, "SASL_PLAINTEXT", sasl_username=user, sasl_password=PASSWORD)


def settings(secured: SecuredKafka, user: str, namespace: str, **more: str) -> Settings:
    environ = secured.sasl(user) | {"INFERD_NAMESPACE": namespace, "INFERD_TENANTS": ",".join(TENANTS)}
    return Settings.from_environment(environ | {f"INFERD_{name.upper()}": value for name, value in more.items()}, {})


class Tenancy:
    """Two tenants on a secured broker, whose users have the ACLs from the documentation."""

    def __init__(self, secured: SecuredKafka, namespace: str) -> None:
        self.kafka, self.namespace = secured, namespace
        self.worker_rights = documented("worker", namespace)
        self.clusters = {tenant: Cluster(secured.admin_servers, namespace, tenant) for tenant in TENANTS}
        secured.grant("client", documented("client", namespace))
        secured.grant("operator", documented("inferd topics create", namespace))

    def create_topics(self) -> None:
        from inferd.streams.kafka.topics import ensure_topics

        asyncio.run(ensure_topics(settings(self.kafka, "operator", self.namespace).streams()))

    def start(self, start_worker: StartWorker, **more: Any) -> Worker:
        options = {"tenants": ",".join(TENANTS), "heartbeat_interval_s": 0.5, **more}
        return start_worker(self.clusters["a"], environ=self.kafka.sasl("worker"), **options)

    def client(self, tenant: str = "a") -> SyncClient:
        return SyncClient(connection(self.kafka, "client"), namespace=self.namespace, tenant=tenant)

    def rights(self, *texts: str) -> list[Right]:
        """The rights of the worker that are marked for this case: `READ on <namespace>.a.jobs`."""
        found = [right for right in self.worker_rights if f"{right.operation} on {right.name}" in texts]
        assert found, texts
        return found

    def ask(self, tenant: str, request_id: str, reply_to: str | None = None) -> None:
        producer = self.clusters[tenant].producer()
        body = {"id": request_id, "model_id": "demo", "input_data": ROWS[0]}
        headers: dict[str, str | bytes | None] = {"reply-to": reply_to.encode()} if reply_to else {}
        producer.produce(self.clusters[tenant].topics.name("requests"), msgpack.packb(body), headers=headers)
        assert producer.flush(30) == 0

    def answer(self, tenant: str, request_id: str) -> dict[str, Any] | None:
        """The result on `results`; None if it does not arrive within `NOTICED_S`."""

        def found(records: list[Any]) -> dict[str, Any] | None:
            answers = (msgpack.unpackb(record.value()) for record in records)
            return next((each for each in answers if each.get("id") == request_id), None)

        read = self.clusters[tenant].read("results", lambda records: found(records) is not None, NOTICED_S)
        return found(read)

    def is_answered(self, tenant: str, request_id: str) -> bool:
        return self.answer(tenant, request_id) is not None


@pytest.fixture
def tenancy(secured: SecuredKafka) -> Iterator[Tenancy]:
    made = Tenancy(secured, f"r{uuid.uuid4().hex[:8]}")
    made.create_topics()
    yield made
    secured.revoke_all()


def waiting(worker: Worker) -> dict[str, str]:
    """The rights that each tenant waits for, from `/status`; the worker must be alive."""
    assert worker.process.poll() is None, worker.text()[-3_000:]
    _, status = worker.get("/status")
    return {wait["tenant"]: wait["reason"] for wait in (status or {}).get("waiting", [])}


def waits_for(worker: Worker, named: str) -> bool:
    return named in waiting(worker).get("a", "")


def test_the_table_has_the_rights_that_the_code_needs(secured: SecuredKafka) -> None:
    streams = settings(secured, "worker", "ns", processing_guarantee="exactly_once").streams()
    needed = {(r.operation, r.resource, r.name) for r in worker_rights(streams) if r.operation != "DESCRIBE"}
    rows = [right for right in documented("worker", "ns") if right not in documented("worker, for", "ns")]
    rows += [right for right in documented("worker", "ns") if right.operation == "WRITE" and right.prefixed]
    granted = {
        (right.operation, right.resource.lower().replace("_", "-"), right.name, right.prefixed) for right in rows
    }
    for right in needed:
        prefixes = {each for op, kind, each, prefixed in granted if (op, kind, prefixed) == (*right[:2], True)}
        assert (*right, False) in granted or any(map(right[2].startswith, prefixes)), right
    assert {row[:3] for row in granted if not row[3]} <= needed, "no row is superfluous"


def printed(settings: Settings) -> list[Right]:
    """The rights in the commands of `inferd doctor --acls`."""
    rights = []
    for command in grants(settings, "worker"):
        words = shlex.split(command)
        assert words[:3] == ["kafka-acls", "--bootstrap-server", settings.connection().bootstrap_servers]
        assert words[words.index("--allow-principal") + 1] == "User:worker"
        operations = [words[place + 1] for place, word in enumerate(words) if word == "--operation"]
        (flag,) = {"--topic", "--group", "--transactional-id"} & set(words)
        name, kind = words[words.index(flag) + 1], flag.strip("-").upper().replace("-", "_")
        rights += [Right(operation, kind, name, "prefixed" in words) for operation in operations]
    return rights


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_the_documented_rights_suffice(
    tenancy: Tenancy, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    """Those of the table, and with the other guarantee those that `inferd doctor --acls` prints."""
    rights = tenancy.worker_rights
    if guarantee == "exactly_once":
        rights = printed(settings(tenancy.kafka, "worker", tenancy.namespace, processing_guarantee=guarantee))
    tenancy.kafka.grant("worker", rights)
    worker = tenancy.start(start_worker, processing_guarantee=guarantee, topics_create="false")
    manifest = msgspec.structs.replace(model.manifest(), cache=CacheSpec(ttl_s=60, max_entries=100))
    with tenancy.client() as client:
        client.deploy_model(model.data, manifest, alias="champion")
        worker.wait_ready()
        answers = [client.predict("demo", ROWS[0]).outputs["prediction"] for _ in range(3)]
        assert answers == [model.booster.predict([ROWS[0]])[0]] * 3
        *_, status = client.watch_job(client.submit_job("demo", ROWS))
        assert (status.status, status.succeeded) == ("completed", len(ROWS))
        assert len(list(client.job_results(status.job_id))) == len(ROWS)
    (access,) = asyncio.run(check_access(settings(tenancy.kafka, "worker", tenancy.namespace)))
    assert access.state == "ok", access
    assert waiting(worker) == {}
    assert "uthorization" not in worker.text()
    assert worker.stop() == 0


async def test_the_doctor_names_each_right_that_is_missing(tenancy: Tenancy) -> None:
    tenancy.kafka.grant("worker", tenancy.worker_rights)
    wanted = settings(tenancy.kafka, "worker", tenancy.namespace, processing_guarantee="exactly_once")
    for right in documented("worker", tenancy.namespace, ("a",)):
        tenancy.kafka.revoke("worker", [right])
        name = right.name + ("requests-*" if right.prefixed else "")
        named = re.compile(rf"{right.operation}[A-Z_, ]* on [a-z-]+ {re.escape(name)}")

        async def names(named: re.Pattern[str] = named) -> bool:
            checks = await check_access(wanted)
            return any(check.state != "ok" and named.search(check.detail) for check in checks)

        async with asyncio.timeout(20):  # the broker applies a removed rule with a delay
            while not await names():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        tenancy.kafka.grant("worker", [right])


def test_a_tenant_waits_while_one_of_its_rights_is_revoked(
    tenancy: Tenancy, model: TrainedModel, start_worker: StartWorker
) -> None:
    tenancy.kafka.grant("worker", tenancy.worker_rights)
    for cluster in tenancy.clusters.values():
        cluster.deploy(model)
    worker = tenancy.start(start_worker)
    worker.wait_ready()
    for number, lost in enumerate(LOST):
        rights = tenancy.rights(lost.format(tenancy.namespace))
        tenancy.kafka.revoke("worker", rights)
        tenancy.ask("a", f"a{number}")
        named = f"{rights[0].operation} on {rights[0].resource.lower()} {rights[0].name}"
        until(partial(waits_for, worker, named), NOTICED_S, f"{named} to be named")
        status, ready = worker.get("/readyz")
        assert named in str(ready)
        if "b" in waiting(worker):
            assert status == 503, "there is no other tenant to serve"
        else:
            tenancy.ask("b", f"b{number}")
            assert tenancy.is_answered("b", f"b{number}")
            until(lambda: worker.get("/readyz")[0] == 200, NOTICED_S, f"the other tenant to be served without {named}")
        tenancy.kafka.grant("worker", rights)
        until(lambda: not waiting(worker), NOTICED_S, "the end of the wait")
        assert tenancy.is_answered("a", f"a{number}")
    assert worker.text().count('"tenant_waits","tenant":"a"') == len(LOST), "each is logged once"
    assert worker.stop() == 0


def test_a_tenant_without_rights_at_the_start_waits_and_the_other_is_served(
    tenancy: Tenancy, model: TrainedModel, start_worker: StartWorker
) -> None:
    of_a = [right for right in tenancy.worker_rights if ".a." in right.name or right.name.endswith("-a.")]
    lost = tenancy.rights(f"READ on {tenancy.namespace}.a.job-chunks")
    tenancy.kafka.grant("worker", [right for right in tenancy.worker_rights if right not in of_a])
    for cluster in tenancy.clusters.values():
        cluster.deploy(model)
    worker = tenancy.start(start_worker)
    worker.wait_ready()
    tenancy.ask("a", "q1")
    tenancy.ask("b", "q2")
    assert tenancy.is_answered("b", "q2")
    tenancy.kafka.grant("worker", [right for right in of_a if right not in lost])
    only = f"the broker does not allow READ on topic {lost[0].name}."
    until(lambda: waiting(worker).get("a", "").startswith(only), NOTICED_S, f"{only} {waiting(worker)}")
    tenancy.kafka.grant("worker", lost)
    until(lambda: not waiting(worker), NOTICED_S, "the end of the wait")
    assert tenancy.is_answered("a", "q1")
    assert worker.stop() == 0


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_forbidden_reply_topic_only_fails_its_own_requests(
    tenancy: Tenancy, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    mine = Right("WRITE", "TOPIC", f"{tenancy.namespace}.mine")
    tenancy.kafka.create_topic(mine.name)
    tenancy.kafka.grant("worker", [*tenancy.worker_rights, mine, Right("DESCRIBE_CONFIGS", "TOPIC", mine.name)])
    for cluster in tenancy.clusters.values():
        cluster.deploy(model)
    worker = tenancy.start(start_worker, processing_guarantee=guarantee, reply_to_allowed=mine.name)
    worker.wait_ready()
    tenancy.ask("a", "allowed", reply_to=mine.name)
    until(lambda: tenancy.kafka.end_offset(mine.name) > 0, NOTICED_S, "a reply on the topic that is allowed")

    tenancy.kafka.revoke("worker", [mine])
    tenancy.ask("a", "forbidden", reply_to=mine.name)
    tenancy.ask("a", "after")

    refused = tenancy.answer("a", "forbidden")
    assert refused is not None, waiting(worker)
    assert refused["error"]["code"] == "reply_to_refused", refused
    assert tenancy.is_answered("a", "after")
    assert waiting(worker) == {}
    assert worker.stop() == 0


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_route_waits_while_one_of_its_rights_is_missing(
    tenancy: Tenancy, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    cluster, namespace = tenancy.clusters["a"], tenancy.namespace
    others = ForeignTopics(cluster)
    source, sink = others.create("orders", 2), others.create("scored", 2)
    read, write = Right("READ", "TOPIC", source), Right("WRITE", "TOPIC", sink)
    ids = Right("WRITE", "TRANSACTIONAL_ID", f"{namespace}-routes/", prefixed=True)
    rights = [read, write, ids] if guarantee == "exactly_once" else [read, write]
    tenancy.kafka.grant("worker", tenancy.worker_rights)
    cluster.deploy(model)
    allowed = f"a={others.prefix}.*"
    worker = tenancy.start(
        start_worker, processing_guarantee=guarantee, routes_sources=allowed, routes_sinks=allowed
    )  # fmt: skip
    worker.wait_ready()
    routes_command(
        cluster, "create", "orders", "--tenant", "a", "--from", source, "--to", sink, "--format", "json", "--model",
        "demo", *feature_options(), "--start", "earliest",
    )  # fmt: skip
    sent = 0

    def send() -> None:
        nonlocal sent
        producer = others.producer()
        for number in range(sent, sent + 40):
            producer.produce(source, order(number), partition=number % 2)
        assert producer.flush(30) == 0
        sent += 40

    def waits(right: Right) -> bool:
        (route,) = status(worker)["routes"] or [{}]
        kind = right.resource.lower().replace("_", "-")
        named = re.compile(rf"{right.operation} on {kind} {re.escape(right.name)}")
        return route.get("state") == "waiting" and bool(named.search(route["reason"]))

    def runs() -> bool:
        (route,) = status(worker)["routes"]
        return bool(route["state"] == "running" and route["lag"] == 0 and route["partitions"] == 2)

    for right in rights:
        send()
        until(partial(waits, right), NOTICED_S, f"{right} to be named at the start")
        tenancy.kafka.grant("worker", [right])
    until(runs, NOTICED_S, "the route runs")
    # It takes up to ten seconds until a lost right is noticed: each guarantee loses others.
    for right in [write] if guarantee == "at_least_once" else [read, ids]:
        tenancy.kafka.revoke("worker", [right])
        until(partial(waits, right), NOTICED_S, f"{right} to be named when it is revoked")
        send()
        tenancy.ask("a", f"beside-{right.resource}")
        assert tenancy.is_answered("a", f"beside-{right.resource}"), "requests are served all the while"
        tenancy.kafka.grant("worker", [right])
        until(runs, NOTICED_S, "the route runs again")
    numbers = sorted(json.loads(record.value())["id"] for record in others.read(sink, sent))
    assert sorted({*numbers}) == list(range(sent))
    assert guarantee == "at_least_once" or len(numbers) == sent
    assert worker.stop() == 0

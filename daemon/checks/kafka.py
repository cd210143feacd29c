"""Checks of the cluster: reachability of all brokers, topics, permissions, consumer group, clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    for_code,
)

from inferd.daemon.checks import Check, State
from inferd.daemon.cluster import (
    ApiVersions,
    bootstrap_addresses,
    connect,
    metadata,
    reach,
    why,
)
from inferd.daemon.loopback import is_loopback
from inferd.daemon.settings import Settings
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.topics import TenantTopics
from inferd.streams.connection import client_options
from inferd.streams.kafka import (
    Right,
    describe_rights,
    describe_topics,
    grant_commands,
    http_rights,
    missing_rights,
    worker_rights,
)

PROBE_TIMEOUT_S = 5.0
FETCH_MS = 500
AHEAD_S_MAX = 1.0
RECENT_S = 3_600.0
COORDINATOR_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
FETCH_KEY = 1
FETCH_VERSION_OF_KAFKA_4 = 4
"""The lowest version of Fetch that brokers from 4.0 on support; earlier brokers support version 0, too."""
NEEDED_APIS = {0: "Produce", 1: "Fetch", 2: "ListOffsets", 11: "JoinGroup", 19: "CreateTopics", 22: "InitProducerId"}


async def check_broker(connection: KafkaConnection) -> list[Check]:
    """Whether a bootstrap server answers and supports the required APIs. Raises `BrokerUnreachableError`."""
    started = time.perf_counter()
    answer = await reach(connection, PROBE_TIMEOUT_S)
    took_ms = (time.perf_counter() - started) * 1_000
    detail = f"{answer.host}:{answer.port} answers in {took_ms:.0f} ms, {connection.security_protocol}"
    return [Check("broker", "ok", detail), version_check(answer.api_versions)]


def version_check(versions: ApiVersions) -> Check:
    """Infers the version of a broker from the API versions that it supports."""
    lacking = [name for key, name in NEEDED_APIS.items() if key not in versions]
    if lacking:
        return Check(
            "version", "fail", f"the broker does not support {', '.join(lacking)}", "use Apache Kafka 4.0 or newer"
        )
    if versions[FETCH_KEY][0] < FETCH_VERSION_OF_KAFKA_4:
        return Check("version", "warn", "older than Apache Kafka 4.0", "inferd is tested with 4.0 and newer: upgrade")
    return Check("version", "ok", "Apache Kafka 4.0 or newer")


async def check_brokers(connection: KafkaConnection) -> list[Check]:
    """Whether every broker of the cluster is reachable at its advertised address."""
    brokers = [(broker.host, broker.port) for broker in (await metadata(connection)).brokers()]
    checks = []
    for host, port in brokers:
        try:
            (await connect(connection, host, port, PROBE_TIMEOUT_S)).close()
        except (OSError, KafkaError) as error:
            detail = f"the advertised broker {host}:{port} {why(error, connection, PROBE_TIMEOUT_S)}"
            checks.append(Check("brokers", "fail", detail, "fix advertised.listeners of that broker, or the network"))
    return checks or [Check("brokers", "ok", f"all {len(brokers)} are reachable at their advertised addresses")]


async def check_topics(settings: Settings) -> list[Check]:
    """Whether the topics of all tenants exist and are configured as required."""
    hidden = await hidden_topics(settings)
    states = [state for state in await describe_topics(settings.streams()) if state.name not in hidden]
    missing = [state for state in states if state.partitions == 0]
    wrong = [state for state in states if state.partitions and state.problem]
    checks = [Check("topics", "fail", state.problem or "", "change only what it names") for state in wrong]
    checks += [Check("topics", "warn", state.note, "change only what it names") for state in states if state.note]
    if hidden:
        detail = f"not allowed to see {', '.join(sorted(hidden))}"
        checks.append(Check("topics", "fail", detail, "grant the permissions that the check access names"))
    if missing:
        names = "" if len(missing) == len(states) else ": " + ", ".join(state.name for state in missing)
        detail = f"{len(missing)} of {len(states)} do not exist{names}"
        state, remedy = (
            ("warn", "a worker creates them") if settings.topics_create else ("fail", "inferd topics create")
        )
        checks.append(Check("topics", state, detail, remedy))  # type: ignore[arg-type]
    return checks or [Check("topics", "ok", f"{len(states)} topics of {len(settings.tenants)} tenants are as required")]


def grants(settings: Settings, user: str) -> list[str]:
    """The `kafka-acls` commands that grant `user` all rights of a worker with these settings."""
    streams = settings.streams()
    return grant_commands([*worker_rights(streams), *http_rights(streams)], settings.connection(), user)


async def check_access(settings: Settings) -> list[Check]:
    """Whether this user has the permissions that a worker needs. Reads and writes nothing."""
    streams, connection = settings.streams(), settings.connection()
    needed, over_http = worker_rights(streams), http_rights(streams)
    missing = await _missing_rights(connection, [*needed, *over_http])
    checks = []
    if lacking := [right for right in needed if right in missing]:
        checks.append(_access("fail", "not allowed: ", lacking, connection))
    if lacking := [right for right in over_http if right in missing]:
        what = "job or model requests over HTTP will be rejected, not allowed: "
        checks.append(_access("warn", what, lacking, connection))
    return checks or [Check("access", "ok", f"has all {len({*needed, *over_http})} permissions that a worker needs")]


def _access(state: State, what: str, missing: Collection[Right], connection: KafkaConnection) -> Check:
    return Check(
        "access", state, what + "; ".join(describe_rights(missing)), "; ".join(grant_commands(missing, connection))
    )


async def _missing_rights(connection: KafkaConnection, rights: Collection[Right]) -> set[Right]:
    client = AIOKafkaClient(**client_options(connection), client_id="inferd")
    try:
        await client.bootstrap()
        return set(await missing_rights(client, rights))
    finally:
        await client.close()


async def hidden_topics(settings: Settings) -> set[str]:
    """Topics that this user has no permission to describe, whether they exist or not."""
    rights = [right for right in worker_rights(settings.streams()) if right.operation == "DESCRIBE"]
    return {right.name for right in await _missing_rights(settings.connection(), rights) if right.resource == "topic"}


async def check_group(settings: Settings) -> list[Check]:
    """The state of the workers' consumer group, and its lag."""
    connection, group = settings.connection(), settings.group
    admin = AIOKafkaAdminClient(**client_options(connection))
    try:
        await admin.start()
        await _wait_for_coordinator(admin, group)
        state, members = await _group_state(admin, group)
        committed = await admin.list_consumer_group_offsets(group)
    except GroupAuthorizationFailedError:
        return [
            Check(
                "group",
                "fail",
                f"not allowed: READ on group {group}",
                "grant the permissions that the check access names",
            )
        ]
    finally:
        await admin.close()
    lag = await _lag(settings, {tp: offset.offset for tp, offset in committed.items()})
    detail = f"{group} is {state} with {members} members, lag {lag:,} requests"
    if members == 0:
        return [Check("group", "warn", detail, "start a worker: inferd worker")]
    return [Check("group", "ok" if state == "Stable" else "warn", detail)]


async def _wait_for_coordinator(admin: AIOKafkaAdminClient, group: str) -> None:
    """Waits for the group coordinator: a new cluster creates its offsets topic on the first request."""
    for pause_s in COORDINATOR_PAUSES_S:
        try:
            await admin.find_coordinator(group)
        except GroupCoordinatorNotAvailableError:
            await asyncio.sleep(pause_s)
        else:
            return


async def _group_state(admin: AIOKafkaAdminClient, group: str) -> tuple[str, int]:
    response: Any
    (response,) = await admin.describe_consumer_groups([group])
    error_code, _group, state, _protocol_type, _protocol, members, *_ = response.groups[0]
    error = for_code(error_code)
    if error is GroupAuthorizationFailedError:
        raise error(group)
    return state or "missing", len(members)


async def _lag(settings: Settings, committed: dict[TopicPartition, int]) -> int:
    """Requests after the committed offsets; without a commit, all requests of the partition."""
    cluster = await metadata(settings.connection())
    partitions = [
        TopicPartition(topic, partition)
        for tenant in settings.tenants
        for topic in [TenantTopics(settings.namespace, tenant).name("requests")]
        for partition in cluster.partitions_for_topic(topic) or ()
    ]
    if not partitions:
        return 0
    async with AIOKafkaConsumer(**client_options(settings.connection()), enable_auto_commit=False) as consumer:
        ends = await consumer.end_offsets(partitions)
        first = await consumer.beginning_offsets(partitions)
    return sum(max(ends[tp] - max(committed.get(tp, first[tp]), first[tp]), 0) for tp in partitions)


async def check_clock(settings: Settings) -> list[Check]:
    """Whether this machine's clock agrees with the clocks that stamp requests: latencies are differences of both."""
    if all(is_loopback(host) for host, _ in bootstrap_addresses(settings.connection().bootstrap_servers)):
        return [Check("clock", "ok", "the broker is on this machine")]
    newest_ms = await _newest_timestamp_ms(settings)
    behind_s = None if newest_ms is None else time.time() - newest_ms / 1_000
    return [clock_check(behind_s)]


def clock_check(behind_s: float | None) -> Check:
    """Judges the clock by the age of the newest request: a timestamp in the future means different clocks."""
    if behind_s is None:
        return Check("clock", "skip", "there is no request to compare timestamps with")
    if behind_s < -AHEAD_S_MAX:
        detail = f"the newest request is {-behind_s:.1f} s ahead of this machine's clock"
        return Check("clock", "warn", detail, "synchronise the clocks (NTP) of producers, brokers and workers")
    if behind_s > RECENT_S:
        return Check("clock", "skip", "the newest request is too old to compare timestamps")
    return Check("clock", "ok", "no request has a timestamp in the future")


async def _newest_timestamp_ms(settings: Settings) -> int | None:
    topic = TenantTopics(settings.namespace, settings.tenants[0]).name("requests")
    numbers = (await metadata(settings.connection())).partitions_for_topic(topic) or ()
    newest = None
    if not numbers:
        return None
    async with AIOKafkaConsumer(**client_options(settings.connection()), enable_auto_commit=False) as consumer:
        for tp in (TopicPartition(topic, number) for number in sorted(numbers)):
            end = (await consumer.end_offsets([tp]))[tp]
            first = (await consumer.beginning_offsets([tp]))[tp]
            if end > first:
                consumer.assign([tp])
                consumer.seek(tp, end - 1)
                for record in (await consumer.getmany(timeout_ms=FETCH_MS)).get(tp, []):
                    newest = max(newest or 0, record.timestamp)
    return newest

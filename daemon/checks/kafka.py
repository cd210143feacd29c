"""Checks of the cluster: does it answer, is every broker reachable, are topics, rights and group as they should be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.produce import ProduceRequest

from daemon.checks import Check
from daemon.cluster import ApiVersions, bootstrap_addresses, connect, metadata, reach, why
from daemon.setting_checks import is_loopback
from daemon.settings import Settings
from schemas.connection import KafkaConnection
from schemas.topics import Stream, TenantTopics
from streams.connections import client_options
from streams.topics import describe_topics

PROBE_TIMEOUT_S = 5.0
FETCH_MS = 500
AHEAD_S_MAX = 1.0
RECENT_S = 3_600.0
COORDINATOR_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
FETCH_KEY = 1
FETCH_VERSION_OF_KAFKA_4 = 4
"""The least version of Fetch that brokers from 4.0 on speak; earlier ones speak version 0 too."""
NEEDED_APIS = {0: "Produce", 1: "Fetch", 2: "ListOffsets", 11: "JoinGroup", 19: "CreateTopics", 22: "InitProducerId"}
READ: tuple[Stream, ...] = ("requests", "models", "model-artifacts")
WRITTEN: tuple[Stream, ...] = ("results", "dead-letters")


async def check_broker(connection: KafkaConnection) -> list[Check]:
    """Whether a bootstrap server answers, and speaks what is needed. `BrokerUnreachableError` where none answers."""
    started = time.perf_counter()
    answer = await reach(connection, PROBE_TIMEOUT_S)
    took_ms = (time.perf_counter() - started) * 1_000
    detail = f"{answer.host}:{answer.port} answers in {took_ms:.0f} ms, {connection.security_protocol}"
    return [Check("broker", "ok", detail), version_check(answer.api_versions)]


def version_check(versions: ApiVersions) -> Check:
    """What the versions of the requests that a broker speaks say of its own version."""
    lacking = [name for key, name in NEEDED_APIS.items() if key not in versions]
    if lacking:
        return Check("version", "fail", f"the broker has no {', '.join(lacking)}", "use Apache Kafka 4.0 or newer")
    if versions[FETCH_KEY][0] < FETCH_VERSION_OF_KAFKA_4:
        return Check("version", "warn", "older than Apache Kafka 4.0", "inferd is tested with 4.0 and newer: upgrade")
    return Check("version", "ok", "Apache Kafka 4.0 or newer")


async def check_brokers(connection: KafkaConnection) -> list[Check]:
    """Whether every broker of the cluster can be reached at the address that it advertises."""
    brokers = [(broker.host, broker.port) for broker in (await metadata(connection)).brokers()]
    checks = []
    for host, port in brokers:
        try:
            (await connect(connection, host, port, PROBE_TIMEOUT_S)).close()
        except (OSError, KafkaError) as error:
            detail = f"the advertised broker {host}:{port} {why(error, connection, PROBE_TIMEOUT_S)}"
            checks.append(Check("brokers", "fail", detail, "mend advertised.listeners of that broker, or the network"))
    return checks or [Check("brokers", "ok", f"all {len(brokers)} can be reached where they advertise")]


async def check_topics(settings: Settings) -> list[Check]:
    """Whether the topics of all tenants are there and fit."""
    states = await describe_topics(settings.streams())
    missing = [state for state in states if state.partitions == 0]
    wrong = [state for state in states if state.partitions and state.problem]
    checks = [Check("topics", "fail", state.problem or "", "do what it says, and no more") for state in wrong]
    checks += [Check("topics", "warn", state.note, "do what it says, and no more") for state in states if state.note]
    if missing:
        names = "" if len(missing) == len(states) else ": " + ", ".join(state.name for state in missing)
        detail = f"{len(missing)} of {len(states)} are not there{names}"
        state, remedy = (
            ("warn", "a worker creates them") if settings.topics_create else ("fail", "inferd topics create")
        )
        checks.append(Check("topics", state, detail, remedy))  # type: ignore[arg-type]
    return checks or [Check("topics", "ok", f"{len(states)} topics of {len(settings.tenants)} tenants are right")]


async def check_access(settings: Settings) -> list[Check]:
    """Whether a worker may read, write and join as it must; nothing is written."""
    connection = settings.connection()
    tenants = [TenantTopics(settings.namespace, tenant) for tenant in settings.tenants]
    known = (await metadata(connection)).topics()
    read = [name for topics in tenants for name in map(topics.name, READ) if name in known]
    written = [name for topics in tenants for name in map(topics.name, WRITTEN) if name in known]
    denied = [
        *(f"read {name}" for name in await _unreadable(connection, read)),
        *(f"write {name}" for name in await _unwritable(connection, written)),
    ]
    if denied:
        return [Check("access", "fail", f"not allowed: {', '.join(denied)}", "give this user those rights (ACLs)")]
    return [Check("access", "ok", f"may read {len(read)} and write {len(written)} topics")]


async def _unreadable(connection: KafkaConnection, topics: Sequence[str]) -> list[str]:
    denied: list[str] = []
    if not topics:
        return denied
    async with AIOKafkaConsumer(**client_options(connection), enable_auto_commit=False) as consumer:
        for topic in topics:
            consumer.assign([TopicPartition(topic, 0)])
            await consumer.seek_to_end()
            try:
                await consumer.getmany(timeout_ms=FETCH_MS)
            except TopicAuthorizationFailedError:
                denied.append(topic)
    return denied


async def _unwritable(connection: KafkaConnection, topics: Sequence[str]) -> list[str]:
    """Asks to produce nothing: a broker checks the right before it refuses an empty batch."""
    cluster = await metadata(connection)
    nodes = {broker.nodeId: (broker.host, broker.port) for broker in cluster.brokers()}
    denied = []
    for topic in topics:
        leader = cluster.leader_for_partition(TopicPartition(topic, 0))
        if leader not in nodes:
            continue
        conn = await connect(connection, *nodes[leader], PROBE_TIMEOUT_S)
        try:
            response = await conn.send(ProduceRequest(None, -1, 1_000, [(topic, [(0, b"")])]))
        finally:
            conn.close()
        code = response.topics[0][1][0][1]
        if for_code(code) is TopicAuthorizationFailedError:
            denied.append(topic)
    return denied


async def check_group(settings: Settings) -> list[Check]:
    """The state of the workers' consumer group, and what waits for it."""
    connection, group = settings.connection(), settings.group
    admin = AIOKafkaAdminClient(**client_options(connection))
    try:
        await admin.start()
        await _wait_for_coordinator(admin, group)
        state, members = await _group_state(admin, group)
        committed = await admin.list_consumer_group_offsets(group)
    except GroupAuthorizationFailedError:
        return [Check("group", "fail", f"not allowed: join the group {group}", "give this user the right to read it")]
    finally:
        await admin.close()
    lag = await _lag(settings, {tp: offset.offset for tp, offset in committed.items()})
    detail = f"{group} is {state} with {members} members, {lag:,} requests wait"
    if members == 0:
        return [Check("group", "warn", detail, "no worker runs: inferd worker")]
    return [Check("group", "ok" if state == "Stable" else "warn", detail)]


async def _wait_for_coordinator(admin: AIOKafkaAdminClient, group: str) -> None:
    """A cluster that has had no group yet makes their topic when it is first asked."""
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
    return state or "not there", len(members)


async def _lag(settings: Settings, committed: dict[TopicPartition, int]) -> int:
    """Requests behind the committed offsets, or behind the beginning where none is committed."""
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
    """Whether this machine's clock fits those that stamp the requests: latencies are reckoned between them."""
    if all(is_loopback(host) for host, _ in bootstrap_addresses(settings.connection().bootstrap_servers)):
        return [Check("clock", "ok", "the broker is on this machine")]
    newest_ms = await _newest_timestamp_ms(settings)
    behind_s = None if newest_ms is None else time.time() - newest_ms / 1_000
    return [clock_check(behind_s)]


def clock_check(behind_s: float | None) -> Check:
    """What the age of the newest request says: one from the future has another clock than ours."""
    if behind_s is None:
        return Check("clock", "skip", "there is no request whose time could be compared")
    if behind_s < -AHEAD_S_MAX:
        detail = f"the newest request is {-behind_s:.1f} s ahead of this machine's clock"
        return Check("clock", "warn", detail, "synchronise the clocks (NTP) of producers, brokers and workers")
    if behind_s > RECENT_S:
        return Check("clock", "skip", "the newest request is too old for its time to be compared")
    return Check("clock", "ok", "no request comes from the future")


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

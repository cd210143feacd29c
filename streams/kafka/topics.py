"""Topics of the tenants on the broker: creates missing ones, and checks existing ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from inferd.schemas.connection import KafkaConnection
from inferd.streams.connection import client_options
from inferd.streams.kafka.topic_checks import (
    BYTES_MAX_DEFAULT,
    TopicsError,
    TopicSpec,
    TopicState,
    checked,
    reply_specs,
    sink_specs,
    topic_specs,
)
from inferd.streams.settings import StreamSettings

log = structlog.get_logger(__name__)

CHECKED_CONFIGS = ("cleanup.policy", "retention.ms", "max.message.bytes")
VISIBLE_WITHIN_S = 5.0
"""Maximum time until every broker knows a new topic."""
LOOK_AGAIN_S = 0.1


async def describe_topics(settings: StreamSettings, sinks: Collection[str] = ()) -> list[TopicState]:
    """The state of every topic of the settings, with its problems: tenants' topics first, then reply topics and sinks.

    Raises `KafkaError` if the broker does not answer.
    """
    async with Admin(settings.connection) as admin:
        specs = [*topic_specs(settings), *reply_specs(settings), *sink_specs(sinks)]
        return await states_of(admin, specs, settings.connection)


async def ensure_topics(settings: StreamSettings) -> list[TopicState]:
    """Creates missing topics if the settings allow it, and verifies the others; returns all, as `describe_topics`.

    Raises `TopicsError` with each mismatch and its remedy; `KafkaError` if the broker does not answer.
    """
    wanted = topic_specs(settings)
    specs = [*wanted, *reply_specs(settings)]
    async with Admin(settings.connection) as admin:
        before = await states_of(admin, specs, settings.connection)
        missing = {state.name for state in before if state.partitions == 0}
        if settings.topics.create and (new := [spec for spec in wanted if spec.name in missing]):
            # Check existing topics first: topics created with wrong settings would have to be deleted again.
            _reject(state for state in before if state.partitions)
            await _create(admin, new, await _bytes_max_default(admin))
        states = await _visible_states(admin, specs, settings.connection)
    _reject(states)
    for state in states:
        if state.note is not None:
            log.warning("topic_differs", topic=state.name, note=state.note)
    return states


def _reject(states: Iterable[TopicState]) -> None:
    if rejected := [state for state in states if state.problem]:
        # Missing topics and rights may appear; wrong settings do not change by themselves.
        lasting = any(state.partitions and state.config for state in rejected)
        raise TopicsError([state.problem or "" for state in rejected], lasting=lasting)


async def _bytes_max_default(admin: AIOKafkaAdminClient) -> int:
    """The broker's default limit of record sizes; Kafka's own default if the broker denies the request."""
    try:
        cluster: Any = await admin.describe_cluster()
        nodes = [str(broker["node_id"]) for broker in cluster["brokers"]][:1]
        asked = [ConfigResource(ConfigResourceType.BROKER, node, {"message.max.bytes": ""}) for node in nodes]
        responses: list[Any] = await admin.describe_configs(asked)
    except KafkaError:
        return BYTES_MAX_DEFAULT
    entries = [entry for response in responses for _, _, _, _, found in response.resources for entry in found]
    return next((int(entry[1]) for entry in entries if entry[0] == "message.max.bytes"), BYTES_MAX_DEFAULT)


def _new_topic(spec: TopicSpec, bytes_max_default: int) -> NewTopic:
    config = dict(spec.config)
    # Without a value, the topic uses the broker's setting.
    if spec.bytes_max > bytes_max_default:
        config["max.message.bytes"] = str(spec.bytes_max)
    return NewTopic(spec.name, spec.partitions, spec.replication, topic_configs=config)


async def _create(admin: AIOKafkaAdminClient, specs: Iterable[TopicSpec], bytes_max_default: int) -> None:
    new = [_new_topic(spec, bytes_max_default) for spec in specs]
    response: Any = await admin.create_topics(new)
    problems = []
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        # Another worker may have created it, or the response may have come too late.
        if code and error is not TopicAlreadyExistsError and not error.retriable:
            detail = rest[0] if rest and rest[0] else error.__name__
            if error is TopicAuthorizationFailedError:
                detail = f"this user lacks CREATE on topic {name}: grant it, or have somebody else create the topics"
            problems.append(f"topic {name} could not be created: {detail}")
    if problems:
        raise TopicsError(problems)


async def _visible_states(
    admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], connection: KafkaConnection
) -> list[TopicState]:
    """The states once all topics are visible or the time is over: metadata may lag behind."""
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while True:
        states = await states_of(admin, specs, connection)
        if all(state.partitions for state in states) or time.monotonic() > deadline:
            return states
        await asyncio.sleep(LOOK_AGAIN_S)


async def states_of(
    admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], connection: KafkaConnection
) -> list[TopicState]:
    """The state of each topic as the broker describes it, with its problems."""
    # Request all topics: a broker with automatic topic creation would create topics requested by name.
    described = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
    configs = await _configs(admin, [spec.name for spec in specs if described.get(spec.name)])
    states = []
    for spec in specs:
        # A topic deleted since it was described has no settings.
        partitions = described.get(spec.name, []) if spec.name in configs else []
        replication = min((len(partition["replicas"]) for partition in partitions), default=0)
        config = configs.get(spec.name)
        known = config if isinstance(config, dict) else {}
        states.append(TopicState(spec.name, spec.stream, len(partitions), replication, known))
    unreadable = {name: why for name, why in configs.items() if isinstance(why, str)}
    return [
        replace(state, problem=_unreadable(state, unreadable[state.name])) if state.name in unreadable else state
        for state in checked(specs, states, connection.bootstrap_servers)
    ]


def _unreadable(state: TopicState, why: str) -> str:
    return f"topic {state.name}: its settings cannot be read: {why}; this user lacks DESCRIBE_CONFIGS on it: grant that"


async def _configs(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str] | str]:
    """By topic: its settings, or why they cannot be read; missing topics are omitted."""
    configs: dict[str, dict[str, str] | str] = {}
    if not names:
        return configs
    asked = dict.fromkeys(CHECKED_CONFIGS, "")
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, asked) for name in names]
    responses: list[Any] = await admin.describe_configs(resources)
    for response in responses:
        for code, message, _kind, name, entries in response.resources:
            if not code:
                configs[name] = {entry[0]: entry[1] for entry in entries}
            elif for_code(code) is not UnknownTopicOrPartitionError:
                configs[name] = message or for_code(code).__name__
    return configs


class Admin:
    """An admin client, closed after the `with` block."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._admin = AIOKafkaAdminClient(**client_options(connection))

    async def __aenter__(self) -> AIOKafkaAdminClient:
        try:
            await self._admin.start()
        except BaseException:
            await self._admin.close()
            raise
        return self._admin

    async def __aexit__(self, *_: object) -> None:
        await self._admin.close()

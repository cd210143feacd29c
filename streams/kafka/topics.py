"""The topics of the tenants on the broker: creating those that are missing, and checking those that are there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
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
    topic_specs,
)
from inferd.streams.settings import StreamSettings

log = structlog.get_logger(__name__)

CHECKED_CONFIGS = ("cleanup.policy", "retention.ms", "max.message.bytes")
VISIBLE_WITHIN_S = 5.0
"""How long it may take until every broker knows of a topic that was created just now, by us or by others."""
LOOK_AGAIN_S = 0.1


async def describe_topics(settings: StreamSettings) -> list[TopicState]:
    """Every topic of the settings as it is, and what is wrong with it: the tenants', then those replies may go to.

    `KafkaError` where the broker does not answer.
    """
    async with _Admin(settings.connection) as admin:
        return await _states(admin, [*topic_specs(settings), *reply_specs(settings)])


async def ensure_topics(settings: StreamSettings) -> list[TopicState]:
    """Creates what is missing, where the settings allow it, and verifies the rest; all topics, as `describe_topics`.

    `TopicsError` naming each topic that does not fit and what to change; `KafkaError` where the broker does not answer.
    """
    wanted = topic_specs(settings)
    specs = [*wanted, *reply_specs(settings)]
    async with _Admin(settings.connection) as admin:
        before = await _states(admin, specs)
        missing = {state.name for state in before if state.partitions == 0}
        if settings.topics.create and (new := [spec for spec in wanted if spec.name in missing]):
            # What is there decides: topics made beside it, as wrong settings ask, would have to be deleted again.
            _refuse(state for state in before if state.partitions)
            await _create(admin, new, await _bytes_max_default(admin))
        states = await _visible_states(admin, specs)
    _refuse(states)
    for state in states:
        if state.note is not None:
            log.warning("topic_differs", topic=state.name, note=state.note)
    return states


def _refuse(states: Iterable[TopicState]) -> None:
    if refused := [state for state in states if state.problem]:
        # A topic that is missing may be created, and the right to read settings granted; settings do not change.
        lasting = any(state.partitions and state.config for state in refused)
        raise TopicsError([state.problem or "" for state in refused], lasting=lasting)


async def _bytes_max_default(admin: AIOKafkaAdminClient) -> int:
    """What topics accept that say nothing about it; Kafka's own default where the broker may not be asked."""
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
    # One that says nothing follows the broker's setting.
    if spec.bytes_max > bytes_max_default:
        config["max.message.bytes"] = str(spec.bytes_max)
    return NewTopic(spec.name, spec.partitions, spec.replication, topic_configs=config)


async def _create(admin: AIOKafkaAdminClient, specs: Iterable[TopicSpec], bytes_max_default: int) -> None:
    new = [_new_topic(spec, bytes_max_default) for spec in specs]
    response: Any = await admin.create_topics(new)
    problems = []
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        # It is there already where another worker was quicker, and may be soon where the answer came too late.
        if code and error is not TopicAlreadyExistsError and not error.retriable:
            detail = rest[0] if rest and rest[0] else error.__name__
            if error is TopicAuthorizationFailedError:
                detail = f"this user lacks CREATE on topic {name}: grant it, or have somebody else create the topics"
            problems.append(f"topic {name} could not be created: {detail}")
    if problems:
        raise TopicsError(problems)


async def _visible_states(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> list[TopicState]:
    """The states, once all topics can be seen or the time for that is over: what a broker tells may lag behind."""
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while True:
        states = await _states(admin, specs)
        if all(state.partitions for state in states) or time.monotonic() > deadline:
            return states
        await asyncio.sleep(LOOK_AGAIN_S)


async def _states(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> list[TopicState]:
    # All topics are asked for: a broker that creates topics by itself makes those that are asked for by name.
    described = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
    configs = await _configs(admin, [spec.name for spec in specs if described.get(spec.name)])
    states = []
    for spec in specs:
        # One that was deleted since it was described has no settings.
        partitions = described.get(spec.name, []) if spec.name in configs else []
        replication = min((len(partition["replicas"]) for partition in partitions), default=0)
        config = configs.get(spec.name)
        known = config if isinstance(config, dict) else {}
        states.append(TopicState(spec.name, spec.stream, len(partitions), replication, known))
    unreadable = {name: why for name, why in configs.items() if isinstance(why, str)}
    return [
        replace(state, problem=_unreadable(state, unreadable[state.name])) if state.name in unreadable else state
        for state in checked(specs, states)
    ]


def _unreadable(state: TopicState, why: str) -> str:
    return f"topic {state.name}: its settings cannot be read: {why}; this user lacks DESCRIBE_CONFIGS on it: grant that"


async def _configs(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str] | str]:
    """By topic: its settings, or why they cannot be read; nothing of a topic that is not there."""
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


class _Admin:
    """An admin client for the time of a `with`."""

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

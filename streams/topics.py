"""The topics of a tenant: what they must look like, creating them, and checking those that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.connection import KafkaConnection
from schemas.errors import ServerError
from schemas.limits import Limits
from schemas.topics import STREAMS, Stream, TenantTopics
from streams.settings import StreamSettings, TopicSettings

COPARTITIONED: frozenset[Stream] = frozenset({"requests", "results", "dead-letters"})
"""A result and a dead letter go to the partition number of their request."""
SINGLE: frozenset[Stream] = frozenset({"models", "model-artifacts"})
"""Read in full, in order, by every worker."""
COMPACTED: frozenset[Stream] = frozenset({"models", "model-artifacts", "job-status"})
DEAD_LETTER_HEADERS_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic is created, and which of it an existing one must agree with."""

    name: str
    stream: Stream
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker describes it; `partitions` is 0 where it does not exist."""

    name: str
    stream: Stream
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None
    """What is wrong with it and what to change."""


def topic_specs(settings: StreamSettings) -> list[TopicSpec]:
    """Every topic of every tenant that the settings name."""
    return [
        _spec(TenantTopics(settings.namespace, tenant), stream, settings.topics, settings.limits)
        for tenant in settings.tenants
        for stream in STREAMS
    ]


def _spec(topics: TenantTopics, stream: Stream, settings: TopicSettings, limits: Limits) -> TopicSpec:
    config = {}
    if stream in COMPACTED:
        config["cleanup.policy"] = "compact"
    else:
        config["cleanup.policy"] = "delete"
        config["retention.ms"] = str(settings.retention_ms)
    if stream == "dead-letters":
        # The original record at its largest, and the headers that say what was wrong with it.
        config["max.message.bytes"] = str(2 * limits.message_bytes_max + DEAD_LETTER_HEADERS_BYTES)
    partitions = 1 if stream in SINGLE else settings.partitions
    return TopicSpec(topics.name(stream), stream, partitions, settings.replication, config)


async def describe_topics(settings: StreamSettings) -> list[TopicState]:
    """Every topic of the settings as it is, and what is wrong with it. `KafkaError` where the broker does not answer."""
    async with _Admin(settings.connection) as admin:
        return await _states(admin, topic_specs(settings))


async def ensure_topics(settings: StreamSettings) -> list[TopicState]:
    """Creates what is missing, where the settings allow it, and verifies the rest.

    `ServerError` naming each topic that does not fit and what to change; `KafkaError` where the broker does not answer.
    """
    specs = topic_specs(settings)
    async with _Admin(settings.connection) as admin:
        states = await _states(admin, specs)
        missing = [spec for spec, state in zip(specs, states, strict=True) if state.partitions == 0]
        if missing and settings.topics.create:
            await _create(admin, missing)
            states = await _states(admin, specs)
    problems = [state.problem for state in states if state.problem]
    if problems:
        raise ServerError("; ".join(problems))
    return states


async def _create(admin: AIOKafkaAdminClient, specs: Iterable[TopicSpec]) -> None:
    new = [NewTopic(spec.name, spec.partitions, spec.replication, topic_configs=dict(spec.config)) for spec in specs]
    response: Any = await admin.create_topics(new)
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        # Another worker may have been faster; what it made is verified afterwards.
        if code and error is not TopicAlreadyExistsError:
            detail = rest[0] if rest and rest[0] else error.__name__
            raise ServerError(f"topic {name} could not be created: {detail}")


async def _states(admin: AIOKafkaAdminClient, specs: list[TopicSpec]) -> list[TopicState]:
    described = {topic["topic"]: topic for topic in await admin.describe_topics([spec.name for spec in specs])}
    existing = [name for name, topic in described.items() if topic["error_code"] == 0]
    configs = await _configs(admin, existing)
    states = []
    for spec in specs:
        partitions = described[spec.name]["partitions"] if spec.name in existing else []
        replication = min((len(partition["replicas"]) for partition in partitions), default=0)
        states.append(TopicState(spec.name, spec.stream, len(partitions), replication, configs.get(spec.name, {})))
    counts = _copartition_counts(specs, states)
    return [_with_problem(state, spec, counts) for state, spec in zip(states, specs, strict=True)]


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, str]] = {}
    responses: list[Any] = await admin.describe_configs(resources)
    for response in responses:
        for _code, _message, _kind, name, entries in response.resources:
            configs[name] = {entry[0]: entry[1] for entry in entries}
    return configs


def _copartition_counts(specs: list[TopicSpec], states: list[TopicState]) -> dict[str, int]:
    """Partitions of the `requests` topic that each copartitioned topic has to match, by topic name."""
    by_prefix = {s.name.rsplit(".", 1)[0]: s.partitions for s in states if s.stream == "requests" and s.partitions}
    return {
        spec.name: by_prefix.get(spec.name.rsplit(".", 1)[0], spec.partitions)
        for spec in specs
        if spec.stream in COPARTITIONED
    }


def _with_problem(state: TopicState, spec: TopicSpec, counts: Mapping[str, int]) -> TopicState:
    return TopicState(
        state.name, state.stream, state.partitions, state.replication, state.config, _problem(state, spec, counts)
    )


def _problem(state: TopicState, spec: TopicSpec, counts: Mapping[str, int]) -> str | None:
    if state.partitions == 0:
        return f"topic {state.name} does not exist: run `inferd topics create`, or set INFERD_TOPICS_CREATE=true"
    if spec.stream in SINGLE and state.partitions != 1:
        return f"topic {state.name} has {state.partitions} partitions, must have 1: delete it and create it again"
    wanted = counts.get(state.name, state.partitions)
    if state.partitions != wanted:
        return (
            f"topic {state.name} has {state.partitions} partitions, the requests topic has {wanted}: "
            f"they must be equal; add partitions with kafka-topics --alter --topic {state.name} --partitions {wanted}"
        )
    policy = state.config.get("cleanup.policy", "")
    if spec.stream in COMPACTED and "compact" not in policy:
        return f"topic {state.name} has cleanup.policy={policy}: set it to compact, or deploys will be lost with time"
    if spec.stream not in COMPACTED and "compact" in policy:
        return (
            f"topic {state.name} has cleanup.policy={policy}: set it to delete, or records with equal keys will be lost"
        )
    return None


class _Admin:
    """An admin client for the time of a `with`."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._admin = AIOKafkaAdminClient(**connection.aiokafka_options())

    async def __aenter__(self) -> AIOKafkaAdminClient:
        try:
            await self._admin.start()
        except KafkaError:
            await self._admin.close()
            raise
        return self._admin

    async def __aexit__(self, *_: object) -> None:
        await self._admin.close()

"""The rights (ACLs) that a worker needs on Kafka, and the topics that it cannot process without each.

`docs/operations.md` lists the same rights; a test compares both.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from aiokafka import TopicPartition

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.topics import LABEL_STREAMS, LIFECYCLE_STREAMS, Stream, TenantTopics
from inferd.streams.kafka.changelogs import TableName, changelog_name
from inferd.streams.kafka.topic_checks import streams_of, tables_of
from inferd.streams.kafka.transactions import unit_of
from inferd.streams.settings import Guarantee, StreamSettings

Operation = Literal["READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS"]
Resource = Literal["topic", "group", "transactional-id"]
"""Resource types, named as in the flags of `kafka-acls`."""

REQUESTS: tuple[Stream, ...] = ("requests",)
JOBS: tuple[Stream, ...] = ("jobs", "job-chunks", "job-results")
ALL: tuple[Stream, ...] = (*REQUESTS, *JOBS, *LIFECYCLE_STREAMS, *LABEL_STREAMS)
"""The topics that a lane may read."""
READ_AND_WRITTEN: dict[Stream, tuple[tuple[Operation, ...], tuple[Stream, ...]]] = {
    "requests": (("READ",), REQUESTS),
    "results": (("WRITE",), REQUESTS),
    "dead-letters": (("WRITE",), ALL),
    "jobs": (("READ",), JOBS),
    "job-chunks": (("READ", "WRITE"), JOBS),
    "job-results": (("READ", "WRITE"), JOBS),
    "job-status": (("WRITE",), JOBS),
    "models": (("READ", "WRITE"), ()),
    "model-artifacts": (("READ",), ()),
    "routes": (("READ",), ()),
    "model-stats": (("READ", "WRITE"), (*REQUESTS, *LIFECYCLE_STREAMS, *LABEL_STREAMS)),
    "capture": (("WRITE",), REQUESTS),
    "labels": (("READ", "WRITE"), LABEL_STREAMS),
    "to-label": (("READ", "WRITE"), (*REQUESTS, *LABEL_STREAMS)),
    "shadow-results": (("WRITE",), ()),
    "rollouts": (("READ",), LIFECYCLE_STREAMS),
    "rollout-status": (("WRITE",), LIFECYCLE_STREAMS),
    "audit": (("WRITE",), ()),
}
"""By topic: the operations of a worker, and the tenant's topics that it cannot process without them."""
STOPS: dict[tuple[Stream, Operation], tuple[Stream, ...]] = {("models", "WRITE"): LIFECYCLE_STREAMS}
"""Of single operations, if they are others: rollouts move aliases. Topics that share state stop together."""
CHANGELOGS: dict[TableName, tuple[Stream, ...]] = {
    "predictions": REQUESTS,
    "jobs": JOBS,
    "model-windows": LIFECYCLE_STREAMS,
    "rollouts": LIFECYCLE_STREAMS,
    "labels": LABEL_STREAMS,
}
CHANGELOG_OPERATIONS: tuple[Operation, ...] = ("DESCRIBE", "READ", "WRITE")
OWNERS: dict[Stream, tuple[Stream, ...]] = {JOBS[0]: JOBS, LIFECYCLE_STREAMS[0]: LIFECYCLE_STREAMS}
"""Topics that are always processed in transactions, and those that stop without."""
TRANSACTIONAL: dict[Guarantee, dict[Stream, tuple[Stream, ...]]] = {
    "at_least_once": OWNERS,
    "exactly_once": {"requests": REQUESTS, **OWNERS},
}
"""Topics processed in transactions, and those that stop without: topics of jobs share the transactional ids of
`jobs`, and those of `LIFECYCLE_STREAMS` share theirs."""
OVER_HTTP: tuple[Stream, ...] = ("requests", "jobs", "models", "model-artifacts", "routes", "rollouts")
"""Topics written for HTTP callers: redriven requests, submitted jobs, deployed models, routes, rollouts."""
NAMED_MAX, COMMANDS_MAX = 6, 3
"""Maximum resources and commands in one message."""


@dataclass(frozen=True, slots=True)
class Right:
    """An operation on a resource of Kafka."""

    operation: Operation
    resource: Resource
    name: str
    tenant: str | None = field(default=None, compare=False)
    """None if all tenants need it."""
    stops: frozenset[str] = field(default=frozenset(), compare=False)
    """Topics that a worker cannot process without it."""

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}"


def read_streams(settings: StreamSettings) -> Sequence[Stream]:
    """The topics of a tenant that a lane with these settings reads."""
    used = streams_of(settings)
    return [stream for stream in ALL if stream in used]


def worker_rights(settings: StreamSettings, partitions: int | None = None) -> list[Right]:
    """Every right that a worker needs to serve its tenants; those of the group first.

    `partitions`: number of partitions whose transactional ids are listed; None for all.
    """
    numbers = range(settings.topics.partitions if partitions is None else partitions)
    names = [TenantTopics(settings.namespace, tenant) for tenant in settings.tenants]
    everything = frozenset(topics.name(stream) for topics in names for stream in read_streams(settings))
    group: list[Right] = [
        Right(operation, "group", settings.group.group_id, None, everything) for operation in ("DESCRIBE", "READ")
    ]
    return [*group, *(right for topics in names for right in _tenant_rights(settings, topics, numbers))]


def _tenant_rights(settings: StreamSettings, topics: TenantTopics, numbers: range) -> Iterable[Right]:
    def right(operation: Operation, resource: Resource, name: str, stops: Collection[Stream]) -> Right:
        stopped = frozenset(topics.name(stream) for stream in stops if stream in used)
        return Right(operation, resource, name, topics.tenant, stopped)

    used = streams_of(settings)
    for stream in used:
        operations, stops = READ_AND_WRITTEN[stream]
        for operation in ("DESCRIBE", *operations):
            yield right(operation, "topic", topics.name(stream), STOPS.get((stream, operation), stops))
        yield right("DESCRIBE_CONFIGS", "topic", topics.name(stream), ())
    for table in tables_of(settings):
        stops = CHANGELOGS[table]
        changelog = changelog_name(settings.group.group_id, topics.tenant, table)
        for operation in CHANGELOG_OPERATIONS:
            yield right(operation, "topic", changelog, stops)
        yield right("DESCRIBE_CONFIGS", "topic", changelog, ())
    transactional = TRANSACTIONAL[settings.processing_guarantee]
    if settings.labels_window_s:
        transactional = {**transactional, LABEL_STREAMS[0]: LABEL_STREAMS}
    for stream, stops in transactional.items():
        for number in numbers if stream not in LIFECYCLE_STREAMS else range(1):
            unit = unit_of(TopicPartition(topics.name(stream), number))
            for operation in ("DESCRIBE", "WRITE"):
                name = f"{settings.group.group_id}-{unit}"
                yield right(operation, "transactional-id", name, stops)


def http_rights(settings: StreamSettings) -> list[Right]:
    """Rights that a worker needs to submit jobs, deploy models and redrive dead letters for HTTP callers."""
    names = [TenantTopics(settings.namespace, tenant) for tenant in settings.tenants]
    return [
        *(Right("WRITE", "topic", topics.name(s), topics.tenant) for topics in names for s in OVER_HTTP),
        *(right for topics in names for right in _redrive_rights(topics)),
    ]


def _redrive_rights(topics: TenantTopics) -> Iterator[Right]:
    for stream in ("dead-letters", "audit"):
        yield Right("READ", "topic", topics.name(stream), topics.tenant)
    transactional_id = f"inferd-redrive-{topics.namespace}.{topics.tenant}"
    yield Right("WRITE", "transactional-id", transactional_id, topics.tenant)


def describe_missing(missing: Collection[Right], connection: KafkaConnection) -> str:
    """Lists the missing rights, and the commands with which an administrator grants them."""
    names, commands = describe_rights(missing), grant_commands(missing, connection)
    shown = names[:NAMED_MAX]
    if len(names) > NAMED_MAX:
        shown.append(f"and more on {len(names) - NAMED_MAX} others (inferd doctor names all)")
    return f"the broker does not allow {'; '.join(shown)}. Grant it: {'; '.join(commands[:COMMANDS_MAX])}"


def describe_rights(rights: Collection[Right]) -> list[str]:
    """The rights in words, one text per resource."""
    return [f"{', '.join(operations)} on {resource} {name}" for resource, name, operations in _by_resource(rights)]


def grant_commands(rights: Collection[Right], connection: KafkaConnection, user: str | None = None) -> list[str]:
    """The `kafka-acls` commands that grant the rights, one per resource; to `user`, or to the connection's."""
    user = user or connection.sasl_username or "<user>"
    return [_grant(connection.bootstrap_servers, user, *each) for each in _by_resource(rights)]


def _by_resource(rights: Collection[Right]) -> Iterator[tuple[Resource, str, list[Operation]]]:
    """Rights by resource; transactional ids, one per partition, are grouped by prefix."""
    grouped: dict[tuple[Resource, str], list[Operation]] = {}
    for right in rights:
        name = right.name
        if right.resource == "transactional-id":
            name = name.rstrip("0123456789") + "*"
        operations = grouped.setdefault((right.resource, name), [])
        if right.operation not in operations:
            operations.append(right.operation)
    return ((resource, name, operations) for (resource, name), operations in grouped.items())


def _grant(servers: str, user: str, resource: Resource, name: str, operations: Sequence[Operation]) -> str:
    pattern = " --resource-pattern-type prefixed" if name.endswith("*") else ""
    flags = " ".join(f"--operation {operation}" for operation in operations)
    return (
        f"kafka-acls --bootstrap-server {servers} --add --allow-principal {shlex.quote(f'User:{user}')} {flags}"
        f" --{resource} {name.rstrip('*')}{pattern}"
    )

"""Asks the broker which rights (ACLs) this user has, without reading, writing or joining anything.

For topics, the Metadata response lists the allowed operations. For groups and transactional ids it sends requests that
have no effect, and that the broker rejects first if a right is missing: a lookup of the coordinator, a heartbeat of an
unknown member, the end of a transaction of an unknown producer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    for_code,
)
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.transaction import EndTxnRequest

from inferd.streams.kafka.rights import Operation, Right
from inferd.streams.kafka.topic_metadata import UNKNOWN_OPERATIONS, TopicReport, any_node, read_reports

DENIED = (GroupAuthorizationFailedError, TopicAuthorizationFailedError, TransactionalIdAuthorizationFailed)
BITS: dict[Operation, int] = {"READ": 3, "WRITE": 4, "CREATE": 5, "DESCRIBE": 8, "DESCRIBE_CONFIGS": 10}
"""Kafka's code of each operation (`org.apache.kafka.common.acl.AclOperation`): its bit in the response."""
ALL_OPERATIONS = -1
TOPIC = 2
"""Kafka's resource type code of topics in DescribeConfigs."""
NO_MEMBER, NO_GENERATION = "inferd-rights", -1
NO_PRODUCER_ID, NO_PRODUCER_EPOCH = -1, 0


def is_denied(error: BaseException) -> bool:
    """Whether the error, or its cause, is a missing right (ACL)."""
    return isinstance(error, DENIED) or (error.__cause__ is not None and is_denied(error.__cause__))


async def missing_rights(client: AIOKafkaClient, rights: Collection[Right]) -> list[Right]:
    """The `rights` that this user does not have; those that the broker is too old to report count as given.

    Raises a `KafkaError` if the broker does not respond.
    """
    node = any_node(client)
    try:
        topics = await _missing_on_topics(client, node, [right for right in rights if right.resource == "topic"])
    except (IncompatibleBrokerVersion, NotImplementedError):
        return []
    others = [right for right in rights if right.resource != "topic"]
    denied = await asyncio.gather(*(_is_denied(client, node, right) for right in others))
    missing = {*topics, *(right for right, no in zip(others, denied, strict=True) if no)}
    return [right for right in rights if right in missing]


async def _missing_on_topics(client: AIOKafkaClient, node: int, rights: Sequence[Right]) -> list[Right]:
    reports = await read_reports(client, {right.name for right in rights}, operations=True)
    allowed = {report.name: _allowed(report) for report in reports}
    if hidden := [topic for topic, operations in allowed.items() if operations == 0]:
        described = await _with_configs(client, node, hidden)
        allowed |= dict.fromkeys(described, 1 << BITS["DESCRIBE_CONFIGS"])
    return [right for right in rights if not allowed.get(right.name, ALL_OPERATIONS) >> BITS[right.operation] & 1]


def _allowed(report: TopicReport) -> int:
    """The allowed operations as bits; all of them if the broker does not report them."""
    if report.error is TopicAuthorizationFailedError:
        return 0
    return ALL_OPERATIONS if report.operations == UNKNOWN_OPERATIONS else report.operations


async def _with_configs(client: AIOKafkaClient, node: int, topics: Sequence[str]) -> list[str]:
    """The `topics` whose configuration may be read; for topics without DESCRIBE, this is the only way to find out."""
    response: Any = await client.send(node, DescribeConfigsRequest([(TOPIC, topic, []) for topic in topics]))
    return [name for code, _, _, name, _ in response.resources if not issubclass(for_code(code), DENIED)]


async def _is_denied(client: AIOKafkaClient, node: int, right: Right) -> bool:
    response: Any = await client.send(node, _request_without_effect(right))
    return issubclass(for_code(response.error_code), DENIED)


def _request_without_effect(right: Right) -> FindCoordinatorRequest | HeartbeatRequest | EndTxnRequest:
    """A request that needs the right and has no effect."""
    if right.operation == "DESCRIBE":
        kind = CoordinationType.GROUP if right.resource == "group" else CoordinationType.TRANSACTION
        return FindCoordinatorRequest(right.name, kind)
    if right.resource == "group":
        return HeartbeatRequest(right.name, NO_GENERATION, NO_MEMBER)
    return EndTxnRequest(right.name, NO_PRODUCER_ID, NO_PRODUCER_EPOCH, False)

"""Asks the broker which rights (ACLs) this user has, without reading, writing or joining anything.

For topics, the Metadata response lists the allowed operations (KIP-430). For groups and transactional ids it sends
requests that have no effect, and that the broker rejects first if a right is missing: a lookup of the coordinator, a
heartbeat of an unknown member, the end of a transaction of an unknown producer.

aiokafka supports Metadata up to version 5; the allowed operations need version 8.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    for_code,
)
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.transaction import EndTxnRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from inferd.streams.kafka.rights import Operation, Right

DENIED = (GroupAuthorizationFailedError, TopicAuthorizationFailedError, TransactionalIdAuthorizationFailed)
BITS: dict[Operation, int] = {"READ": 3, "WRITE": 4, "CREATE": 5, "DESCRIBE": 8, "DESCRIBE_CONFIGS": 10}
"""Kafka's code of each operation (`org.apache.kafka.common.acl.AclOperation`): its bit in the response."""
UNKNOWN_OPERATIONS = -(2**31)
"""The value from a broker that does not report the operations."""
ALL_OPERATIONS = -1
TOPIC = 2
"""Kafka's resource type code of topics in DescribeConfigs."""
NO_MEMBER, NO_GENERATION = "inferd-rights", -1
NO_PRODUCER_ID, NO_PRODUCER_EPOCH = -1, 0


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(
                ("node_id", Int32),
                ("host", String("utf-8")),
                ("port", Int32),
                ("rack", String("utf-8")),
            ),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataRequestV8(RequestStruct):
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class OperationsRequest(Request[_MetadataRequestV8]):
    """A Metadata request for topics and their allowed operations."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequestV8]) -> _MetadataRequestV8:
        return request_struct_class(list(self._topics), False, False, True)


def is_denied(error: BaseException) -> bool:
    """Whether the error, or its cause, is a missing right (ACL)."""
    return isinstance(error, DENIED) or (error.__cause__ is not None and is_denied(error.__cause__))


async def missing_rights(client: AIOKafkaClient, rights: Collection[Right]) -> list[Right]:
    """The `rights` that this user does not have; empty if the broker is too old to report them.

    Raises a `KafkaError` if the broker does not respond.
    """
    node = client.get_random_node()
    if node is None:
        raise NodeNotReadyError("no broker of the cluster is known yet")
    try:
        topics = await _missing_on_topics(client, node, [right for right in rights if right.resource == "topic"])
    except (IncompatibleBrokerVersion, NotImplementedError):
        return []
    others = [right for right in rights if right.resource != "topic"]
    denied = await asyncio.gather(*(_is_denied(client, node, right) for right in others))
    missing = {*topics, *(right for right, no in zip(others, denied, strict=True) if no)}
    return [right for right in rights if right in missing]


async def _missing_on_topics(client: AIOKafkaClient, node: int, rights: Sequence[Right]) -> list[Right]:
    response: Any = await client.send(node, OperationsRequest(sorted({right.name for right in rights})))
    allowed = {topic: _allowed(for_code(code), operations) for code, topic, _, _, operations in response.topics}
    if hidden := [topic for topic, operations in allowed.items() if operations == 0]:
        described = await _with_configs(client, node, hidden)
        allowed |= dict.fromkeys(described, 1 << BITS["DESCRIBE_CONFIGS"])
    return [right for right in rights if not allowed.get(right.name, ALL_OPERATIONS) >> BITS[right.operation] & 1]


def _allowed(error: type[BaseException], operations: int) -> int:
    """The allowed operations as bits; all of them if the broker does not report them."""
    if error is TopicAuthorizationFailedError:
        return 0
    return ALL_OPERATIONS if operations == UNKNOWN_OPERATIONS else operations


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

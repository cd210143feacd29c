"""Metadata requests for topics: whether they exist, their partitions, topic ids, and this user's allowed operations.

aiokafka supports Metadata up to version 5. Version 8 (Kafka 2.3) adds the allowed operations (KIP-430), and version 12
(Kafka 3.1) topic ids (KIP-516): a topic that is deleted and created again keeps its name and gets another id. The
newest version that the broker supports is used; what an older one lacks is unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NodeNotReadyError, NoError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)

NO_ID = bytes(16)
UNKNOWN_OPERATIONS = -(2**31)
"""The value from a broker that does not report the operations, or was not asked."""


@dataclass(frozen=True, slots=True)
class TopicMetadata:
    """A topic that exists."""

    partitions: int
    topic_id: str = ""
    """In hex; empty if unknown."""


@dataclass(frozen=True, slots=True)
class TopicReport:
    """A topic in a Metadata response."""

    name: str
    error: type[BaseException]
    """`NoError` for a topic that exists and may be described."""
    partitions: int
    topic_id: str = ""
    """In hex; empty if unknown."""
    operations: int = UNKNOWN_OPERATIONS
    """A bit for each allowed operation."""


class _Uuid(AbstractType[bytes]):
    """16 bytes as they are."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(len(NO_ID))


_TEXT, _TAGS = CompactString("utf-8"), ("tags", TaggedFields)


class _MetadataResponseV8(Response):
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
    RESPONSE_TYPE = _MetadataResponseV8
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _MetadataResponseV12(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _MetadataRequestV12(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = _MetadataResponseV12
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class TopicsRequest(Request[MetadataRequest_v5 | _MetadataRequestV8 | _MetadataRequestV12]):
    """A Metadata request for topics by name, with or without the allowed operations; never creates a topic."""

    API_KEY = 3

    def __init__(self, names: Collection[str], *, operations: bool = False) -> None:
        self._names, self._operations = sorted(names), operations

    def build(self, request_struct_class: type[Any]) -> Any:
        if request_struct_class is MetadataRequest_v5:
            return MetadataRequest_v5(self._names, False)
        if request_struct_class is _MetadataRequestV8:
            return _MetadataRequestV8(self._names, False, False, self._operations)
        return _MetadataRequestV12([(NO_ID, name, {}) for name in self._names], False, self._operations, {})


def reports_in(response: Any) -> list[TopicReport]:
    """The topics of a response of any version."""
    return [_report(topic) for topic in response.to_object()["topics"]]


def _report(topic: Mapping[str, Any]) -> TopicReport:
    topic_id = topic.get("topic_id", NO_ID)
    return TopicReport(
        name=topic["topic"],
        error=for_code(topic["error_code"]),
        partitions=len(topic["partitions"]),
        topic_id="" if topic_id == NO_ID else topic_id.hex(),
        operations=topic.get("authorized_operations", UNKNOWN_OPERATIONS),
    )


def topics_in(reports: Collection[TopicReport]) -> dict[str, TopicMetadata | None]:
    """By name, each topic that the broker knows about; None if it does not exist.

    Topics with another error (no rights, no leader yet) are left out.
    """
    found: dict[str, TopicMetadata | None] = {}
    for report in reports:
        if report.error is UnknownTopicOrPartitionError:
            found[report.name] = None
        elif report.error is NoError:
            found[report.name] = TopicMetadata(report.partitions, report.topic_id)
    return found


def any_node(client: AIOKafkaClient) -> int:
    """A broker of the cluster; `NodeNotReadyError` if none is known."""
    node: int | None = client.get_random_node()
    if node is None:
        raise NodeNotReadyError("no broker of the cluster is known yet")
    return node


async def read_reports(
    client: AIOKafkaClient, names: Collection[str], *, operations: bool = False
) -> list[TopicReport]:
    """Asks a broker now; raises a `KafkaError` if it does not respond."""
    node = any_node(client)
    return reports_in(await client.send(node, TopicsRequest(names, operations=operations)))


async def read_topics(client: AIOKafkaClient, names: Collection[str]) -> Mapping[str, TopicMetadata | None]:
    """Asks a broker now; raises a `KafkaError` if it does not respond."""
    return topics_in(await read_reports(client, names))

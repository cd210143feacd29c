"""What the broker says of topics: whether they exist, how many partitions they have, and their topic ids.

A topic that is deleted and created again keeps its name and gets another id (KIP-516), which aiokafka does not read.
Brokers that do not speak this version of the request (`Metadata` 12, Kafka 3.1) leave the id empty.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

NO_ERROR, UNKNOWN_TOPIC = 0, 3
NO_ID = bytes(16)


@dataclass(frozen=True, slots=True)
class TopicMetadata:
    """A topic that exists."""

    partitions: int
    topic_id: str = ""
    """In hex; empty if the broker has not told it."""


class _Uuid(AbstractType[bytes]):
    """16 bytes as they are."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(len(NO_ID))


_TEXT, _TAGS = CompactString("utf-8"), ("tags", TaggedFields)


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
                ("name", _TEXT),
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


class TopicsRequest(Request[MetadataRequest_v5 | _MetadataRequestV12]):
    """Asks for topics by name; never makes a broker create one."""

    API_KEY = 3

    def __init__(self, names: Collection[str]) -> None:
        self._names = sorted(names)

    def build(self, request_struct_class: type[Any]) -> Any:
        if request_struct_class is MetadataRequest_v5:
            return MetadataRequest_v5(self._names, False)
        return _MetadataRequestV12([(NO_ID, name, {}) for name in self._names], False, False, {})


def topics_in(response: Any) -> dict[str, TopicMetadata | None]:
    """By name, each topic that the broker knows about; None if it does not exist.

    A topic of which the broker says something else (no rights, no leader yet) is left out.
    """
    found: dict[str, TopicMetadata | None] = {}
    for code, name, *rest in response.topics:
        if code == UNKNOWN_TOPIC:
            found[name] = None
        elif code == NO_ERROR:
            topic_id = rest[0] if response.API_VERSION >= _MetadataResponseV12.API_VERSION else NO_ID
            partitions = rest[-3] if response.API_VERSION >= _MetadataResponseV12.API_VERSION else rest[-1]
            found[name] = TopicMetadata(len(partitions), "" if topic_id == NO_ID else topic_id.hex())
    return found


async def read_topics(client: AIOKafkaClient, names: Collection[str]) -> Mapping[str, TopicMetadata | None]:
    """Asks some broker now. `KafkaError` where none answers."""
    node = client.get_random_node()
    if node is None:
        raise NodeNotReadyError("no broker of the cluster is known yet")
    return topics_in(await client.send(node, TopicsRequest(names)))

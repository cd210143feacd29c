"""`/topics`: the topics of a tenant, and the records in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from aiohttp import web
from msgspec import Struct

from inferd.daemon.http.core import json_response, tenant_of
from inferd.daemon.http.routes.query_numbers import number_of, optional_number

PAGE_MAX, PAGE_DEFAULT = 200, 50
PARTITION_MAX, OFFSET_MAX = 10**6, 2**63 - 1


class Topic(Struct, frozen=True):
    """A topic that exists."""

    topic: str
    partitions: int
    of_routes: bool
    """Whether it belongs to others: routes read or write it."""


class TopicsAnswer(Struct, frozen=True):
    """The topics of the tenant and of its routes, by name."""

    topics: list[Topic]


class TopicRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record; long keys, headers and values are cut."""

    offset: int
    timestamp: int
    """Unix milliseconds."""
    key: str | None
    headers: list[tuple[str, str | None]] = []
    value_bytes: int
    value_format: Literal["empty", "json", "msgpack", "binary", "long"]
    value: Any = None
    """Decoded, if it is JSON or MessagePack."""
    value_base64: bytes | None = None
    """The beginning of any other value."""
    problem: str | None = None
    """Why it is not decoded."""


class TopicRecords(Struct, frozen=True):
    """A page of records, oldest first. `first` and `end` (exclusive): the offsets that the partition holds now."""

    topic: str
    partition: int
    partitions: int
    first: int
    end: int
    next: int
    """The offset at which the next page begins; `end`, if there is none."""
    records: list[TopicRecord]


class Topics(Protocol):
    """The topics of tenants. Raises `UnavailableError` (503) if the broker does not respond."""

    async def topics(self, tenant: str) -> Sequence[Topic]:
        """Those that exist."""

    async def records(self, tenant: str, topic: str, partition: int, start: int | None, limit: int) -> TopicRecords:
        """At most `limit` records from an offset (None: the newest); `NotFoundError`."""


TOPICS: web.AppKey[Topics] = web.AppKey("topics", Topics)


def add_topics(app: web.Application, topics: Topics) -> None:
    """Adds the routes, backed by `topics`."""
    app[TOPICS] = topics
    app.router.add_get("/topics", list_topics)
    app.router.add_get("/topics/{topic}/records", list_records)


async def list_topics(request: web.Request) -> web.StreamResponse:
    """The topics of the tenant."""
    return json_response({"topics": await request.app[TOPICS].topics(tenant_of(request))})


async def list_records(request: web.Request) -> web.StreamResponse:
    """Records of a partition."""
    tenant, topic = tenant_of(request), request.match_info["topic"]
    partition = optional_number(request, "partition", PARTITION_MAX, 0) or 0
    start, limit = optional_number(request, "from", OFFSET_MAX, 0), number_of(request, "limit", PAGE_DEFAULT, PAGE_MAX)
    return json_response(await request.app[TOPICS].records(tenant, topic, partition, start, limit))

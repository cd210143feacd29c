"""Backend of the routes of topics in a worker: reads with a consumer for each request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from inferd.daemon.dead_letter_entries import text_of
from inferd.daemon.http.core import NotFoundError
from inferd.daemon.http.routes import RoutesOf, Topic, TopicRecord, TopicRecords
from inferd.daemon.http.worker.topic_reads import TopicReads
from inferd.daemon.settings import Settings
from inferd.daemon.value_view import view_of
from inferd.schemas.errors import ServerError
from inferd.schemas.topics import STREAMS, TenantTopics

if TYPE_CHECKING:
    from inferd.daemon.topic_reader import Record

TEXT_BYTES_MAX, HEADERS_MAX = 1_024, 64
"""Of a key and of each header; and their number."""
VALUE_BYTES_MAX, BEGINNING_BYTES = 65_536, 1_024
"""Longer values are not decoded; and what is shown of them, and of those that cannot be decoded."""


class ClusterTopics:
    """`Topics` of a worker's tenants; few requests read at a time, since each has a consumer of its own."""

    def __init__(self, settings: Settings, routes_of: RoutesOf) -> None:
        self._settings, self._routes_of = settings, routes_of
        self._reads = TopicReads("the topic", "was", (KafkaError, ServerError, OSError))

    async def topics(self, tenant: str) -> Sequence[Topic]:
        """See `Topics`."""
        from inferd.daemon.cluster import metadata

        found = await self._reads.run(lambda: metadata(self._settings.connection()))
        of_tenant, of_routes = self._names(tenant)
        counts = {name: len(found.partitions_for_topic(name) or ()) for name in sorted(of_tenant | of_routes)}
        return [Topic(name, count, name not in of_tenant) for name, count in counts.items() if count]

    async def records(self, tenant: str, topic: str, partition: int, start: int | None, limit: int) -> TopicRecords:
        """See `Topics`."""
        from inferd.daemon.topic_records import NoPartitionError, RecordsPage, read_page

        if topic not in frozenset().union(*self._names(tenant)):
            raise NotFoundError(f"tenant {tenant} has no topic {topic[:249]!r}: GET /topics lists all of them")

        async def read() -> RecordsPage:
            try:
                return await read_page(self._settings.connection(), topic, partition, start, limit)
            except NoPartitionError as error:
                raise NotFoundError(error.message) from None

        page = await self._reads.run(read)
        records = list(map(shown, page.records))
        return TopicRecords(topic, partition, page.partitions, *page.held, page.next_offset, records)

    def _names(self, tenant: str) -> tuple[frozenset[str], frozenset[str]]:
        """The topics of a tenant, and those of its routes."""
        own = TenantTopics(self._settings.namespace, tenant)
        routes = self._routes_of(tenant)
        of_routes = {topic for route in routes for topic in (*route.source.topics, route.sink.topic)}
        return frozenset(map(own.name, STREAMS)), frozenset(of_routes)


def shown(record: Record) -> TopicRecord:
    """A record as people see it."""
    value = record.value or b""
    is_long = len(value) > VALUE_BYTES_MAX
    view = view_of(None if is_long else value)
    problem, beginning = None, None
    if is_long:
        problem = f"longer than {VALUE_BYTES_MAX:,} bytes"
    elif view.format == "binary":
        problem = "neither JSON nor MessagePack"
    if problem is not None:
        beginning = value[:BEGINNING_BYTES]
    return TopicRecord(
        offset=record.offset,
        timestamp=record.timestamp,
        key=_text(record.key),
        headers=[(name[:TEXT_BYTES_MAX], _text(each)) for name, each in record.headers[:HEADERS_MAX]],
        value_bytes=len(value),
        value_format="long" if is_long else view.format,
        value=view.value,
        value_base64=beginning,
        problem=problem,
    )


def _text(data: bytes | None) -> str | None:
    if data is None or len(data) <= TEXT_BYTES_MAX:
        return text_of(data)
    return f"{text_of(data[:TEXT_BYTES_MAX])}… ({len(data):,} bytes)"

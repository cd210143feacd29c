"""`/topics`, and the records in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from aiokafka import TopicPartition

from inferd.daemon import topic_records
from inferd.daemon.http.core import NotFoundError
from inferd.daemon.http.routes.topics import OFFSET_MAX, PAGE_DEFAULT
from inferd.daemon.http.worker.cluster_topics import (
    BEGINNING_BYTES,
    HEADERS_MAX,
    TEXT_BYTES_MAX,
    VALUE_BYTES_MAX,
    ClusterTopics,
    shown,
)
from inferd.daemon.settings import Settings
from inferd.daemon.topic_reader import Range
from inferd.daemon.topic_records import read_page
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.routes import Format, Route, Sink, Source
from tests.unit.daemon.http.fake_http_services import FakeWorker, topic_record

Client = TestClient[web.Request, web.Application]
RESULTS = "/topics/inferd.default.results/records"


async def test_topics_are_listed(client: Client) -> None:
    found = (await (await client.get("/topics")).json())["topics"]
    assert [(topic["topic"], topic["of_routes"]) for topic in found] == [
        ("inferd.default.results", False),
        ("orders", True),
    ]


async def test_a_page_of_records(client: Client, worker: FakeWorker) -> None:
    worker.topics.held = [topic_record(offset, b'{"n": %d}' % offset) for offset in range(10, 20)]
    found = await (await client.get(f"{RESULTS}?from=12&limit=3&partition=0")).json()
    assert [(record["offset"], record["value"]) for record in found["records"]] == [(n, {"n": n}) for n in (12, 13, 14)]
    assert (found["first"], found["end"], found["next"], found["partitions"]) == (10, 20, 15, 2)
    await client.get(RESULTS)
    assert worker.topics.asked == [
        ("default", "inferd.default.results", 0, 12, 3),
        ("default", "inferd.default.results", 0, None, PAGE_DEFAULT),
    ]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{RESULTS}?limit=0", 422, "invalid_value"),
        (f"{RESULTS}?limit=201", 422, "invalid_value"),
        (f"{RESULTS}?from=-1", 422, "invalid_value"),
        (f"{RESULTS}?from={OFFSET_MAX + 1}", 422, "invalid_value"),
        (f"{RESULTS}?partition=x", 422, "invalid_value"),
        ("/topics/inferd.other.results/records", 404, "not_found"),
    ],
)
async def test_errors(client: Client, path: str, status: int, code: str) -> None:
    answer = await client.get(path)
    assert (answer.status, (await answer.json())["error"]["code"]) == (status, code)


# ------------------------------------------------------------------------------------------------- what people see


def test_values_are_decoded_and_garbage_says_why_not() -> None:
    packed = msgspec.msgpack.encode({"id": "a", "row": [1.5, None]})
    assert (shown(topic_record(1, packed)).value_format, shown(topic_record(1, packed)).value) == (
        "msgpack",
        {"id": "a", "row": [1.5, None]},
    )
    garbage = shown(topic_record(1, b"\xc1\xff garbage"))
    assert (garbage.value_format, garbage.value, garbage.value_base64) == ("binary", None, b"\xc1\xff garbage")
    assert garbage.problem == "neither JSON nor MessagePack"
    tombstone = shown(topic_record(1, None, key=None))
    assert (tombstone.value_format, tombstone.key, tombstone.problem) == ("empty", None, None)


def test_what_is_long_is_cut() -> None:
    headers = [("h", b"\xff" * 5_000), *[(f"h{number}", b"v") for number in range(100)]]
    record = shown(topic_record(1, b"[" + b"1," * VALUE_BYTES_MAX + b"1]", key=b"k" * 9_000, headers=headers))
    assert (record.value_format, record.value) == ("long", None)
    assert record.value_bytes == 2 * VALUE_BYTES_MAX + 3
    assert len(record.value_base64 or b"") == BEGINNING_BYTES
    assert record.key == "k" * TEXT_BYTES_MAX + "… (9,000 bytes)"
    assert len(record.headers) == HEADERS_MAX
    assert str(record.headers[0][1]).endswith("… (5,000 bytes)")


# ----------------------------------------------------------------------------------------------- what may be looked at


async def test_only_topics_of_the_tenant_and_of_its_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def read(_connection: KafkaConnection, topic: str, *_rest: Any) -> Any:
        asked.append(topic)
        return topic_records.RecordsPage(1, (0, 0), [], 0)

    monkeypatch.setattr(topic_records, "read_page", read)
    route = Route("r", Source(["orders", "returns"], Format("json")), "churn", Sink("scored"))
    topics = ClusterTopics(Settings.from_environment({}), lambda tenant: (route,) if tenant == "default" else ())
    allowed = ["inferd.default.results", *route.source.topics, route.sink.topic]
    for topic in allowed:
        await topics.records("default", topic, 0, None, 10)
    assert asked == allowed
    for tenant, topic in [
        ("default", "inferd.other.results"),
        ("other", "inferd.default.results"),
        ("other", route.sink.topic),
        ("default", "__consumer_offsets"),
        ("default", "inferd.default.nothing"),
    ]:
        with pytest.raises(NotFoundError, match="has no topic"):
            await topics.records(tenant, topic, 0, None, 10)
    assert asked == allowed


# --------------------------------------------------------------------------------------------------------------- pages


class FakeReader:
    """A topic with one partition."""

    def __init__(self, offsets: list[int], held: Range, size: int) -> None:
        self.partitions = [TopicPartition("t", 0)]
        self._offsets, self._held, self._size = offsets, held, size

    async def __aenter__(self) -> FakeReader:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def ranges(self) -> Any:
        return dict.fromkeys(self.partitions, self._held)

    async def read(self, ranges: Any) -> AsyncIterator[Any]:
        ((first, end),) = ranges.values()
        for offset in self._offsets:
            if first <= offset < end:
                yield topic_record(offset, b"v" * self._size)


@pytest.mark.parametrize(
    ("start", "limit", "size", "expected", "next_offset"),
    [
        (None, 3, 1, [7, 8, 9], 10),
        (None, 100, 1, [2, 3, 7, 8, 9], 10),
        (0, 2, 1, [2, 3], 4),
        (4, 2, 1, [7, 8], 9),
        (4, 3, 1, [7, 8, 9], 10),
        (500, 3, 1, [], 10),
        (2, 5, topic_records.PAGE_BYTES_MAX // 2, [2, 3], 4),
    ],
)
async def test_pages(
    monkeypatch: pytest.MonkeyPatch, start: int | None, limit: int, size: int, expected: list[int], next_offset: int
) -> None:
    reader = FakeReader([2, 3, 7, 8, 9], (2, 10), size)
    monkeypatch.setattr(topic_records, "open_topic", lambda *_of: reader)
    page = await read_page(KafkaConnection(), "t", 0, start, limit)
    assert ([record.offset for record in page.records], page.next_offset) == (expected, next_offset)
    with pytest.raises(topic_records.NoPartitionError, match="partitions are 0 to 0"):
        await read_page(KafkaConnection(), "t", 1, start, limit)

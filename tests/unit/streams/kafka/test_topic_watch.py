"""Detection of topics that are deleted, recreated or extended, and its log events."""

from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, NoError, TopicAuthorizationFailedError
from structlog.testing import capture_logs

from inferd.schemas.connection import KafkaConnection
from inferd.streams.kafka import rights_check, topic_watch
from inferd.streams.kafka.rights import Right
from inferd.streams.kafka.rights_check import missing_rights
from inferd.streams.kafka.topic_metadata import (
    UNKNOWN_OPERATIONS,
    TopicMetadata,
    TopicReport,
    TopicsRequest,
    read_topics,
    reports_in,
    topics_in,
)
from inferd.streams.kafka.topic_watch import (
    TopicWatch,
    missing_reason,
    surplus_reasons,
    unassigned_reasons,
    unserved_reasons,
)

A, B = "a" * 32, "b" * 32


def tps(topic: str, *numbers: int) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in numbers]


class Broker:
    """Answers with `topics`, or raises `error`; counts connections."""

    def __init__(self) -> None:
        self.topics: dict[str, TopicMetadata | None] = {}
        self.error: BaseException | None = None
        self.opened = self.closed = 0

    async def bootstrap(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1

    async def read_topics(self, _: Any, names: Any) -> dict[str, TopicMetadata | None]:
        if self.error is not None:
            raise self.error
        return {name: now for name, now in self.topics.items() if name in names}


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(topic_watch, "AIOKafkaClient", lambda **_: broker)
    monkeypatch.setattr(topic_watch, "read_topics", broker.read_topics)
    return broker


async def events_after(watch: TopicWatch, broker: Broker, now: TopicMetadata | None, topic: str = "t") -> list[str]:
    """The log events of a check that finds a topic in the state `now`."""
    broker.topics[topic] = now
    with capture_logs() as logs:
        await watch.refresh()
    return [entry["event"] for entry in logs]


async def test_a_topic_that_is_deleted_and_created_again_is_another_log(broker: Broker) -> None:
    again: list[str] = []
    watch = TopicWatch(KafkaConnection(), "me", ["t"], again.append)
    assert await events_after(watch, broker, TopicMetadata(2, A)) == []
    assert (watch.id_of("t"), watch.missing, watch.partitions) == (A, [], {"t": 2})
    assert [watch.is_new(tp) for tp in tps("t", 0, 1, 2)] == [False, False, True]
    assert await events_after(watch, broker, None) == ["topic_deleted"]
    assert await events_after(watch, broker, None) == [], "it is logged once"
    assert (watch.id_of("t"), watch.missing, watch.partitions, again) == (A, ["t"], {"t": 0}, [])
    assert await events_after(watch, broker, TopicMetadata(2, B)) == ["topic_created_again"]
    assert (watch.id_of("t"), watch.missing, again) == (B, [], ["t"])
    assert all(map(watch.is_new, tps("t", 0, 1)))


async def test_a_topic_that_was_created_again_between_two_looks_is_noticed_by_its_id(broker: Broker) -> None:
    again: list[str] = []
    watch = TopicWatch(KafkaConnection(), "me", ["t"], again.append)
    await events_after(watch, broker, TopicMetadata(2, A))
    assert await events_after(watch, broker, TopicMetadata(2, B)) == ["topic_created_again"]
    assert (again, watch.is_new(tps("t", 0)[0])) == (["t"], True)


async def test_partitions_that_are_added_are_new(broker: Broker) -> None:
    watch = TopicWatch(KafkaConnection(), "me", ["t"])
    await events_after(watch, broker, TopicMetadata(2, A))
    assert [watch.lacks(tp) for tp in tps("t", 1, 2)] == [False, True]
    assert await events_after(watch, broker, TopicMetadata(3, A)) == ["topic_partitions_changed"]
    assert [(watch.lacks(tp), watch.is_new(tp)) for tp in tps("t", 1, 2)] == [(False, False), (False, True)]


async def test_a_broker_without_topic_ids_is_queried_by_name(broker: Broker) -> None:
    watch = TopicWatch(KafkaConnection(), "me", ["t"])
    await events_after(watch, broker, TopicMetadata(2))
    assert await events_after(watch, broker, TopicMetadata(2)) == []
    assert watch.id_of("t") == ""


async def test_unknown_topics_do_not_count_as_missing(broker: Broker) -> None:
    watch = TopicWatch(KafkaConnection(), "me", ["t", "u"])
    await events_after(watch, broker, TopicMetadata(1, A))
    assert not any(map(watch.lacks, tps("u", 0, 5) + tps("somebody's", 9)))
    assert not watch.is_new(tps("u", 0)[0])


async def test_a_failed_check_changes_nothing_and_reconnects(broker: Broker) -> None:
    watch = TopicWatch(KafkaConnection(), "me", ["t"])
    await events_after(watch, broker, TopicMetadata(1, A))
    broker.error = KafkaConnectionError("gone")
    with pytest.raises(KafkaConnectionError):
        await watch.refresh()
    assert (watch.id_of("t"), watch.missing, broker.closed) == (A, [], 1)
    broker.error = None
    await watch.refresh()
    await watch.close()
    assert (broker.opened, broker.closed) == (2, 2)


def test_reasons_name_topic_and_partitions() -> None:
    assert missing_reason("t").startswith("topic t does not exist: ")
    assert unassigned_reasons(tps("t", 5)) == ["partition 5 of t is assigned to no worker"]
    assert unassigned_reasons([]) == surplus_reasons([], 4) == []
    (surplus,) = surplus_reasons(tps("jobs", 4, 5), 4)
    assert surplus.startswith("partitions 4 and 5 of jobs are not served: 4 are used, and more once all topics of the")
    assert "inferd topics grow --partitions 8" in surplus
    lacking = {tp: tps("results", tp.partition) for tp in tps("requests", 4, 5, 6)}
    assert unserved_reasons(tps("requests", 6, 4, 5), lambda tp: lacking[tp]) == [
        "partitions 4, 5 and 6 of requests are not served: they need partitions of results that do not exist"
    ]


# On the wire


IN_SYNC: tuple[Any, ...] = [1], [1], []
PARTITION: dict[int, tuple[Any, ...]] = {
    5: (0, 0, 1, *IN_SYNC), 8: (0, 0, 1, 0, *IN_SYNC), 12: (0, 0, 1, 0, *IN_SYNC, {}),
}  # fmt: skip
END: dict[int, tuple[Any, ...]] = {5: (), 8: (0,), 12: ({},)}


def reports(version: int, *topics: tuple[Any, ...]) -> list[TopicReport]:
    """Topics as a broker of this version of Metadata sends them."""
    response = TopicsRequest([]).prepare({3: (0, version)}).RESPONSE_TYPE
    return reports_in(response.decode(BytesIO(response(0, [], "c", 1, list(topics), *END[version]).encode())))


def test_topics_of_responses_with_and_without_ids_and_operations() -> None:
    a, two, none = bytes.fromhex(A), [PARTITION[12]] * 2, bytes(16)
    gone: tuple[Any, ...] = (3, "gone", none, False, [], 0, {})
    denied: tuple[Any, ...] = (29, "denied", a, False, [], 0, {})
    newest = reports(12, (0, "t", a, False, two, 1 << 3, {}), gone, denied)
    assert newest[0] == TopicReport("t", NoError, 2, A, 1 << 3)
    assert newest[2].error is TopicAuthorizationFailedError
    assert topics_in(newest) == {"t": TopicMetadata(2, A), "gone": None}
    assert reports(8, (0, "t", False, [PARTITION[8]], 1 << 4)) == [TopicReport("t", NoError, 1, "", 1 << 4)]
    oldest = reports(5, (0, "t", False, [PARTITION[5]] * 2))
    assert oldest == [TopicReport("t", NoError, 2, "", UNKNOWN_OPERATIONS)]
    assert topics_in(oldest) == {"t": TopicMetadata(2)}


def test_a_request_is_by_name_and_creates_no_topic() -> None:
    newest = TopicsRequest(["t"]).prepare({3: (0, 13)})
    assert newest.encode().hex() == "02" + bytes(16).hex() + "02" + b"t".hex() + "00" + "0000" + "00"
    names = "00000001" + "0001" + b"t".hex()
    assert TopicsRequest(["t"]).prepare({3: (0, 11)}).encode().hex() == names + "00" + "00" + "00"
    assert TopicsRequest(["t"]).prepare({3: (0, 7)}).encode().hex() == names + "00"
    with_operations = TopicsRequest(["t"], operations=True)
    assert with_operations.prepare({3: (0, 13)}).encode().hex().endswith("74" + "00" + "0001" + "00")
    assert with_operations.prepare({3: (0, 11)}).encode().hex() == names + "00" + "00" + "01"


@pytest.mark.parametrize("version", [5, 8, 12])
async def test_missing_rights_on_topics(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    def topic(code: int, name: str, operations: int) -> tuple[Any, ...]:
        ids: tuple[Any, ...] = (bytes(16),) if version == 12 else ()
        rest: tuple[Any, ...] = {5: (), 8: (operations,), 12: (operations, {})}[version]
        return (code, name, *ids, False, [PARTITION[version]], *rest)

    async def read_reports(*_: Any, **__: Any) -> list[TopicReport]:
        return reports(version, topic(0, "r", 1 << 3 | 1 << 10), topic(0, "all", -1), topic(0, "unknown", -(2**31)))

    monkeypatch.setattr(rights_check, "read_reports", read_reports)
    rights = [Right(operation, "topic", name) for name in ("r", "all", "unknown") for operation in ("READ", "WRITE")]
    missing = await missing_rights(SimpleNamespace(get_random_node=lambda: 1), rights)  # type: ignore[arg-type]
    assert missing == ([] if version == 5 else [Right("WRITE", "topic", "r")])


def test_the_golden_response_of_a_broker() -> None:
    topic = "00000000" + "02" + "00000001" + "02" + "68" + "00002384" + "00" + "00" + "00" + "00000001"
    topic += "02" + "0000" + "0274" + A + "00"
    topic += "02" + "0000" + "00000000" + "00000001" + "00000000" + "0200000001" + "0200000001" + "01" + "00"
    topic += "80000000" + "00" + "00"
    found = newest_response().decode(BytesIO(bytes.fromhex(topic)))
    assert topics_in(reports_in(found)) == {"t": TopicMetadata(1, A)}


def newest_response() -> Any:
    return TopicsRequest(["t"]).prepare({3: (0, 13)}).RESPONSE_TYPE


async def test_without_a_broker_the_check_fails() -> None:
    with pytest.raises(NodeNotReadyError):
        await read_topics(SimpleNamespace(get_random_node=lambda: None), ["t"])  # type: ignore[arg-type]

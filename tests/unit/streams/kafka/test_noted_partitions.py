"""A number of partitions in the settings that contradicts the one by which states were stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, GroupCoordinatorNotAvailableError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from inferd.schemas.connection import KafkaConnection
from inferd.streams.kafka import noted_partitions as module
from inferd.streams.kafka.noted_partitions import check_noted_partitions
from inferd.streams.kafka.start_offsets import is_from_deleted_topic, offset_metadata, partitions_noted_in
from inferd.streams.kafka.topic_checks import TopicsError
from inferd.streams.kafka.topic_metadata import TopicMetadata
from inferd.streams.settings import GroupSettings, StreamSettings, TopicSettings

JOBS, LABELS = "ns.a.jobs", "ns.b.labels"


def settings(partitions: int) -> StreamSettings:
    return StreamSettings(
        KafkaConnection(), "w1", Path("unused"), namespace="ns", tenants=("a", "b"),
        topics=TopicSettings(partitions=partitions), group=GroupSettings("g"),
    )  # fmt: skip


@dataclass
class Broker:
    """Topics with 8 partitions, and the metadata of the offsets of a group; responses that fail before it answers."""

    notes: dict[TopicPartition, str] = field(default_factory=dict)
    failures: list[KafkaError | None] = field(default_factory=list)
    """None: a response without partitions."""
    topic_id: str = "now"
    _client: None = None

    async def __aenter__(self) -> Broker:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def read_topics(self, _client: Any, names: Sequence[str]) -> dict[str, TopicMetadata | None]:
        return {name: None if "to-label" in name else TopicMetadata(8, self.topic_id) for name in names}

    async def list_consumer_group_offsets(
        self, group_id: str, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        assert group_id == "g"
        if self.failures:
            failure = self.failures.pop(0)
            if failure is not None:
                raise failure
            return {}
        return {tp: OffsetAndMetadata(5 if tp in self.notes else -1, self.notes.get(tp, "")) for tp in partitions}


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker()
    monkeypatch.setattr(module, "Admin", lambda _connection: made)
    monkeypatch.setattr(module, "read_topics", made.read_topics)
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.0)
    return made


@pytest.mark.parametrize(
    ("notes", "right"),
    [
        ({}, None),
        ({(JOBS, 1): "", (LABELS, 0): "topic-id=now"}, None),
        ({(JOBS, 1): "partitions=8 topic-id=now"}, 8),
        ({(JOBS, 1): "partitions=4 topic-id=now", (JOBS, 5): "topic-id=now"}, 4),
        ({(JOBS, 1): "partitions=8 topic-id=now", (JOBS, 2): "partitions=4"}, 4),
        ({(JOBS, 1): "partitions=2 topic-id=before", (JOBS, 2): "partitions=8 topic-id=now"}, 8),
        ({(LABELS, 7): "partitions=2 topic-id=now"}, 2),
        ({("ns.a.requests", 0): "partitions=2 topic-id=now"}, None),
    ],
)
async def test_only_the_noted_number_is_accepted(
    broker: Broker, notes: dict[tuple[str, int], str], right: int | None
) -> None:
    broker.notes = {TopicPartition(*tp): note for tp, note in notes.items()}
    for partitions in (1, 2, 4, 8, 16):
        if right in {None, partitions}:
            await check_noted_partitions(settings(partitions))
            continue
        with pytest.raises(TopicsError, match=f"is {partitions}, and .* set INFERD_TOPIC_PARTITIONS={right}$") as found:
            await check_noted_partitions(settings(partitions))
        assert found.value.lasting
        assert len(found.value.problems) == 1


async def test_a_response_without_offsets_is_not_taken_for_none(broker: Broker) -> None:
    broker.notes = {TopicPartition(JOBS, 0): "partitions=4"}
    broker.failures = [None, GroupCoordinatorNotAvailableError(), None]
    with pytest.raises(TopicsError, match="INFERD_TOPIC_PARTITIONS=4"):
        await check_noted_partitions(settings(8))
    assert not broker.failures


async def test_failures_are_raised(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.failures = [GroupAuthorizationFailedError()]
    with pytest.raises(GroupAuthorizationFailedError):
        await check_noted_partitions(settings(4))
    monkeypatch.setattr(module, "VISIBLE_WITHIN_S", -1.0)
    broker.failures = [None]
    with pytest.raises(GroupCoordinatorNotAvailableError, match="offsets of group g cannot be read"):
        await check_noted_partitions(settings(4))


def test_metadata_is_read_as_it_is_written_and_by_versions_that_know_the_topic_id_only() -> None:
    for topic_id, partitions in (("", 0), ("x", 0), ("", 4), ("x", 4)):
        note = offset_metadata(topic_id, partitions)
        assert partitions_noted_in(note) == partitions
        assert is_from_deleted_topic(note, "y") == bool(topic_id)
        assert not is_from_deleted_topic(note, "x")
        assert not is_from_deleted_topic(note, "")
    assert offset_metadata("x") == "topic-id=x"
    assert not offset_metadata("x", 4).startswith("topic-id="), "older versions would take it for a deleted topic"
    assert partitions_noted_in("partitions=many") == 0
    assert not is_from_deleted_topic("somebody's note", "x")

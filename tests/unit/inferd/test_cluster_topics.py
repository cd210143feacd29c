"""Lookup of topics before use: new topics are awaited, missing topics are named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from inferd.cluster import Cluster
from inferd.errors import TopicNotFoundError
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.topics import TenantTopics


class Brokers:
    """Brokers that return a topic from the n-th lookup on."""

    def __init__(self, known_from: float) -> None:
        self.known_from = known_from
        self.asked = 0

    async def fetch_all_metadata(self) -> Any:
        self.asked += 1
        known = {"ns.t.requests": {1, 0}} if self.asked >= self.known_from else {}
        return SimpleNamespace(partitions_for_topic=known.get)


def cluster_of(brokers: Brokers) -> Cluster:
    cluster = Cluster(KafkaConnection(), TenantTopics("ns", "t"), "test", DEFAULT_LIMITS, 5.0)
    cluster._producer = SimpleNamespace(client=brokers)  # type: ignore[assignment]
    return cluster


async def test_a_new_topic_is_awaited_and_looked_up_once() -> None:
    brokers = Brokers(known_from=2)
    cluster = cluster_of(brokers)
    assert [await cluster.partitions("requests") for _ in range(2)] == [(0, 1)] * 2
    assert brokers.asked == 2


async def test_a_missing_topic_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.cluster.TOPIC_KNOWN_WITHIN_S", 0.15)
    brokers = Brokers(known_from=float("inf"))
    with pytest.raises(TopicNotFoundError, match=r"ns\.t\.requests does not exist.*inferd topics create"):
        await cluster_of(brokers).partitions("requests")
    assert brokers.asked > 1

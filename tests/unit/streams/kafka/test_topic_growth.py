"""Which topics get partitions, and in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inferd.schemas.connection import KafkaConnection
from inferd.streams.kafka.topic_checks import TopicsError, TopicSpec, TopicState, checked, topic_specs
from inferd.streams.kafka.topic_growth import growth
from inferd.streams.settings import StreamSettings, TopicSettings

SETTINGS = StreamSettings(
    KafkaConnection(), "w1", Path("unused"), namespace="ns", tenants=("a", "b"), topics=TopicSettings(partitions=4)
)


def states(specs: list[TopicSpec], **counts: int) -> list[TopicState]:
    """As the settings want them; `counts` by stream."""
    found = [
        TopicState(
            spec.name, spec.stream, counts.get(spec.stream.replace("-", "_"), spec.partitions), 1, dict(spec.config)
        )
        for spec in specs
    ]
    return checked(specs, found, "kafka:9092")


def test_what_requests_need_grows_before_them_and_topics_of_jobs_do_not() -> None:
    specs = topic_specs(SETTINGS)
    names = growth(specs, states(specs), 8)
    assert names[-2:] == ["ns.a.requests", "ns.b.requests"]
    assert set(names) == {
        f"ns.{t}.{s}" for t in "ab" for s in ("requests", "results", "dead-letters", "shadow-results")
    } | {f"inferd-{t}.predictions-changelog" for t in "ab"}
    grown = [replace(s, partitions=8) if s.name in names else s for s in states(specs)]
    assert growth(specs, grown, 8) == [], "it is safe to repeat"
    assert not any(state.problem for state in checked(specs, grown, "kafka:9092")), "workers start with these topics"
    one_left = [replace(s, partitions=4) if s.name == "ns.a.requests" else s for s in grown]
    assert growth(specs, one_left, 8) == ["ns.a.requests"], "after a kill in between"


@pytest.mark.parametrize(
    ("counts", "partitions", "problem"),
    [
        ({"results": 9}, 8, "topic ns.a.results has 9 partitions already"),
        ({"requests": 0}, 8, "topic ns.a.requests does not exist"),
        ({"jobs": 0}, 8, "topic ns.a.jobs does not exist"),
        ({}, 3, "has 4 partitions already, and Kafka cannot take partitions away"),
        ({}, 10_001, "no more than 10000"),
    ],
)
def test_why_not(counts: dict[str, int], partitions: int, problem: str) -> None:
    specs = topic_specs(SETTINGS)
    with pytest.raises(TopicsError, match=problem):
        growth(specs, states(specs, **counts), partitions)

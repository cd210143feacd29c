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


def test_all_topics_grow_and_those_that_others_write_are_the_last() -> None:
    specs = topic_specs(SETTINGS)
    names = growth(specs, states(specs), 8)
    assert names[-4:] == ["ns.a.jobs", "ns.b.jobs", "ns.a.requests", "ns.b.requests"]
    assert set(names) == {spec.name for spec in specs if spec.partitions > 1}
    grown = [replace(s, partitions=8) if s.name in names else s for s in states(specs)]
    assert growth(specs, grown, 8) == [], "it is safe to repeat"
    assert not any(state.problem for state in checked(specs, grown, "kafka:9092")), "workers start with these topics"
    for killed_after in range(len(names)):
        there = dict.fromkeys(names[:killed_after], 8)
        between = [replace(s, partitions=there.get(s.name, s.partitions)) for s in states(specs)]
        assert growth(specs, between, 8) == names[killed_after:], "after a kill in between"


@pytest.mark.parametrize(
    ("counts", "partitions", "problem"),
    [
        ({"results": 9}, 8, "topic ns.a.results has 9 partitions already"),
        ({"requests": 0}, 8, "topic ns.a.requests does not exist"),
        ({"jobs": 0}, 8, "topic ns.a.jobs does not exist"),
        ({}, 3, "has 4 partitions already, and Kafka cannot take partitions away"),
        ({}, 10_001, "no more than 10000"),
        ({}, 6, "INFERD_TOPIC_PARTITIONS is 4, .* the number can be 8, 16, 32 and so on"),
    ],
)
def test_why_not(counts: dict[str, int], partitions: int, problem: str) -> None:
    specs = topic_specs(SETTINGS)
    with pytest.raises(TopicsError, match=problem):
        growth(specs, states(specs, **counts), partitions)

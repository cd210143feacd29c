"""Assignments of topics whose numbers of partitions change: no assertion fails, and partitions that share state stay
together."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.assignor import PartitionAssignor
from faust.assignor.client_assignment import ClientAssignment, ClientMetadata
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.connection import KafkaConnection
from inferd.streams.faust_app import create_app
from inferd.streams.group.assignor import LaneAssignor
from inferd.streams.settings import StreamSettings, TopicSettings

JOBS = [f"inferd.default.{stream}" for stream in ("jobs", "job-results", "job-chunks")]
TOPICS = ["inferd.default.requests", *JOBS]
MEMBERS = ["m0", "m1", "m2"]
REPLICAS = 1
"""As in the app: Faust's default."""
COUNTS = st.fixed_dictionaries({topic: st.integers(0, 7) for topic in TOPICS})


def member(name: str, before: dict[str, list[int]]) -> ConsumerProtocolMemberMetadata:
    metadata = ClientMetadata(
        assignment=ClientAssignment(actives=before, standbys={}), url=f"http://{name}", changelog_distribution={}
    )
    return ConsumerProtocolMemberMetadata(4, TOPICS, metadata.dumps())


def assigned(
    settings: StreamSettings, counts: dict[str, int], before: dict[str, Any], members: Sequence[str] = MEMBERS
) -> dict[str, Any]:
    """By member and topic, the partitions that a leader without its own app assigns."""
    app: Any = SimpleNamespace(
        tables=SimpleNamespace(data={}, changelog_topics=set()), tracer=None,
        sensors=SimpleNamespace(on_assignment_start=lambda *_: None, on_assignment_completed=lambda *_: None),
        partitions_max=dict.fromkeys(JOBS, settings.topics.partitions).get,
    )  # fmt: skip
    app.sensors.on_assignment_error = lambda *_: None
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: {*range(counts[topic])} or None)
    found = {name: member(name, before.get(name, {})) for name in members}
    given = LaneAssignor(app, REPLICAS).assign(cluster, found)
    return {name: dict(one.assignment) for name, one in given.items()}


@given(COUNTS, COUNTS)
def test_topics_may_have_any_number_of_partitions_before_and_after(
    before: dict[str, int], after: dict[str, int]
) -> None:
    settings = StreamSettings(KafkaConnection(), "w", Path(), topics=TopicSettings(partitions=4))
    first = assigned(settings, before, {})
    second = assigned(settings, after, first)
    for topic in TOPICS:
        most = min(after[topic], 4) if topic in JOBS else after[topic]
        owned = sorted(number for member in second.values() for number in member.get(topic, ()))
        assert owned == [*range(most)], f"each partition of {topic} once"


@given(COUNTS)
def test_topics_of_jobs_stay_together_however_many_partitions_are_added(after: dict[str, int]) -> None:
    settings = StreamSettings(KafkaConnection(), "w", Path(), topics=TopicSettings(partitions=4))
    first = assigned(settings, dict.fromkeys(TOPICS, 4), {})
    grown = {topic: 4 + more for topic, more in after.items()}
    second = assigned(settings, grown, first)
    assert [member["inferd.default.jobs"] for member in second.values()] == [
        member["inferd.default.jobs"] for member in first.values()
    ]
    for member in second.values():
        assert len({tuple(sorted(member[topic])) for topic in JOBS}) == 1


@given(COUNTS, st.lists(st.sets(st.sampled_from([f"m{n}" for n in range(9)]), min_size=1), min_size=1, max_size=6))
def test_assignments_are_balanced_and_sticky(counts: dict[str, int], groups: list[set[str]]) -> None:
    settings = StreamSettings(KafkaConnection(), "w", Path(), topics=TopicSettings(partitions=9))
    before: dict[str, Any] = {}
    for members in groups:
        now = assigned(settings, counts, before, sorted(members))
        for topic, count in counts.items():
            sizes = sorted(len(now[name].get(topic, ())) for name in members)
            assert sum(sizes) == count
            assert sizes[-1] - sizes[0] <= 1, f"{topic}: {sizes}"
            kept = sum(len({*now[name].get(topic, ())} & {*before.get(name, {}).get(topic, ())}) for name in members)
            had = sorted((len(before.get(name, {}).get(topic, ())) for name in members), reverse=True)
            share, more = divmod(count, len(members))
            assert kept >= sum(min(size, share + (place < more)) for place, size in enumerate(had))
        before = now


async def test_the_app_assigns_so(tmp_path: Path) -> None:
    app = create_app(StreamSettings(KafkaConnection(), "w", tmp_path, "ns", topics=TopicSettings(partitions=3)))
    assert type(app.assignor).__name__ == "LaneAssignor"
    assert app.assignor.replicas == REPLICAS
    assert app.partitions_max("ns.default.jobs") is None


def test_faust_calls_the_overridden_methods() -> None:
    source = inspect.getsource(PartitionAssignor)
    assert "self._get_client_metadata(metadata)" in source
    assert source.count("cluster.partitions_for_topic(topic)") == 1


def test_a_former_assignment_of_our_instance_id_is_replaced() -> None:
    rejoined: list[bool] = []
    app: Any = SimpleNamespace(
        tables=SimpleNamespace(data={}, changelog_topics=set()), tracer=None,
        conf=SimpleNamespace(canonical_url="http://ours"),
        consumer=SimpleNamespace(rejoin=lambda: rejoined.append(True)),
    )  # fmt: skip
    assignor = LaneAssignor(app)
    for url, times in (("http://ours", 0), ("http://former", 1)):
        given = ClientAssignment(actives={TOPICS[0]: [1]}, standbys={})
        data = ClientMetadata(assignment=given, url=url, changelog_distribution={}).dumps()
        assignor.on_assignment(ConsumerProtocolMemberAssignment(4, [(TOPICS[0], [1])], assignor._compress(data)))
        assert (len(rejoined), assignor.assigned_actives()) == (times, {TP(TOPICS[0], 1)})
    with pytest.raises(AssertionError):
        assignor.on_assignment(
            ConsumerProtocolMemberAssignment(
                4,
                [(TOPICS[0], [2])],
                assignor._compress(
                    ClientMetadata(assignment=given, url="http://ours", changelog_distribution={}).dumps()
                ),
            )
        )

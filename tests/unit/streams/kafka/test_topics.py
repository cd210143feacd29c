"""Topics on a fake broker: which are created, which are rejected, and the messages about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.settings.settings import settings_table
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.limits import Limits
from inferd.schemas.topics import LIFECYCLE_STREAMS, STREAMS, Stream
from inferd.streams.kafka import topics as topics_module
from inferd.streams.kafka.changelogs import TABLE_NAMES
from inferd.streams.kafka.topic_checks import AUDIT_RETENTION_MS, TopicsError, TopicState, checked, topic_specs
from inferd.streams.kafka.topics import describe_topics, ensure_topics
from inferd.streams.settings import CacheSettings, StreamSettings, TopicSettings

RETENTION = TopicSettings().retention_ms
TOPICS = len(STREAMS) + len(TABLE_NAMES)
"""Topics of a tenant."""
SERVERS = "127.0.0.1:9092"
ALTER = f"--bootstrap-server {SERVERS} --alter"
DEFAULTS = {"cleanup.policy": "delete", "retention.ms": str(RETENTION), "max.message.bytes": "1048588"}
NO_TOPIC, EXISTS, REPLICATION, CONFIG, TIMED_OUT, DENIED = 3, 36, 38, 40, 7, 29


def settings_of(*tenants: str, reply_to: Sequence[str] = (), optional: bool = True, **topics: Any) -> StreamSettings:
    return StreamSettings(
        KafkaConnection(),
        "worker-1",
        Path("unused"),
        namespace="ns",
        tenants=tenants or ("default",),
        reply_to_allowed=tuple(reply_to),
        topics=TopicSettings(**topics),
        capture_share=0.1 if optional else 0.0,
        labels_window_s=60.0 if optional else 0.0,
    )


@dataclass
class Topic:
    partitions: int
    replication: int = 1
    config: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeCluster:
    """The topics of a cluster, and the calls of its admin client."""

    topics: dict[str, Topic] = field(default_factory=dict)
    knows: set[str] = field(default_factory=lambda: {*DEFAULTS, "segment.ms"})
    rejects: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    """The response to creating a topic."""
    lag: int = 0
    """How often it is looked before a new topic can be seen."""
    hidden: dict[str, Topic] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    before_create: Callable[[], None] = lambda: None
    looked: int = 0
    created: list[str] = field(default_factory=list)
    closed: int = 0
    start_error: Exception | None = None
    bytes_max_default: int | None = 1_048_588
    """The broker's settings; None if they may not be read."""

    async def start(self) -> None:
        if self.start_error:
            raise self.start_error

    async def close(self) -> None:
        self.closed += 1

    async def describe_topics(self, names: None = None) -> list[Any]:
        self.looked += 1
        if self.hidden and self.lag == 0:
            self.topics |= self.hidden
        self.lag = max(0, self.lag - 1)
        return [
            {"topic": name, "partitions": [{"replicas": [0] * t.replication}] * t.partitions}
            for name, t in self.topics.items()
        ]

    async def describe_cluster(self) -> Any:
        return {"brokers": [{"node_id": 7}]}

    async def describe_configs(self, resources: Sequence[Any]) -> list[Any]:
        answers = []
        for resource in resources:
            if resource.name == "7":
                code = 0 if self.bytes_max_default else DENIED
                found: list[Any] = [("message.max.bytes", str(self.bytes_max_default))] if not code else []
                answers.append((code, None, 4, resource.name, found))
                continue
            topic = self.topics.get(resource.name)
            code = self.unreadable.get(resource.name, 0 if topic else NO_TOPIC)
            config = {**DEFAULTS, **(topic.config if topic else {})}
            names = [] if code else list(resource.configs)
            entries: list[Any] = [(name, config[name], False, 5, False, []) for name in names]
            answers.append((code, None, 2, resource.name, entries))
        return [SimpleNamespace(resources=answers)]

    async def create_topics(self, new: Sequence[Any]) -> Any:
        self.before_create()
        errors = [(topic.name, *self._create(topic)) for topic in new]
        return SimpleNamespace(topic_errors=errors)

    def _create(self, new: Any) -> tuple[int, str | None]:
        if new.name in self.topics:
            return EXISTS, f"Topic '{new.name}' already exists."
        if unknown := set(new.topic_configs) - self.knows:
            return CONFIG, f"Unknown topic config name: {unknown.pop()}"
        if new.name in self.rejects:
            return self.rejects[new.name]
        self.created.append(new.name)
        place = self.hidden if self.lag else self.topics
        place[new.name] = Topic(new.num_partitions, new.replication_factor, dict(new.topic_configs))
        return 0, None


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(topics_module, "AIOKafkaAdminClient", lambda **options: fake)
    monkeypatch.setattr(topics_module, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr(topics_module, "VISIBLE_WITHIN_S", 0.2)
    return fake


async def problems_of(settings: StreamSettings) -> list[str]:
    with pytest.raises(TopicsError) as caught:
        await ensure_topics(settings)
    assert caught.value.message == str(caught.value) == "; ".join(caught.value.problems)
    return list(caught.value.problems)


# Specifications


def test_every_stream_of_every_tenant_has_a_topic() -> None:
    names = [spec.name for spec in topic_specs(settings_of("a", "b"))]
    assert names == [
        name
        for tenant in ("a", "b")
        for name in (
            *(f"ns.{tenant}.{stream}" for stream in STREAMS),
            f"inferd-{tenant}.predictions-changelog",
            f"inferd-{tenant}.jobs-changelog",
            f"inferd-{tenant}.model-windows-changelog",
            f"inferd-{tenant}.rollouts-changelog",
            f"inferd-{tenant}.labels-changelog",
        )
    ]


def test_topics_of_captured_requests_and_labels_exist_only_if_there_are_some() -> None:
    without = {spec.name for spec in topic_specs(settings_of(optional=False))}
    assert {spec.name for spec in topic_specs(settings_of())} - without == {
        "ns.default.capture", "ns.default.labels", "ns.default.to-label", "inferd-default.labels-changelog",
    }  # fmt: skip


def test_settings_of_created_topics() -> None:
    settings = replace(
        settings_of(partitions=6, replication=3, retention_ms=90_000), limits=Limits(message_bytes_max=500)
    )
    specs = {spec.stream: spec for spec in topic_specs(settings) if spec.stream != "changelog"}
    for stream, spec in specs.items():
        single = stream in ("models", "model-artifacts", "routes", "rollout-status", "audit", *LIFECYCLE_STREAMS)
        assert spec.partitions == (1 if single else 6)
        assert spec.replication == 3
        compacted = stream in ("models", "model-artifacts", "routes", "job-status", "rollout-status")
        assert spec.config["cleanup.policy"] == ("compact" if compacted else "delete")
        assert spec.config.get("retention.ms") == (
            None if compacted else str(AUDIT_RETENTION_MS) if stream == "audit" else "90000"
        )
    assert specs["dead-letters"].config["max.message.bytes"] == str(2 * 500 + 65_536)


def test_a_changelog_keeps_entries_as_long_as_they_are_valid_and_jobs_forever() -> None:
    settings = replace(settings_of(partitions=6), cache=CacheSettings(ttl_max_s=120))
    predictions, jobs, windows, rollouts, labels = (
        spec for spec in topic_specs(settings) if spec.stream == "changelog"
    )
    assert (predictions.config["cleanup.policy"], predictions.config["retention.ms"]) == ("compact,delete", "120000")
    assert (jobs.config["cleanup.policy"], "retention.ms" in jobs.config) == ("compact", False)
    assert predictions.partitions == jobs.partitions == labels.partitions == 6
    assert labels.config == jobs.config
    for owned in (windows, rollouts):
        assert (owned.config, owned.partitions) == (jobs.config, 1)


@pytest.mark.parametrize(
    ("have", "problem"),
    [
        ({"retention.ms": "119999"}, "less than INFERD_CACHE_TTL_MAX_S requires (120000)"),
        ({"cleanup.policy": "delete"}, "cleanup.policy=[compact,delete]"),
        ({"retention.ms": "999999"}, None),
        ({"retention.ms": "-1"}, None),
        ({"cleanup.policy": "delete,compact"}, None),
    ],
)
def test_a_changelog_with_wrong_settings_is_named(have: dict[str, str], problem: str | None) -> None:
    settings = replace(settings_of(), cache=CacheSettings(ttl_max_s=120))
    spec = next(spec for spec in topic_specs(settings) if "predictions" in spec.name)
    state = TopicState(spec.name, "changelog", spec.partitions, spec.replication, {**spec.config, **have})
    (reported,) = [state.problem for state in checked([spec], [state], SERVERS)]
    assert (reported is None) if problem is None else (reported is not None and problem in reported)


# Creation


async def test_missing_topics_are_created_as_specified_and_then_fit(cluster: FakeCluster) -> None:
    states = await ensure_topics(settings := settings_of("a", "b", partitions=6))
    assert [state.name for state in states] == cluster.created == [spec.name for spec in topic_specs(settings)]
    assert [state.problem for state in states] == [None] * (2 * TOPICS)
    assert {state.partitions for state in states} == {1, 6}
    assert cluster.closed == 1


@pytest.mark.parametrize(
    ("default", "explicit"), [(1_048_588, True), (None, True), (16_000_000, False), (500_000, True)]
)
async def test_topics_accept_records_within_the_limits(
    cluster: FakeCluster, default: int | None, explicit: bool
) -> None:
    """If the broker's setting is sufficient, a topic sets nothing and inherits it."""
    cluster.bytes_max_default = default
    settings = replace(settings_of(), limits=Limits(message_bytes_max=3_000_000, result_bytes_max=4_000_000))
    await ensure_topics(settings) if explicit else await _ensure_with_default(cluster, settings, 16_000_000)
    config = {name.rsplit(".", 1)[1]: topic.config.get("max.message.bytes") for name, topic in cluster.topics.items()}
    for stream, least in (
        ("requests", 3_000_000),
        ("jobs", 3_000_000),
        ("results", 4_000_000),
        ("job-results", 4_000_000),
    ):
        assert (int(config[stream] or 0) >= least) == explicit
    assert int(config["dead-letters"] or 0) >= 6_000_000


async def _ensure_with_default(cluster: FakeCluster, settings: StreamSettings, bytes_max: int) -> None:
    with mock.patch.dict(DEFAULTS, {"max.message.bytes": str(bytes_max)}):
        await ensure_topics(settings)


@pytest.mark.parametrize(
    ("stream", "limits", "setting"),
    [
        ("requests", Limits(message_bytes_max=2_000_000), "INFERD_MESSAGE_BYTES_MAX"),
        ("results", Limits(result_bytes_max=1_048_588), "INFERD_RESULT_BYTES_MAX"),
        ("job-results", Limits(result_bytes_max=1_048_588), "INFERD_RESULT_BYTES_MAX"),
    ],
)
def test_a_topic_that_takes_less_than_the_limits_allow_is_named(stream: Stream, limits: Limits, setting: str) -> None:
    def problem(limits: Limits) -> str | None:
        (spec,) = [spec for spec in topic_specs(replace(settings_of(), limits=limits)) if spec.stream == stream]
        config = {**spec.config, "max.message.bytes": "1048588"}
        (state,) = checked([spec], [TopicState(spec.name, stream, spec.partitions, spec.replication, config)], SERVERS)
        return state.problem

    assert problem(Limits()) is None
    reported = problem(limits)
    assert reported is not None
    assert f"has max.message.bytes=1048588, and by {setting} a record may have" in reported
    assert f"lower that, or kafka-configs {ALTER}" in reported


async def test_nothing_is_created_twice(cluster: FakeCluster) -> None:
    await ensure_topics(settings_of())
    before = list(cluster.created)
    await ensure_topics(settings_of())
    assert cluster.created == before


async def test_only_what_is_missing_is_created(cluster: FakeCluster) -> None:
    await ensure_topics(settings_of("a"))
    cluster.created.clear()
    await ensure_topics(settings_of("a", "b"))
    changelogs = [f"inferd-b.{table}-changelog" for table in TABLE_NAMES]
    assert cluster.created == [*(f"ns.b.{stream}" for stream in STREAMS), *changelogs]


async def test_a_setting_that_the_broker_rejects_is_reported(cluster: FakeCluster) -> None:
    cluster.knows.remove("max.message.bytes")
    assert await problems_of(settings_of()) == [
        "topic ns.default.dead-letters could not be created: Unknown topic config name: max.message.bytes"
    ]


async def test_two_workers_may_create_at_the_same_time(cluster: FakeCluster) -> None:
    def other() -> None:
        for spec in topic_specs(settings_of())[:5]:
            cluster.topics.setdefault(spec.name, Topic(spec.partitions, spec.replication, dict(spec.config)))

    cluster.before_create = other
    states = await ensure_topics(settings_of())
    assert [state.problem for state in states] == [None] * TOPICS


async def test_a_worker_with_other_settings_that_was_quicker_is_noticed(cluster: FakeCluster) -> None:
    def other() -> None:
        for spec in topic_specs(settings_of(partitions=6)):
            cluster.topics.setdefault(spec.name, Topic(spec.partitions, spec.replication, dict(spec.config)))

    cluster.before_create = other
    problems = await problems_of(settings_of())
    assert len(problems) == sum(spec.partitions > 1 for spec in topic_specs(settings_of()))
    assert all("has 6 partitions, INFERD_TOPIC_PARTITIONS is 4: set INFERD_TOPIC_PARTITIONS=6;" in p for p in problems)


async def test_creation_waits_until_new_topics_are_listed(cluster: FakeCluster) -> None:
    cluster.lag = 4
    states = await ensure_topics(settings_of())
    assert [state.problem for state in states] == [None] * TOPICS
    assert cluster.looked >= 4


async def test_new_topics_that_are_never_listed_are_reported(cluster: FakeCluster) -> None:
    cluster.lag = 1_000_000
    problems = await problems_of(settings_of())
    assert len(problems) == TOPICS
    assert "topic ns.default.requests does not exist" in problems[0]


async def test_every_topic_that_cannot_be_created_is_named(cluster: FakeCluster) -> None:
    cluster.rejects = {
        "ns.default.requests": (REPLICATION, "only 1 broker(s) are registered"),
        "ns.default.models": (DENIED, None),
    }
    assert await problems_of(settings_of()) == [
        "topic ns.default.requests could not be created: only 1 broker(s) are registered",
        "topic ns.default.models could not be created: this user lacks CREATE on topic ns.default.models:"
        " grant it, or have somebody else create the topics",
    ]


async def test_a_late_response_is_not_a_failure(cluster: FakeCluster) -> None:
    cluster.rejects = {"ns.default.requests": (TIMED_OUT, "timed out")}
    cluster.hidden, cluster.lag = {"ns.default.requests": Topic(4)}, 1
    states = await ensure_topics(settings_of())
    assert [state.problem for state in states] == [None] * TOPICS


async def test_missing_topics_are_an_error_if_they_may_not_be_created(cluster: FakeCluster) -> None:
    problems = await problems_of(settings_of(create=False))
    assert cluster.created == []
    assert len(problems) == TOPICS
    assert problems[0] == (
        "topic ns.default.requests does not exist: run `inferd topics create`, or set INFERD_TOPICS_CREATE=true"
    )


async def test_describing_changes_nothing(cluster: FakeCluster) -> None:
    states = await describe_topics(settings_of("a", "b"))
    assert [state.partitions for state in states] == [0] * (2 * TOPICS)
    assert cluster.created == []


async def test_no_topic_is_created_if_the_broker_does_not_respond(cluster: FakeCluster) -> None:
    cluster.start_error = KafkaConnectionError("nobody")
    with pytest.raises(KafkaConnectionError):
        await ensure_topics(settings_of())
    assert cluster.closed == 1


# Verification

MISMATCHES: dict[str, tuple[str, Topic, str]] = {
    "too few partitions": (
        "results",
        Topic(2),
        "topic ns.default.results has 2 partitions, INFERD_TOPIC_PARTITIONS is 4: "
        f"kafka-topics {ALTER} --topic ns.default.results --partitions 4, which loses nothing; do not delete it",
    ),
    "too few partitions for jobs, which are found by a hash": (
        "jobs",
        Topic(2),
        "topic ns.default.jobs has 2 partitions, INFERD_TOPIC_PARTITIONS is 4: set INFERD_TOPIC_PARTITIONS=2; do not "
        "add partitions to it, jobs are found by the hash of their id over its partitions, and do not delete it",
    ),
    "several partitions of what everybody reads in order": (
        "models",
        Topic(4, config={"cleanup.policy": "compact"}),
        "topic ns.default.models has 4 partitions and must have 1, and Kafka cannot take partitions away: set "
        "INFERD_NAMESPACE to another name, whose topics are created, and deploy the models there; do not delete this "
        "topic, it holds models",
    ),
    "replicas": (
        "requests",
        Topic(4, replication=2),
        "topic ns.default.requests has 2 replicas, INFERD_TOPIC_REPLICATION is 1: "
        "change them with kafka-reassign-partitions",
    ),
    "retention": (
        "requests",
        Topic(4, config={"retention.ms": "86400000"}),
        f"topic ns.default.requests has retention.ms=86400000, INFERD_TOPIC_RETENTION_MS is {RETENTION}: "
        f"kafka-configs {ALTER} --topic ns.default.requests --add-config retention.ms={RETENTION}",
    ),
    "compacted requests": (
        "requests",
        Topic(4, config={"cleanup.policy": "compact"}),
        "topic ns.default.requests has cleanup.policy=compact, by which records with equal keys are lost: "
        f"kafka-configs {ALTER} --topic ns.default.requests --add-config cleanup.policy=delete",
    ),
    "models that are deleted": (
        "models",
        Topic(1, config={"cleanup.policy": "compact,delete"}),
        "topic ns.default.models has cleanup.policy=compact,delete, by which deploys are lost with time: "
        f"kafka-configs {ALTER} --topic ns.default.models --add-config cleanup.policy=compact",
    ),
    "dead letters that would not be taken": (
        "dead-letters",
        Topic(4),
        "topic ns.default.dead-letters has max.message.bytes=1048588, and by INFERD_MESSAGE_BYTES_MAX a record may "
        "have 2162688: lower that, or "
        f"kafka-configs {ALTER} --topic ns.default.dead-letters --add-config max.message.bytes=2162688",
    ),
}


@pytest.mark.parametrize("what", MISMATCHES)
async def test_a_topic_with_wrong_settings_is_named_with_a_remedy(cluster: FakeCluster, what: str) -> None:
    stream, topic, text = MISMATCHES[what]
    await ensure_topics(settings_of())
    cluster.topics[f"ns.default.{stream}"] = topic
    assert await problems_of(settings_of()) == [text]
    assert await problems_of(settings_of(create=False)) == [text]
    assert [state.problem for state in await describe_topics(settings_of()) if state.problem] == [text]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ({"partitions": 6}, "set INFERD_TOPIC_PARTITIONS=6; do not change the topic"),
        ({"partitions": 2}, "set INFERD_TOPIC_PARTITIONS=2; do not change the topic"),
        ({"replication": 3}, "set INFERD_TOPIC_REPLICATION=3, or change"),
        (
            {"retention_ms": 70_000},
            f"set INFERD_TOPIC_RETENTION_MS=70000, or kafka-configs {ALTER}",
        ),
    ],
)
async def test_if_all_topics_agree_the_setting_may_be_wrong(
    cluster: FakeCluster, made: dict[str, Any], text: str
) -> None:
    await ensure_topics(settings_of("a", "b", **made))
    problems = await problems_of(settings_of("a", "b"))
    assert len(problems) >= len(STREAMS)
    assert all(text in problem for problem in problems)


@pytest.mark.parametrize("retention_ms", ["-1", str(RETENTION + 1)])
async def test_a_longer_retention_is_accepted(cluster: FakeCluster, retention_ms: str) -> None:
    await ensure_topics(settings_of())
    for topic in cluster.topics.values():
        topic.config["retention.ms"] = retention_ms
    assert not any(state.problem for state in await ensure_topics(settings_of()))


async def test_a_setting_is_not_proposed_that_is_not_allowed(cluster: FakeCluster) -> None:
    await ensure_topics(settings_of())
    for topic in cluster.topics.values():
        topic.config["retention.ms"] = "1"
    problems = await problems_of(settings_of())
    assert all("has retention.ms=1, INFERD_TOPIC_RETENTION_MS is" in p for p in problems if "changelog" not in p)
    assert not any("set INFERD" in problem for problem in problems)


# Advice that loses no records

MANY = [stream for stream in STREAMS if stream not in ("models", "model-artifacts", "routes")]
GROWN = st.dictionaries(st.sampled_from(MANY), st.integers(1, 9))
LOSES = re.compile(r"(?<!do not )delete|reset-offsets|(?<!not )remove|create it again")


@given(GROWN)
def test_advice_loses_no_records_and_is_sufficient(counts: dict[str, int]) -> None:
    partitions = 4
    for _ in range(20):
        settings = settings_of(partitions=partitions)
        specs = topic_specs(settings)
        now = {spec.name: counts.get(spec.name.removeprefix("ns.default."), spec.partitions) for spec in specs}
        states = [TopicState(s.name, s.stream, now[s.name], 1, dict(s.config)) for s in specs]
        said = [state.problem for state in checked(specs, states, SERVERS) if state.problem]
        if not said:
            break
        for problem in said:
            assert not LOSES.search(problem), problem
        alter = re.search(r"--alter --topic (\S+) --partitions (\d+)", said[0])
        setting = re.search(r"set INFERD_TOPIC_PARTITIONS=(\d+)", said[0])
        if alter:
            stream, wanted = alter[1].removeprefix("ns.default."), int(alter[2])
            assert stream != "jobs", "whose partitions are hashes of jobs"
            assert wanted > now[alter[1]]
            counts = {**{name.removeprefix("ns.default."): n for name, n in now.items()}, stream: wanted}
        else:
            assert setting, said[0]
            counts = {name.removeprefix("ns.default."): n for name, n in now.items()}
            partitions = int(setting[1])
    else:
        pytest.fail("following the advice leads nowhere")


async def test_jobs_with_more_partitions_than_the_setting_are_served_in_part_and_noted(cluster: FakeCluster) -> None:
    await ensure_topics(settings_of())
    cluster.topics["ns.default.jobs"].partitions = 6
    (noted,) = [state for state in await ensure_topics(settings_of()) if state.note]
    assert noted.name == "ns.default.jobs"
    assert "has 6 partitions, and other topics of the tenant have less" in (noted.note or "")
    assert "inferd topics grow --partitions 8" in (noted.note or "")


async def test_if_requests_was_extended_dependent_topics_must_be_extended(cluster: FakeCluster) -> None:
    await ensure_topics(settings_of())
    cluster.topics["ns.default.requests"].partitions = 8
    problems = await problems_of(settings_of())
    assert [problem.split()[1] for problem in problems] == [
        "ns.default.results", "ns.default.dead-letters", "inferd-default.predictions-changelog",
    ]  # fmt: skip
    assert all(f"ns.default.requests has 8: kafka-topics {ALTER}" in problem for problem in problems)


@pytest.mark.parametrize(
    ("change", "lasting"),
    [
        (lambda cluster: cluster.topics["ns.default.results"].__setattr__("partitions", 2), True),
        (lambda cluster: cluster.topics.pop("ns.default.results"), False),
        (lambda cluster: cluster.unreadable.update({"ns.default.results": DENIED}), False),
    ],
    ids=["does not fit", "is missing", "cannot be read"],
)
async def test_permanent_problems_are_distinguished_from_transient_ones(
    cluster: FakeCluster, change: Callable[[FakeCluster], Any], lasting: bool
) -> None:
    await ensure_topics(settings_of())
    change(cluster)
    with pytest.raises(TopicsError) as caught:
        await ensure_topics(settings_of(create=False))
    assert caught.value.lasting is lasting


async def test_one_error_lists_everything(cluster: FakeCluster) -> None:
    await ensure_topics(settings_of("a", "b"))
    cluster.topics["ns.a.requests"] = Topic(2, 2, {"retention.ms": "1", "cleanup.policy": "compact"})
    cluster.topics["ns.b.results"].partitions = 3
    del cluster.topics["ns.b.jobs"]
    problems = await problems_of(settings_of("a", "b", create=False, reply_to=["mine"]))
    assert [re.match(r"topic ([a-z.-]+)", problem).group(1) for problem in problems] == [  # type: ignore[union-attr]
        "ns.a.requests", "ns.b.results", "ns.b.jobs", "mine",
    ]  # fmt: skip
    for part in ("2 partitions", "2 replicas", "cleanup.policy=compact", "retention.ms=1"):
        assert part in problems[0]
    assert len("; ".join(problems)) > 512, "and is not cut"


async def test_every_setting_that_is_named_is_one(cluster: FakeCluster) -> None:
    known = {info.variable for info in settings_table()}
    await ensure_topics(settings_of("a"))
    for topic in cluster.topics.values():
        topic.partitions, topic.replication = topic.partitions + 1, 2
        topic.config.update({"cleanup.policy": "x", "retention.ms": "1", "max.message.bytes": "1"})
    said = " ".join(await problems_of(settings_of("a", "b", create=False, reply_to=["mine"])))
    named = set(re.findall(r"INFERD_[A-Z_]+", said))
    assert named <= known
    assert {"INFERD_TOPICS_CREATE", "INFERD_REPLY_TO_ALLOWED", "INFERD_TOPIC_REPLICATION"} <= named


async def test_unreadable_settings_of_a_topic_are_not_wrong_settings(cluster: FakeCluster) -> None:
    await ensure_topics(settings_of())
    cluster.unreadable = {"ns.default.requests": DENIED}
    assert await problems_of(settings_of()) == [
        "topic ns.default.requests: its settings cannot be read: TopicAuthorizationFailedError; "
        "this user lacks DESCRIBE_CONFIGS on it: grant that"
    ]


async def test_a_topic_that_is_deleted_while_it_is_described_is_missing(cluster: FakeCluster) -> None:
    await ensure_topics(settings_of())
    cluster.unreadable = {"ns.default.requests": NO_TOPIC}
    (state,) = [state for state in await describe_topics(settings_of()) if state.problem]
    assert (state.name, state.partitions) == ("ns.default.requests", 0)


def test_too_few_replicas_are_reported() -> None:
    spec = topic_specs(settings_of(replication=3))[0]
    (state,) = checked([spec], [TopicState(spec.name, spec.stream, 4, 2, dict(spec.config))], SERVERS)
    assert "has 2 replicas, INFERD_TOPIC_REPLICATION is 3: set INFERD_TOPIC_REPLICATION=2" in (state.problem or "")


# Reply-to topics


async def test_topics_for_replies_are_described_with_their_partitions(cluster: FakeCluster) -> None:
    cluster.topics["mine"] = Topic(3, 2, {"cleanup.policy": "compact"})
    states = await ensure_topics(settings_of(reply_to=["mine", "ns.default.results"]))
    assert {state.name: state.partitions for state in states}["mine"] == 3
    assert [state.name for state in states].count("ns.default.results") == 1
    assert [state.problem for state in states] == [None] * (TOPICS + 1), "how they look is their owner's affair"


async def test_topics_for_replies_must_exist_and_are_never_created(cluster: FakeCluster) -> None:
    assert await problems_of(settings_of(reply_to=["mine"])) == [
        "topic mine of INFERD_REPLY_TO_ALLOWED does not exist: create it, or take it off that list"
    ]
    assert "mine" not in cluster.topics

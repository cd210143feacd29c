"""Topics on a real Kafka: created as specified, verified, and corrected as the errors advise."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from inferd.daemon.broker import EmbeddedKafka
from inferd.schemas.connection import KafkaConnection
from inferd.streams.kafka import topics
from inferd.streams.kafka.topic_checks import TopicsError, topic_specs
from inferd.streams.kafka.topics import describe_topics, ensure_topics
from inferd.streams.settings import GroupSettings, StreamSettings, TopicSettings
from tests.fixtures.broker import FAST_GROUPS, broker_settings
from tests.fixtures.workers import PARTITIONS, Cluster, StartWorker, TrainedModel


def settings_of(bootstrap: str, namespace: str, *reply_to: str, **how: Any) -> StreamSettings:
    return StreamSettings(
        KafkaConnection(bootstrap),
        "worker-1",
        Path("unused"),
        namespace=namespace,
        tenants=("a", "b"),
        reply_to_allowed=reply_to,
        topics=TopicSettings(**how),
        group=GroupSettings(group_id=namespace),
    )


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    yield client
    await client.close()


async def alter(admin: AIOKafkaAdminClient, topic: str, **config: str) -> None:
    named = {name.replace("_", "."): value for name, value in config.items()}
    responses: list[Any] = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, named)])
    for response in responses:
        assert [code for code, *_ in response.resources] == [0], response


async def until_problems(settings: StreamSettings, *parts: str) -> None:
    """Waits until the broker lists exactly these topics: the controller responds before the broker has applied a
    change."""
    async with asyncio.timeout(30):
        while True:
            problems = [state.problem for state in await describe_topics(settings) if state.problem]
            if len(problems) == len(parts) and all(map(operator.contains, problems, parts)):
                return
            await asyncio.sleep(0.05)


async def test_topics_are_created_as_specified(kafka: str, namespace: str) -> None:
    settings = settings_of(kafka, namespace, partitions=3, retention_ms=3_600_000)
    states = await ensure_topics(settings)
    for spec, state in zip(topic_specs(settings), states, strict=True):
        assert (state.name, state.partitions, state.replication) == (spec.name, spec.partitions, 1)
        checked = {name: value for name, value in spec.config.items() if name in topics.CHECKED_CONFIGS}
        assert checked.items() <= dict(state.config).items()
        assert state.problem is None
    assert await ensure_topics(settings) == states
    assert await describe_topics(settings) == states


async def test_workers_that_start_together_create_them_once(kafka: str, namespace: str) -> None:
    settings = settings_of(kafka, namespace)
    all_states = await asyncio.gather(*[ensure_topics(settings) for _ in range(4)])
    assert all(states == all_states[0] for states in all_states)
    assert not any(state.problem for state in all_states[0])


async def test_wrong_topics_are_reported_at_once_and_the_advice_corrects_them(
    kafka: str, namespace: str, admin: AIOKafkaAdminClient
) -> None:
    settings = settings_of(kafka, namespace)
    results, models, letters = (f"{namespace}.a.{stream}" for stream in ("results", "models", "dead-letters"))
    await ensure_topics(settings)
    await admin.create_partitions({f"{namespace}.b.requests": NewPartitions(6)})
    await alter(admin, results, cleanup_policy="compact", retention_ms="60000")
    await alter(admin, models, cleanup_policy="compact,delete")
    await alter(admin, letters, cleanup_policy="delete")
    follow = [f"{namespace}.b.results", f"{namespace}.b.dead-letters", f"{namespace}-b.predictions-changelog"]
    await until_problems(settings, results, letters, models, *follow)
    with pytest.raises(TopicsError) as caught:
        await ensure_topics(settings)
    said = caught.value.problems
    assert f"{results} has cleanup.policy=compact" in said[0]
    assert f"{results} has retention.ms=60000, INFERD_TOPIC_RETENTION_MS is 604800000" in said[0]
    assert f"{letters} has max.message.bytes=1048588" in said[1]
    assert f"{models} has cleanup.policy=compact,delete" in said[2]
    for topic, problem in zip(follow, said[3:], strict=True):
        assert f"{topic} has 4 partitions, {namespace}.b.requests has 6: kafka-topics --bootstrap-server" in problem

    await alter(admin, results, cleanup_policy="delete", retention_ms="604800000")
    await alter(admin, models, cleanup_policy="compact")
    await alter(admin, letters, cleanup_policy="delete", max_message_bytes="2162688")
    await admin.create_partitions({topic: NewPartitions(6) for topic in follow})
    await until_problems(settings)
    await ensure_topics(settings)


async def test_replicas_that_the_cluster_does_not_have(kafka: str, namespace: str) -> None:
    with pytest.raises(TopicsError) as caught:
        await ensure_topics(settings := settings_of(kafka, namespace, replication=5))
    assert len(caught.value.problems) == len(topic_specs(settings))
    assert "requests could not be created: Unable to replicate the partition 5 time(s)" in caught.value.problems[0]


async def test_topics_for_replies(
    kafka: str, namespace: str, admin: AIOKafkaAdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(kafka, namespace, f"{namespace}.mine")
    monkeypatch.setattr(topics, "VISIBLE_WITHIN_S", 0.5)
    with pytest.raises(TopicsError, match="mine of INFERD_REPLY_TO_ALLOWED does not exist"):
        await ensure_topics(settings)
    monkeypatch.undo()
    await admin.create_topics([NewTopic(f"{namespace}.mine", 7, 1)])
    states = await ensure_topics(settings)
    assert (states[-1].name, states[-1].stream, states[-1].partitions) == (f"{namespace}.mine", "reply-to", 7)


def test_a_worker_with_wrong_topics_reports_them_and_exits(cluster: Cluster, start_worker: StartWorker) -> None:
    worker = start_worker(cluster, topic_partitions=PARTITIONS + 1)
    assert worker.process.wait(30) == 2
    assert f"INFERD_TOPIC_PARTITIONS is {PARTITIONS + 1}: set INFERD_TOPIC_PARTITIONS={PARTITIONS};" in worker.text()


async def test_a_reply_goes_to_a_user_defined_topic(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, admin: AIOKafkaAdminClient
) -> None:
    mine = f"{cluster.namespace}.mine"
    await admin.create_topics([NewTopic(mine, 3, 1)])
    cluster.deploy(model)
    worker = start_worker(cluster, reply_to_allowed=mine)
    producer = cluster.producer()
    for number in range(PARTITIONS):
        body = msgpack.packb({"id": f"q{number}", "model_id": "demo", "input_data": [0.0] * 10})
        producer.produce(cluster.topics.name("requests"), body, partition=number, headers={"reply-to": mine.encode()})
    assert producer.flush(30) == 0
    consumer = AIOKafkaConsumer(mine, bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(30):
        replies = [await anext(consumer) for _ in range(PARTITIONS)]
    found = {msgpack.unpackb(reply.value)["id"]: reply.partition for reply in replies}
    assert found == {f"q{number}": number % 3 for number in range(PARTITIONS)}
    assert await asyncio.to_thread(worker.stop) == 0


async def test_a_broker_that_creates_topics_by_itself_is_not_made_to(
    tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {**FAST_GROUPS, "auto.create.topics.enable": "true", "num.partitions": "9"}
    with EmbeddedKafka(broker_settings(tmp_path / "kafka", extra=extra)) as broker:
        settings = settings_of(broker.bootstrap_servers, namespace, create=False)
        for _ in range(2):
            assert {state.partitions for state in await describe_topics(settings)} == {0}
        monkeypatch.setattr(topics, "VISIBLE_WITHIN_S", 0.5)
        with pytest.raises(TopicsError, match="does not exist"):
            await ensure_topics(settings)
        monkeypatch.undo()
        states = await ensure_topics(settings_of(broker.bootstrap_servers, namespace))
        assert {state.partitions for state in states} == {1, 4}

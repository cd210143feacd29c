"""Isolation of tenants: a tenant that waits for a model, its own code, a huge job or Kafka does not delay others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.jobs import Chunk, encode_chunk
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests import Output
from inferd.schemas.topics import Stream, TenantTopics
from inferd.streams.inference.catalog import ModelCatalog, Version
from inferd.streams.inference.scoring import Scorer
from inferd.streams.inference.user_code import PinnedModelId
from inferd.streams.jobs.chunk_processor import ChunkProcessor
from inferd.streams.jobs.scoring import ChunkScorer
from inferd.streams.kafka.destinations import UNCHECKED
from inferd.streams.lane.at_least_once import AtLeastOnce
from inferd.streams.lane.context import LaneContext
from inferd.streams.lane.exactly_once import ExactlyOnce
from inferd.streams.lane.lane import Lane
from inferd.streams.lane.processor import Processor
from inferd.streams.prediction_runner import PredictionRunner
from inferd.streams.requests.batch_scoring import BatchScoring
from inferd.streams.requests.batch_sizing import BatchSizer
from inferd.streams.requests.processor import RequestProcessor
from inferd.streams.settings import GroupSettings, StreamSettings
from inferd.streams.telemetry.measure import LaneMeasures
from tests.fixtures.lane import (
    FakeBroker,
    FakeConsumer,
    FakeGroup,
    FakeTopics,
    SumRuntime,
    lane_settings,
    make_guarantee,
    replace_broker,
    sum_model,
)

DEADLINE_S = 60.0
TENANTS = ("healthy", "missing", "slow", "huge")


class Code:
    """User code that returns once the test releases it."""

    def __init__(self) -> None:
        self.called, self.may_return = threading.Event(), threading.Event()

    def ask(self, model_id: PinnedModelId, input_data: Any, outputs: tuple[Output, ...]) -> dict[Output, object]:
        self._wait()
        return dict.fromkeys(outputs, 1.0)

    def process_batch(self, model_id: str, rows: Sequence[Any]) -> list[Any]:
        self._wait()
        return [1.0] * len(rows)

    def _wait(self) -> None:
        self.called.set()
        assert self.may_return.wait(DEADLINE_S)


class World:
    """A lane with a processor of requests and one of chunks for each tenant, over fakes."""

    def __init__(self, tmp_path: Path, guarantee: type) -> None:
        self.settings = StreamSettings(
            KafkaConnection(), "w", tmp_path, lane=lane_settings(),
            group=GroupSettings(request_timeout_s=2.0, heartbeat_interval_s=0.02),
        )  # fmt: skip
        self.broker, self.consumer = FakeBroker(), FakeConsumer()
        self.broker.acknowledges = True
        self.group, self.crashes = FakeGroup(self.consumer), list[BaseException]()
        self.requests_code, self.chunks_code = Code(), Code()
        processors = {processor.topic: processor for tenant in TENANTS for processor in self._processors(tenant)}
        context = LaneContext(
            settings=self.settings, processors=processors, group=self.group, topics=FakeTopics(),
            measures=LaneMeasures(), on_crash=self.crashes.append,
        )  # fmt: skip
        self.lane = Lane(context, lambda *calls: make_guarantee(guarantee, self.settings, LaneMeasures(), *calls))

    def _processors(self, tenant: str) -> list[Processor]:
        catalog, topics, measures = ModelCatalog(), TenantTopics("ns", tenant), LaneMeasures()
        if tenant != "missing":
            served = sum_model()
            catalog.put(Version(served.manifest, "ready", None, served))
        ask = self.requests_code.ask if tenant == "slow" else None
        process_batch = self.chunks_code.process_batch if tenant in ("slow", "huge") else None
        scoring = BatchScoring(
            measures, BatchSizer(self.settings.lane), PredictionRunner("test", measures, 50.0), lambda: 2.0
        )
        scorer = Scorer(catalog, DEFAULT_LIMITS, (), ask)
        reader: Any = None
        return [
            RequestProcessor(topics, scorer, "w", UNCHECKED, scoring),
            ChunkProcessor(
                topics, ChunkScorer(catalog, DEFAULT_LIMITS, process_batch), reader, self.settings, measures
            ),
        ]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110  # fakes have no event for everything a test may wait for
                await asyncio.sleep(0.001)

    def answers(self, tenant: str, stream: Stream = "results") -> int:
        topic = topic_of(tenant, stream)
        return sum(len(sent.records) for sent in self.broker.sent if sent.topic == topic)

    def ask(self, tenant: str, first: int, count: int = 20) -> None:
        """Requests `first` to `first + count` of a tenant have been fetched."""
        self._feed(tenant, "requests", first, count, lambda offset: {
            "id": f"r{offset}", "model_id": "sum", "input_data": [float(offset), 1.0],
        })  # fmt: skip

    def open_chunks(self, tenant: str, first: int, count: int = 1, rows: int = 2) -> None:
        def chunk(offset: int) -> bytes:
            return encode_chunk(Chunk(
                job_id="j", chunk=offset, first_row=0, row_count=rows, model_id="sum", version=1, digest=f"{1:064x}",
                partition=0, rows=msgspec.msgpack.encode([[1.0, 2.0]] * rows),
            ))  # fmt: skip

        self._feed(tenant, "job-chunks", first, count, chunk)

    def _feed(self, tenant: str, stream: Stream, first: int, count: int, value_of: Callable[[int], Any]) -> None:
        topic = topic_of(tenant, stream)
        values = [value_of(offset) for offset in range(first, first + count)]
        encoded = [value if isinstance(value, bytes) else msgspec.msgpack.encode(value) for value in values]
        self.lane.feed(
            TopicPartition(topic, 0),
            [
                ConsumerRecord(topic, 0, offset, 1_000, 0, b"j", value, None, 1, len(value), ())
                for offset, value in enumerate(encoded, first)
            ],
        )


def topic_of(tenant: str, stream: Stream) -> str:
    return TenantTopics("ns", tenant).name(stream)


@pytest.fixture
async def world(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[World]:
    made = World(tmp_path, getattr(request, "param", AtLeastOnce))
    replace_broker(monkeypatch, made.broker)
    running = asyncio.create_task(made.lane.run())
    await made.lane.acquire(
        {TopicPartition(topic_of(t, stream), 0) for t in TENANTS for stream in ("requests", "job-chunks")}
    )
    yield made
    made.requests_code.may_return.set()
    made.chunks_code.may_return.set()
    running.cancel()
    await made.lane.close()
    assert made.crashes == []


async def test_a_model_that_has_not_been_measured_never_blocks_the_event_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, predict = list[int](), SumRuntime.predict

    def watched(self: SumRuntime, *args: Any) -> Any:
        threads.append(threading.get_ident())
        return predict(self, *args)

    monkeypatch.setattr(SumRuntime, "predict", watched)
    world.ask("healthy", 0, count=1)
    await world.until(lambda: world.answers("healthy") == 1)
    world.open_chunks("healthy", 0, rows=1)
    await world.until(lambda: world.answers("healthy", "job-results") == 1)
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_a_waiting_tenant_does_not_delay_others(world: World) -> None:
    """The tenant's code does not return, its chunks wait for a model, and its job is being processed: the other tenants
    are answered."""
    world.ask("slow", 0)
    world.open_chunks("huge", 0, rows=1_000)
    world.open_chunks("missing", 0)
    world.ask("missing", 0)
    await world.until(world.requests_code.called.is_set)
    await world.until(world.chunks_code.called.is_set)
    for first in range(0, 100, 20):
        world.ask("healthy", first)
        await world.until(lambda: world.answers("healthy") == first + 20)  # noqa: B023
        world.open_chunks("healthy", first // 20)
        await world.until(lambda: world.answers("healthy", "job-results") == first // 20 + 1)  # noqa: B023
    assert world.answers("missing") == 20, "a request for a missing model is an error at once"
    waiting = [world.answers("slow"), world.answers("huge", "job-results"), world.answers("missing", "job-results")]
    assert waiting == [0, 0, 0]
    world.requests_code.may_return.set()
    world.chunks_code.may_return.set()
    await world.until(lambda: (world.answers("slow"), world.answers("huge", "job-results")) == (20, 1))


async def test_a_tenant_with_a_backlog_takes_turns_with_the_others(world: World) -> None:
    world.ask("missing", 0, 20_000)
    await world.until(lambda: world.answers("missing"))
    world.ask("healthy", 0)
    await world.until(lambda: world.answers("healthy") == 20)
    assert world.answers("missing") < 20_000
    await world.until(lambda: world.answers("missing") == 20_000)


async def test_in_flight_records_of_a_tenant_leave_the_others_their_share(world: World) -> None:
    world.broker.acknowledges = False
    for worker in {*world.lane._workers.values()}:
        worker._settings = lane_settings(in_flight_bytes_max=2_000)
    for first in range(0, 400, 20):
        world.ask("missing", first)
        await asyncio.sleep(0)
    blocked = world.lane._workers[topic_of("missing", "requests")]._work
    await world.until(lambda: blocked in world.lane._context.blocked)
    world.ask("healthy", 0, 1)
    await world.until(lambda: world.answers("healthy") == 1)


@pytest.mark.parametrize("world", [AtLeastOnce, ExactlyOnce], indirect=True, ids=["at_least_once", "exactly_once"])
async def test_a_tenant_whose_results_are_rejected_recovers_alone(world: World) -> None:
    partition = world.lane.partitions[TopicPartition(topic_of("healthy", "requests"), 0)]
    opened = world.broker.producers_opened
    world.broker.rejection = TopicAuthorizationFailedError()
    world.broker.rejected_topics = {topic_of("missing", "results")}
    for first in range(0, 100, 20):
        world.ask("missing", 0)
        await world.until(lambda: world.lane.fault)
        world.ask("healthy", first)
        await world.until(lambda: partition.acked == first + 20)  # noqa: B023
    assert "TopicAuthorizationFailed" in str(world.lane.fault), "results of others do not end it"
    assert (partition.rewinds, world.lane.partitions[partition.tp]) == (0, partition), "not taken over again"
    sought = {tp.topic for seeks in world.group.seeks[1:] for tp in seeks}
    assert sought <= {topic_of("missing", stream) for stream in ("requests", "job-chunks")}
    world.broker.rejection = None
    rejected = TopicPartition(topic_of("missing", "requests"), 0)

    def done() -> bool:
        world.ask("missing", 0)
        return world.lane.partitions[rejected].acked == 20

    await world.until(done)
    await world.until(lambda: world.lane.fault is None)
    assert world.broker.producers_opened > opened

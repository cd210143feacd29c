"""The processors of jobs over an in-memory log: every job ends, and they publish exactly the output of each step."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.jobs.chunk_codec import decode_chunk, encode_chunk
from inferd.schemas.jobs.codec import (
    encode_cancel,
    encode_close,
    encode_open,
    encode_retry,
    encode_rows,
    encode_submit,
)
from inferd.schemas.jobs.job import Chunk, Source
from inferd.schemas.models import Alias
from inferd.schemas.topics import Stream
from inferd.streams.faust_app import create_app
from inferd.streams.inference.catalog import ModelCatalog, State, Version
from inferd.streams.jobs import chunk_processor as chunks_module
from inferd.streams.jobs.composition import compose_jobs
from inferd.streams.jobs.reader import RecordReader
from inferd.streams.kafka import partition_of_key
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.processor import Processor
from inferd.streams.settings import StreamSettings, TopicSettings
from inferd.streams.state.tables import make_table
from inferd.streams.telemetry.measure import LaneMeasures
from tests.fixtures.lane import TOPICS, sum_model
from tests.fixtures.scoring import catalog_of

PARTITIONS = 3
GOOD_ROWS = [[float(n), 1.0] for n in range(10)]
BAD_ROW = ["no number", 1.0]


@dataclass
class Log:
    """An in-memory log: the topics of a tenant, and the processors that read from them."""

    processors: Sequence[Processor] = ()
    catalog: ModelCatalog = field(default_factory=ModelCatalog)
    timestamp: int = 1_000
    """Timestamp of appended records in Unix milliseconds."""
    records: dict[TopicPartition, list[ConsumerRecord[Any, Any]]] = field(default_factory=lambda: defaultdict(list))
    next_offsets: dict[TopicPartition, int] = field(default_factory=lambda: defaultdict(int))
    undeclared: set[tuple[str, TopicPartition]] = field(default_factory=set)
    """(topic of the processor, partition that it wrote to without declaring it)."""

    async def read(self, tp: TopicPartition, offset: int) -> Any:
        """Like `RecordReader` does it."""
        return self.records[tp][offset]

    def send(self, job_id: bytes, value: bytes, headers: Any = ()) -> None:
        """A message of a job, in the partition of its id."""
        self.append("jobs", partition_of_key(job_id, PARTITIONS), job_id, value, headers)

    def append(self, stream: Stream, number: int, key: bytes | None, value: bytes | None, headers: Any = ()) -> None:
        tp = TopicPartition(TOPICS.name(stream), number)
        offset, sizes = len(self.records[tp]), (len(key or b""), len(value or b""))
        record = ConsumerRecord(tp.topic, number, offset, self.timestamp, 0, key, value, None, *sizes, tuple(headers))
        self.records[tp].append(record)

    async def settle(self, after_days: int = 0) -> None:
        """Lets every processor process its records, until none is left."""
        now_ms = int((time.time() + after_days * 86_400) * 1_000)
        while any(
            [await self._advance(processor, n, now_ms) for processor in self.processors for n in range(PARTITIONS)]
        ):
            pass

    async def _advance(self, processor: Processor, number: int, now_ms: int) -> bool:
        """Processes the records of a partition, or what is due there; returns whether there was anything."""
        tp = TopicPartition(processor.topic, number)
        if waiting := self.records[tp][self.next_offsets[tp] :]:
            [steps] = await processor.process([(tp, waiting)])
        else:
            idle = processor.idle_output(tp, self.next_offsets[tp], now_ms)
            steps = [idle] if idle is not None else []
        for output in steps:
            self._publish(processor, tp, output)
        await asyncio.sleep(0)
        return bool(steps or waiting)

    def _publish(self, processor: Processor, tp: TopicPartition, output: OutputBatch) -> None:
        declared = {*processor.outputs(tp.partition)}
        for (topic, number), outgoing in output.by_topic.items():
            if TopicPartition(topic, number) not in declared:
                self.undeclared.add((processor.topic, TopicPartition(topic, number)))
            for key, value, headers in outgoing:
                self.append(cast(Stream, topic.removeprefix("ns.default.")), number, key, value, headers)
        for table, changes in output.changes.items():
            assert (table.topic, table.number) == (processor.tables[0].changelog, tp.partition)
            table.apply(changes, (table.store.offset or 0) + len(changes))
        self.next_offsets[tp] = output.next_offset
        processor.acked(tp.partition, output)

    def written(self, stream: Stream) -> list[ConsumerRecord[Any, Any]]:
        return [record for n in range(PARTITIONS) for record in self.records[TopicPartition(TOPICS.name(stream), n)]]

    def status(self, job_id: str) -> dict[str, Any]:
        """The last one that was published."""
        statuses = [(record.key, record.value) for record in self.written("job-status")]
        mine = [value for key, value in statuses if key == job_id.encode() and value is not None]
        status: dict[str, Any] = msgspec.msgpack.decode(mine[-1])
        return status


@pytest.fixture
async def log(tmp_path: Path) -> Log:
    log = Log(catalog=catalog_of(sum_model()))
    settings = StreamSettings(KafkaConnection(), "w1", tmp_path, "ns", topics=TopicSettings(partitions=PARTITIONS))
    table = make_table(create_app(settings), settings, "default", "jobs", None)
    await table.retain({*range(PARTITIONS)})
    reader = cast(RecordReader, log)
    log.processors = compose_jobs(settings, "default", table, log.catalog, reader, LaneMeasures()).processors
    for processor in log.processors:
        for number in range(PARTITIONS):
            await processor.opened(number)
    return log


async def test_a_job_in_messages_ends_with_each_row_counted(log: Log) -> None:
    for value in (
        encode_open("sum", chunk_rows=2),
        encode_rows(0, GOOD_ROWS),
        encode_rows(1, [*GOOD_ROWS, BAD_ROW]),
        encode_close(2),
    ):
        log.send(b"j", value)
    await log.settle()
    status = log.status("j")
    assert (status["status"], status["succeeded"], status["failed"]) == ("completed_with_errors", 20, 1)
    assert {record.partition for record in log.written("job-chunks")} == {0, 1, 2}
    assert {record.partition for record in log.written("job-results")} == {partition_of_key(b"j", PARTITIONS)}
    assert log.undeclared == set()


async def test_results_of_a_job_have_the_revision_and_variant_that_its_alias_had_when_it_was_opened(log: Log) -> None:
    log.catalog.put_alias("sum", "champion", Alias(1, revision=4))
    log.send(b"j", encode_submit("sum", [*GOOD_ROWS, BAD_ROW], chunk_rows=3))
    await log.settle()
    log.catalog.put_alias("sum", "champion", Alias(1, revision=5, shadow=[2]))
    log.send(b"j", encode_retry())
    log.send(b"direct", encode_submit("sum:1", GOOD_ROWS, chunk_rows=3))
    await log.settle()
    by_alias = {"inferd-alias-revision": b"4", "inferd-variant": b"champion"}
    for record in log.written("job-results"):
        headers = {name: value for name, value in record.headers if name.startswith("inferd-")}
        assert headers == (by_alias if record.key == b"j" else {})


async def test_processors_write_only_to_declared_partitions(log: Log) -> None:
    """A takeover ends open transactions of the former owner only in declared partitions."""
    log.send(b"whole", encode_submit("sum", [*GOOD_ROWS, BAD_ROW], chunk_rows=3))
    log.send(b"garbage", b"\xc1")
    log.send(b"cancelled", encode_open("sum", chunk_rows=1))
    log.send(b"cancelled", encode_rows(0, GOOD_ROWS))
    log.send(b"cancelled", encode_cancel())
    log.send(b"unknown", encode_submit("nobody", GOOD_ROWS))
    log.append("job-chunks", 2, b"garbage", b"\xc1")
    log.append("job-results", 1, b"garbage", b"\xc1")
    await log.settle()
    log.send(b"whole", encode_retry())
    await log.settle()
    assert log.status("whole")["status"] == "completed_with_errors"
    assert log.status("cancelled")["status"] == "cancelled"
    assert log.status("unknown")["status"] == "failed"
    letters = [dict(record.headers)["inferd-error-topic"] for record in log.written("dead-letters")]
    assert sorted(letters) == [b"ns.default.job-chunks", b"ns.default.job-results", b"ns.default.jobs"]
    await log.settle(after_days=30)
    await log.settle(after_days=60)
    tombstones = {record.key for record in log.written("job-status") if record.value is None}
    assert tombstones == {b"whole", b"cancelled", b"unknown"}
    assert log.undeclared == set()


async def test_a_job_that_was_opened_just_now_waits_for_its_model(log: Log) -> None:
    log.timestamp = int(time.time() * 1_000)
    log.send(b"early", encode_submit("late", GOOD_ROWS))
    settling = asyncio.create_task(log.settle())
    await asyncio.sleep(0)
    manifest = msgspec.structs.replace(sum_model().manifest, model_id="late")
    log.catalog.put(Version(manifest, "ready", None, replace(sum_model(), manifest=manifest)))
    await settling
    assert log.status("early")["status"] == "completed"


async def test_a_job_whose_model_is_never_deployed_fails_after_a_timeout(log: Log) -> None:
    log.timestamp = int(time.time() * 1_000)
    log.send(b"early", encode_submit("nobody", GOOD_ROWS))
    await log.settle()
    assert log.status("early")["status"] == "failed"


async def chunks_of(log: Log, job_id: bytes, model: str, rows: int = 6) -> None:
    """Opens a job that is split into chunks of one row, on all partitions of `job-chunks`; none is scored yet."""
    log.send(job_id, encode_submit(model, GOOD_ROWS[:rows], chunk_rows=1))
    messages = next(processor for processor in log.processors if processor.topic.endswith(".jobs"))
    while any([await log._advance(messages, number, 0) for number in range(PARTITIONS)]):
        pass


async def score(log: Log) -> list[int]:
    """Scores chunks once; returns their number by partition."""
    chunks = next(processor for processor in log.processors if processor.topic.endswith(".job-chunks"))
    before = [log.next_offsets[TopicPartition(chunks.topic, n)] for n in range(PARTITIONS)]
    for number in range(PARTITIONS):
        await log._advance(chunks, number, 0)
    return [log.next_offsets[TopicPartition(chunks.topic, n)] - before[n] for n in range(PARTITIONS)]


def other_model(log: Log, name: str, state: State = "ready") -> Version:
    manifest = msgspec.structs.replace(sum_model().manifest, model_id=name)
    served = replace(sum_model(), manifest=manifest) if state == "ready" else None
    version = Version(manifest, state, None, served)
    log.catalog.put(version)
    return version


async def test_chunks_of_a_version_that_was_removed_fail_at_once_and_others_are_scored(log: Log) -> None:
    other_model(log, "gone")
    await chunks_of(log, b"orphan", "gone")
    await chunks_of(log, b"fine", "sum")
    log.catalog.remove("gone", 1)
    assert await score(log) == [4, 4, 4], "no record waits"
    await log.settle()
    assert (log.status("fine")["status"], log.status("fine")["succeeded"]) == ("completed", 6)
    assert (log.status("orphan")["status"], log.status("orphan")["failed"]) == ("completed_with_errors", 6)


async def test_chunks_wait_for_a_version_in_their_partition_and_in_no_other(log: Log) -> None:
    version = other_model(log, "slow")
    await chunks_of(log, b"early", "sum", rows=2)
    await chunks_of(log, b"waits", "slow", rows=1)
    log.catalog.set_state(replace(version, served=None), "trying", "a moment")
    held = [record.partition for record in log.written("job-chunks") if (record.key or b"").startswith(b"waits")]
    scored = await score(log)
    assert sum(scored) == 2, "the records before it, and those of other partitions"
    assert await score(log) == [0, 0, 0]
    log.catalog.put(version)
    assert [number for number, count in enumerate(await score(log)) if count] == held
    await log.settle()
    assert log.status("waits")["succeeded"] == 1


async def test_versions_are_waited_for_once_and_not_by_each_chunk(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    version = other_model(log, "slow")
    await chunks_of(log, b"waits", "slow")
    log.catalog.set_state(replace(version, served=None), "trying", "a moment")
    assert await score(log) == [0, 0, 0]
    monkeypatch.setattr(chunks_module, "MODEL_WAIT_S", {"loading": 0.0, "unknown": 0.0})
    assert await score(log) == [2, 2, 2]
    await log.settle()
    assert log.status("waits")["failed"] == 6


async def test_a_chunk_whose_rows_cannot_be_read_now_is_scored_later(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await chunks_of(log, b"j", "sum", rows=1)
    (inline,) = log.written("job-chunks")
    chunk = cast(Chunk, decode_chunk(inline.value))
    referring = msgspec.structs.replace(chunk, rows=None, source=Source(0, 0, 1))
    log.records[TopicPartition(inline.topic, inline.partition)].clear()
    log.append("job-chunks", inline.partition, inline.key, encode_chunk(referring))
    log.append("job-chunks", (inline.partition + 1) % PARTITIONS, inline.key, inline.value)

    async def denied(_tp: TopicPartition, _offset: int) -> Any:
        raise TopicAuthorizationFailedError(TOPICS.name("jobs"))

    with monkeypatch.context() as away:
        away.setattr(log, "read", denied)
        assert sum(await score(log)) == 1, "another partition continues"
    assert sum(await score(log)) == 1
    await log.settle()
    assert log.status("j")["succeeded"] == 1

"""The Kafka cluster of a run (embedded or given), its topics and their records."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but re-exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from bench.errors import BenchError
from bench.requests import PARTITIONS, Requests
from inferd.daemon.broker import BrokerError, EmbeddedKafka, EmbeddedKafkaSettings

RETENTION_MS = 7 * 24 * 3_600_000
READ_RECORDS = 10_000
TIMEOUT_S = 120.0
START_TIMEOUT_S = 300.0
POLL_S = 0.05

Offsets = tuple[int, ...]
"""One offset per partition."""


class Appended(NamedTuple):
    """A record in the log; `timestamp_ms` is Unix time, the broker's if the topic uses LogAppendTime."""

    timestamp_ms: int
    value: bytes


@contextmanager
def running_broker(given: str | None, directory: Path) -> Iterator[tuple[str, str]]:
    """Bootstrap servers and description of the given broker, else of an embedded one that stops with the context."""
    if given:
        yield given, f"given: {given}"
        return
    settings = EmbeddedKafkaSettings(
        data_dir=directory / "kafka", port=0, partitions_default=PARTITIONS, start_timeout_s=START_TIMEOUT_S
    )
    try:
        with EmbeddedKafka(settings) as kafka:
            yield (
                kafka.bootstrap_servers,
                f"embedded Apache Kafka {kafka.version}, one node, heap {settings.heap_mb} MB",
            )
    except BrokerError as error:
        raise BenchError(error.message) from error


@dataclass(frozen=True, slots=True)
class Cluster:
    """Synchronous access to a Kafka cluster: topics, offsets, records."""

    bootstrap_servers: str
    description: str
    admin: AdminClient
    watcher: Consumer

    @classmethod
    def connect(cls, bootstrap_servers: str, description: str) -> Cluster:
        # Log level 2: no messages when the broker stops before the clients.
        settings: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap_servers, "log_level": 2}
        watcher = Consumer({**settings, "group.id": "bench-watcher", "enable.auto.commit": False})
        return cls(bootstrap_servers, description, AdminClient(settings), watcher)

    def close(self) -> None:
        self.watcher.close()

    def ensure_topics(self, requests: str, results: str) -> None:
        """Creates missing topics; results get LogAppendTime."""
        topics = [
            NewTopic(name, num_partitions=PARTITIONS, replication_factor=1, config={"retention.ms": str(RETENTION_MS)})
            for name in (requests, results)
        ]
        for future in self.admin.create_topics(topics).values():
            try:
                future.result(TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        entry = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
        change = ConfigResource(ResourceType.TOPIC, results, incremental_configs=[entry])
        for altered in self.admin.incremental_alter_configs([change]).values():
            altered.result(TIMEOUT_S)
        for topic in (requests, results):
            self._await_leaders(topic)

    def _await_leaders(self, topic: str) -> None:
        # A topic exists before its partitions have leaders.
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                self.ends(topic)
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise BenchError(f"{topic} has no leaders after {TIMEOUT_S:.0f} s: {error}") from error
                time.sleep(POLL_S)
            else:
                return

    def ends(self, topic: str) -> Offsets:
        """End offsets."""
        return tuple(
            self.watcher.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)[1]
            for partition in range(PARTITIONS)
        )

    def committed(self, group: str, topic: str) -> Offsets:
        """Committed offsets of a group; 0 if there is none."""
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for number in range(PARTITIONS)])
        (answer,) = self.admin.list_consumer_group_offsets([asked]).values()
        found = answer.result(TIMEOUT_S).topic_partitions
        return tuple(max(0, each.offset) for each in sorted(found, key=lambda each: each.partition))

    def commit_ends(self, group: str, topic: str) -> None:
        """Commits the end offsets for a group without members, so that it starts with new records."""
        ends = [TopicPartition(topic, number, offset) for number, offset in enumerate(self.ends(topic))]
        (answer,) = self.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, ends)]).values()
        answer.result(TIMEOUT_S)

    def append(self, topic: str, requests: Requests) -> None:
        """Appends all requests, distributed evenly over the partitions; returns once they are acknowledged."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "acks": "all", "linger.ms": 20})
        headers = list(requests.layout.headers)
        for number in range(len(requests)):
            key, value = requests.key(number), requests.encode(number)
            while True:
                try:
                    producer.produce(topic, value, key, requests.partition(number), headers=headers)
                    break
                except BufferError:
                    producer.poll(0.1)
            if number % 1_000 == 0:
                producer.poll(0)
        if left := producer.flush(TIMEOUT_S):
            raise BenchError(f"{left} of {len(requests)} requests were not acknowledged by {self.bootstrap_servers}")

    def read(self, topic: str, begin: Offsets, end: Offsets) -> Iterator[Appended]:
        """The records between two offsets of each partition, in order of arrival."""
        reader = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "bench-reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        reader.assign([TopicPartition(topic, number, offset) for number, offset in enumerate(begin)])
        # The last offsets may be transaction markers, so the reader also needs the end of the log.
        left = {number for number, offset in enumerate(begin) if offset < end[number]}
        deadline = time.monotonic() + TIMEOUT_S
        while left:
            for message in reader.consume(READ_RECORDS, timeout=1.0):
                number, offset = message.partition(), message.offset()
                if number is None or offset is None:
                    continue
                if message.error() is not None or offset >= end[number] - 1:
                    left.discard(number)
                if message.error() is None and offset < end[number]:
                    yield Appended(message.timestamp()[1], message.value() or b"")
            if time.monotonic() > deadline:
                raise BenchError(f"{topic}: partitions {sorted(left)} could not be read within {TIMEOUT_S:.0f} s")
        reader.close()


def count_between(begin: Sequence[int], end: Sequence[int]) -> int:
    """Number of offsets between two positions of a topic."""
    return sum(end) - sum(begin)

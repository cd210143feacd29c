"""The librdkafka loop: consume waiting records, predict, produce, commit delivered ones.

As a careful user of confluent-kafka would write it: the library's own predict and msgpack, one predict per batch, an
idempotent producer with acks=all and pipelined deliveries, and commits of delivered offsets only.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from bench.layouts import LAYOUTS
from bench.libraries import LIBRARIES
from bench.peers.routed import RoutedScorer
from bench.peers.task import PeerTask, collect_garbage_rarely, stop_signal, task_of_arguments

BATCH_RECORDS_MAX = 512
POLL_S = 0.1
COMMIT_INTERVAL_S = 0.5
IN_FLIGHT_MAX = 50_000


class LibrdkafkaLoop:
    """One consumer, one producer, one model."""

    def __init__(self, task: PeerTask) -> None:
        self.task, self.layout = task, LAYOUTS[task.layout]
        self.predict = LIBRARIES[task.library](task.model_path)
        self.routed = None if task.record_format is None else RoutedScorer(task, task.record_format)
        self.consumer = Consumer(
            {
                "bootstrap.servers": task.bootstrap_servers,
                "group.id": task.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "fetch.wait.max.ms": 100,
            }
        )
        self.producer = Producer(
            {
                "bootstrap.servers": task.bootstrap_servers,
                "acks": "all",
                "enable.idempotence": True,
                # Messages never expire, so the delivery of one implies that all before it are delivered.
                "message.timeout.ms": 0,
                "linger.ms": 0,
                "queue.buffering.max.messages": 2 * IN_FLIGHT_MAX,
            }
        )
        self.delivered: dict[int, int] = {}
        self.committed_at = time.monotonic()

    def run(self) -> None:
        stopping = stop_signal()
        collect_garbage_rarely()
        self.consumer.subscribe([self.task.requests])
        while not stopping.is_set():
            if records := self.take():
                self.publish(self.score(records))
            self.producer.poll(0)
            if time.monotonic() - self.committed_at >= COMMIT_INTERVAL_S:
                self.commit(asynchronous=True)
            while len(self.producer) > IN_FLIGHT_MAX:
                self.producer.poll(0.01)
        self.producer.flush()
        self.commit(asynchronous=False)
        self.consumer.close()

    def take(self) -> list[Message]:
        """All waiting records, or else the next one: a single record does not wait for others."""
        records = self.consumer.consume(BATCH_RECORDS_MAX, timeout=0)
        if not records and (first := self.consumer.poll(POLL_S)) is not None:
            records = [first, *self.consumer.consume(BATCH_RECORDS_MAX - 1, timeout=0)]
        return [record for record in records if record.error() is None]

    def score(self, records: list[Message]) -> dict[int, list[tuple[Message, bytes]]]:
        answers: dict[int, list[tuple[Message, bytes]]] = defaultdict(list)
        if self.routed is not None:
            for record, value in zip(records, self.routed.results([each.value() for each in records]), strict=True):  # type: ignore[misc]
                answers[record.partition()].append((record, value))  # type: ignore[index]
            return answers
        layout = self.layout
        requests = [layout.decode(record.value()) for record in records]
        predictions = self.predict([layout.values(request["input_data"]) for request in requests])
        for record, request, prediction in zip(records, requests, predictions, strict=True):
            result = {
                "id": request["id"],
                "model_id": request["model_id"],
                "version": self.task.version,
                "digest": self.task.digest,
                "prediction": prediction,
            }
            # A consumed record always has a partition and an offset, although the types are optional.
            answers[record.partition()].append((record, layout.encode(result)))  # type: ignore[index]
        return answers

    def publish(self, answers: dict[int, list[tuple[Message, bytes]]]) -> None:
        for partition, pairs in answers.items():
            messages: list[dict[str, object]] = [{"value": value, "key": record.key()} for record, value in pairs]
            # Deliveries of a partition are in order, so the report of the last one covers all.
            messages[-1]["callback"] = self.note_delivery(partition, pairs[-1][0].offset() + 1)  # type: ignore[operator]
            queued = self.producer.produce_batch(self.task.results, messages, partition)
            if queued != len(messages):
                raise RuntimeError(f"{len(messages) - queued} of {len(messages)} results were not queued")

    def note_delivery(self, partition: int, next_offset: int) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                raise RuntimeError(f"a result was not delivered: {error}")
            self.delivered[partition] = next_offset

        return delivered

    def commit(self, *, asynchronous: bool) -> None:
        offsets = [
            TopicPartition(self.task.requests, partition, offset) for partition, offset in self.delivered.items()
        ]
        if offsets:
            self.consumer.commit(offsets=offsets, asynchronous=asynchronous)  # type: ignore[call-overload]
        self.delivered.clear()
        self.committed_at = time.monotonic()


if __name__ == "__main__":
    LibrdkafkaLoop(task_of_arguments()).run()

"""A reader of committed records: writes the ledger as they arrive, and times the first results after a fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, Message, TopicPartition

from inferd.schemas.topics import Stream
from tests.chaos.ledger import PARTITIONS, Ledger, Place
from tests.chaos.routed import RoutedCluster
from tests.fixtures.workers import Cluster

STREAMS: Sequence[Stream] = ("requests", "results", "dead-letters")
DEAF_S = 15.0


@dataclass
class Watch:
    """For each partition, when the first result was read that was produced after a given time."""

    since: float
    """Unix seconds."""
    places: frozenset[Place]
    affected: frozenset[Place]
    """Number of requests by whose first results the duration of the fault's effect is measured."""
    first: dict[Place, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.places == self.first.keys()

    @property
    def first_result_s(self) -> float | None:
        seen = [at for place, at in self.first.items() if place in self.affected]
        return min(seen) - self.since if seen else None

    @property
    def recovered_s(self) -> float | None:
        return max(self.first.values()) - self.since if self.complete else None


class Reader:
    """Reads the topics of every tenant from their beginnings on, in a thread."""

    def __init__(self, clusters: Sequence[Cluster | RoutedCluster], ledger: Ledger) -> None:
        self.places = frozenset(Place(c.topics.tenant, n) for c in clusters for n in range(PARTITIONS))
        self._streams = {c.topics.name(stream): (stream, c.topics.tenant) for c in clusters for stream in _streams(c)}
        self._ledger = ledger
        self._watches: list[Watch] = []
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._options = {
            "group.id": "ledger", "enable.auto.commit": False, "auto.offset.reset": "earliest", "log_level": 0,
            "isolation.level": "read_committed", "bootstrap.servers": clusters[0].bootstrap,
        }  # fmt: skip
        self._next = {(topic, n): 0 for topic in self._streams for n in range(PARTITIONS)}
        self._consumer = self._listening()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        self._consumer.close()
        self.check()

    def check(self) -> None:
        """Raises the exception that ended the thread."""
        if self._failed is not None:
            raise self._failed

    def watch(self, affected: Collection[Place] | None = None) -> Watch:
        """Measures the latency of results that are produced after this call."""
        watch = Watch(time.time(), self.places, frozenset(affected or self.places))
        self._watches = [*[w for w in self._watches if not w.complete], watch]
        return watch

    def _listening(self) -> Consumer:
        """A consumer that resumes at the position of the last one."""
        consumer = Consumer(self._options)
        consumer.assign([TopicPartition(topic, n, offset) for (topic, n), offset in self._next.items()])
        return consumer

    def _run(self) -> None:
        heard_at = time.monotonic()
        try:
            while not self._stop.is_set():
                for message in self._consumer.consume(1_000, 0.05):
                    if not message.error():
                        heard_at = time.monotonic()
                        self._read(message)
                if time.monotonic() - heard_at > DEAF_S:
                    # librdkafka's consumer may receive nothing more after a broker restart, while other clients do.
                    self._consumer.close()
                    self._consumer, heard_at = self._listening(), time.monotonic()
        except BaseException as error:  # noqa: BLE001
            self._failed = error

    def _read(self, message: Message) -> None:
        stream, tenant = self._streams[str(message.topic())]
        partition, offset, key, value = message.partition(), message.offset(), message.key(), message.value()
        assert partition is not None, message.topic()
        assert offset is not None, message.topic()
        self._next[str(message.topic()), partition] = offset + 1
        assert not isinstance(key, str)
        assert not isinstance(value, str)
        place = Place(tenant, partition)
        if stream == "requests":
            self._ledger.request(key, offset)
            return
        if stream == "dead-letters":
            if not _is_of_model(message):
                self._ledger.letter(place, key, value)
            return
        self._ledger.result(place, key, value or b"")
        now, produced_at = time.time(), message.timestamp()[1] / 1000
        for watch in self._watches:
            if produced_at >= watch.since:
                watch.first.setdefault(place, now)


def _streams(cluster: Cluster | RoutedCluster) -> Sequence[Stream]:
    return cluster.streams if isinstance(cluster, RoutedCluster) else STREAMS


def _is_of_model(message: Message) -> bool:
    """Whether it is a rejected model record, which is unrelated to the load."""
    headers = dict(message.headers() or [])
    return str(headers.get("inferd-error-topic", b"")).rstrip("'").endswith(("models", "model-artifacts"))

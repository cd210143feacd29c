"""A load that never stops: requests to every partition of every tenant, and transactions some of which are aborted."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.chaos.kinds import Kind
from tests.chaos.ledger import PARTITIONS, Input, Ledger, Place
from tests.chaos.routed import RoutedCluster
from tests.fixtures.workers import Cluster

TICK_S = 0.01
TRANSACTION_ROWS, TRANSACTION_PAUSE_S = 10, 0.25
ABORTED_SHARE = 0.2
FLUSH_S = 120.0
STUCK_S = 110.0
"""Longer than any fault delays an acknowledgement."""
PRODUCER = {"message.timeout.ms": 900_000, "log_level": 0}
TRANSACTIONS = {"message.timeout.ms": 9_000, "transaction.timeout.ms": 10_000, "log_level": 0}


class Load:
    """Sends `per_second` requests, and in addition transactions, until it is stopped."""

    def __init__(
        self,
        clusters: Sequence[Cluster | RoutedCluster],
        kinds: Sequence[Kind],
        ledger: Ledger,
        per_second: int,
        seed: int,
    ) -> None:
        self.aborted_transactions = self.transactions = 0
        self._clusters, self._kinds, self._ledger, self._per_second = clusters, kinds, ledger, per_second
        self._seed = seed
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._delivered_at = time.monotonic()
        self._threads = [
            threading.Thread(target=self._guard, args=(run,), name=run.__name__, daemon=True)
            for run in (self._requests, self._transactions)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the load; every request is acknowledged, aborted or known to be uncertain then."""
        self._stop.set()
        for thread in self._threads:
            thread.join(FLUSH_S + 30)
            assert not thread.is_alive(), f"{thread.name} does not end"
        self.check()

    def check(self) -> None:
        """Raises the exception that ended one of its threads."""
        if self._failed is not None:
            raise self._failed

    def give_up(self) -> None:
        """Stops the load, whether or not it is complete."""
        self._stop.set()
        for thread in self._threads:
            thread.join(FLUSH_S + 30)

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001
            self._failed = error

    def _requests(self) -> None:
        rng, producer = random.Random(self._seed), self._clusters[0].producer(**PRODUCER)
        started, sent = time.monotonic(), 0
        while not self._stop.wait(TICK_S):
            due = int((time.monotonic() - started) * self._per_second)
            for _ in range(due - sent):
                self._send(producer, rng, "r")
            sent = due
            producer.poll(0)
            if len(producer) and time.monotonic() - self._delivered_at > STUCK_S:
                producer = self._another(producer)
        if producer.flush(FLUSH_S):
            self._another(producer)

    def _send(self, producer: Producer, rng: random.Random, prefix: str) -> bytes:
        cluster, partition = rng.choice(self._clusters), rng.randrange(PARTITIONS)
        kinds = cluster.kinds if isinstance(cluster, RoutedCluster) else self._kinds
        (kind,) = rng.choices(kinds, [kind.share for kind in kinds])
        choice = kind.choose(rng)
        key = f"{prefix}{next(self._numbers)}".encode()
        self._ledger.sent(key, Input(Place(cluster.topics.tenant, partition), kind, choice))
        request = kind.request(choice)
        options: dict[str, Any] = {"partition": partition, "headers": request.headers, "on_delivery": self.delivered}
        while True:
            try:
                producer.produce(cluster.topics.name("requests"), request.value, key, **options)
            except BufferError:
                producer.poll(0.05)
            else:
                return key

    def _another(self, stuck: Producer) -> Producer:
        """librdkafka's idempotent producer may stop permanently after a broker was frozen; the state of its queued
        records is unknown."""
        stuck.purge()
        stuck.flush(10)
        self._delivered_at = time.monotonic()
        return self._clusters[0].producer(**PRODUCER)

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        key = message.key()
        assert isinstance(key, bytes), key
        if key.startswith(b"r"):
            self._delivered_at = time.monotonic()
        if error is not None:
            self._ledger.uncertain(key)
            return
        self._ledger.acknowledged(key, message.offset())

    # ------------------------------------------------------------------ transactions

    def _transactions(self) -> None:
        rng = random.Random(self._seed + 1)
        while not self._stop.is_set():
            options = {**TRANSACTIONS, "transactional.id": f"load-{self._clusters[0].namespace}"}
            producer = self._clusters[0].producer(**options)
            try:
                self._retried(lambda: producer.init_transactions(5))  # noqa: B023
                while not self._stop.wait(TRANSACTION_PAUSE_S):
                    self._transaction(producer, rng)
            except KafkaException:
                continue  # fenced or timed out: the next producer ends the transaction of this one

    def _transaction(self, producer: Producer, rng: random.Random) -> None:
        producer.begin_transaction()
        keys: list[bytes] = []
        try:
            keys = [self._send(producer, rng, "t") for _ in range(TRANSACTION_ROWS)]
            if rng.random() < ABORTED_SHARE:
                producer.flush(10)
                self._abort(producer, keys)
                return
            self._retried(lambda: producer.commit_transaction(5))
            self.transactions += 1
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                self._abort(producer, keys)
                return
            for key in keys:
                self._ledger.uncertain(key)
            raise

    def _abort(self, producer: Producer, keys: Sequence[bytes]) -> None:
        """If the commit is rejected, an earlier attempt may have succeeded and only its response been lost."""
        try:
            self._retried(lambda: producer.abort_transaction(5))
        except KafkaException:
            for key in keys:
                self._ledger.uncertain(key)
            raise
        self._ledger.aborted(keys)
        self.aborted_transactions += 1

    def _retried(self, act: Callable[[], None]) -> None:
        while True:
            try:
                act()
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
            else:
                return

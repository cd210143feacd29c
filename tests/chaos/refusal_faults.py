"""Faults of single records: records that are too large, and records whose results the topic always rejects."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from tests.chaos.data_faults import configure
from tests.chaos.faults import fault
from tests.chaos.kinds import N_FEATURES, Kind, Request
from tests.chaos.ledger import PARTITIONS, Input, Place
from tests.chaos.system import System
from tests.fixtures.workers import until

ANSWERED_WITHIN_S = 60.0
RESULT_BYTES_MAX = "20000"
"""More than an error or one prediction has, and less than many have."""
ROWS = 3_000
_numbers = itertools.count()


@dataclass(frozen=True)
class Rejected:
    """Requests that are each answered with an error: by key, the request, the error code, and the copy in the dead
    letter."""

    requests: Mapping[int, tuple[Request, str, Request | None]]
    share: float = 0.0

    def choose(self, rng: random.Random) -> int:
        return rng.choice(sorted(self.requests))

    def request(self, choice: int) -> Request:
        return self.requests[choice][0]

    def fault(self, choice: int, answer: Mapping[str, Any]) -> str | None:
        code, expected = answer.get("error", {}).get("code"), self.requests[choice][1]
        return None if code == expected else f"{code} instead of {expected}"

    def variant(self, answer: Mapping[str, Any]) -> str:
        return str(answer.get("digest", ""))

    def letter(self, choice: int) -> Request | None:
        return self.requests[choice][2]


def _rows(count: int, *headers: tuple[str, str]) -> Request:
    body = {"id": "refused", "model_id": "demo", "input_data": [[0.5] * N_FEATURES] * count}
    return Request(bytes(msgpack.packb(body)), list(headers))


def send(system: System, kind: Kind, rng: random.Random) -> list[bytes]:
    """Sends one compressed request to every partition of every tenant; returns the keys once the broker has them."""
    keys: list[bytes] = []
    for cluster in system.clusters:
        producer = cluster.producer(**{"compression.type": "zstd", "message.max.bytes": 20_000_000, "linger.ms": 0})
        for number in range(PARTITIONS):
            key, choice = f"x{next(_numbers)}".encode(), kind.choose(rng)
            system.ledger.sent(key, Input(Place(cluster.topics.tenant, number), kind, choice))
            request, done = kind.request(choice), system.load.delivered
            options: dict[str, Any] = {"partition": number, "headers": request.headers, "on_delivery": done}
            producer.produce(cluster.topics.name("requests"), request.value, key, **options)
            keys.append(key)
            # One batch per record: records of other partitions would not compress as well.
            assert producer.flush(30) == 0
    return keys


def answered(system: System, keys: list[bytes]) -> None:
    until(lambda: all(system.ledger.inputs[key].seen for key in keys), ANSWERED_WITHIN_S, "all of them are answered")


@fault("records refused", recovers_within_s=60.0)
def poison_oversized(system: System, rng: random.Random) -> None:
    """Sends compressed records of megabytes, whose dead letters must be shortened, among the other records."""
    value, header = bytes(5_000_000), [("big", "x" * 3_500_000)]
    kind = Rejected(
        {
            0: (Request(value, []), "too_large", Request(None, [])),
            1: (Request(b"x", header), "too_large", Request(b"x", [])),  # type: ignore[arg-type]
        }
    )
    keys = send(system, kind, rng)
    system.mark()
    answered(system, keys)
    system.count("oversized records", len(keys))


@fault("records refused", recovers_within_s=90.0)
def outputs_refused(system: System, rng: random.Random) -> None:
    """Causes results that exceed their topic's limit, and replies to topics with lower limits or that do not exist."""
    large, small, gone = (
        _rows(ROWS),
        _rows(1, ("reply-to", system.reply_small)),
        _rows(1, ("reply-to", system.reply_gone)),
    )
    configure(system, "results", "max.message.bytes", RESULT_BYTES_MAX)
    try:
        system.run_on(1)  # the topics do not start to reject at the same time
        answered(system, send(system, Rejected({0: (large, "too_large", large), 1: (small, "too_large", small)}), rng))
    finally:
        configure(system, "results", "max.message.bytes", None)
    admin = system.admin
    admin.delete_topics([system.reply_gone])[system.reply_gone].result(30)
    until(lambda: system.reply_gone not in system.admin.list_topics(timeout=10).topics, 30, "the topic is gone")
    try:
        answered(system, send(system, Rejected({0: (gone, "reply_to_refused", None)}), rng))
    finally:
        admin.create_topics([NewTopic(system.reply_gone, 1, 1)])[system.reply_gone].result(30)
        system.mark()
    system.count("answers refused", 2 * PARTITIONS * len(system.clusters))

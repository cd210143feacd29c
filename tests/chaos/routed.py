"""A route under chaos: somebody else's topic in JSON, scored by a route into another topic of theirs."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from inferd.schemas.routes import Format, Route, Sink, Source, encode_route
from inferd.schemas.topics import Stream
from tests.chaos.kinds import N_FEATURES, N_ROWS, Kind, Request
from tests.chaos.ledger import PARTITIONS
from tests.fixtures.workers import Cluster, TrainedModel

TENANT = "routed"
"""Stands for the route in places of the ledger."""
ROUTE = "orders"


class RoutedTopics:
    """The source and the sink of a route, by the names that the load and the reader use for streams of a tenant."""

    tenant = TENANT

    def __init__(self, namespace: str) -> None:
        self._names: Mapping[str, str] = {"requests": f"{namespace}-x.orders", "results": f"{namespace}-x.scored"}

    def name(self, stream: Stream) -> str:
        return self._names[stream]


class RoutedCluster:
    """The topics of a route, and its load."""

    streams: Sequence[Stream] = ("requests", "results")

    def __init__(self, cluster: Cluster, models: Sequence[TrainedModel]) -> None:
        self._cluster = cluster
        self.namespace, self.bootstrap = cluster.namespace, cluster.bootstrap
        self.topics = RoutedTopics(cluster.namespace)
        rows = np.random.default_rng(9).normal(size=(N_ROWS, N_FEATURES))
        expected = [model.booster.predict(rows).tolist() for model in models]
        self.kinds: Sequence[Kind] = [RoutedRows(rows.tolist(), expected), InvalidRows()]

    def producer(self, **options: Any) -> Producer:
        return self._cluster.producer(**options)

    def create(self, admin: AdminClient) -> None:
        """The topics, and the route over them."""
        names = [self.topics.name(stream) for stream in self.streams]
        for created in admin.create_topics([NewTopic(name, PARTITIONS, -1) for name in names]).values():
            created.result(30)
        source, sink = names
        features = {f"Column_{place}": f"row[{place}]" for place in range(1, N_FEATURES)}
        route = Route(
            ROUTE, Source([source], Format("json"), {source: [0] * PARTITIONS}), "demo", Sink(sink, field="score"),
            features | {"Column_0": "first"}, on_error="sink", created_at="2026-01-01T00:00:00",
        )  # fmt: skip
        producer = self._cluster.producer()
        producer.produce(self._cluster.topics.name("routes"), encode_route(route), ROUTE.encode())
        assert producer.flush(30) == 0

    @property
    def settings(self) -> Mapping[str, str]:
        """Settings of workers that may process the route."""
        pattern = f"default={self.namespace}-x.*"
        return {"routes_sources": pattern, "routes_sinks": pattern}


@dataclass(frozen=True)
class RoutedRows:
    """Records with a row: expects the same record with a prediction of one of the versions."""

    rows: Sequence[Sequence[float]]
    expected: Sequence[Sequence[float]]
    share: float = 0.95

    def choose(self, rng: random.Random) -> int:
        return rng.randrange(len(self.rows))

    def request(self, choice: int) -> Request:
        row = self.rows[choice]
        return Request(json.dumps({"n": choice, "first": row[0], "row": row}).encode(), [("kept", b"x")])

    def fault(self, choice: int, answer: Mapping[str, Any]) -> str | None:
        score = answer.get("score", {})
        if answer.get("n") != choice:
            return f"the record {answer.get('n')} instead of {choice}"
        right = [predictions[choice] for predictions in self.expected]
        return None if score.get("prediction") in right else f"{score} instead of one of {right}"

    def variant(self, answer: Mapping[str, Any]) -> str:
        return str(answer.get("score", {}).get("version"))

    def letter(self, choice: int) -> Request | None:
        return None


class InvalidRows:
    """Records with text for a number: expects the record with an error in its field."""

    share = 0.05

    def choose(self, rng: random.Random) -> int:
        return rng.randrange(N_ROWS)

    def request(self, choice: int) -> Request:
        return Request(json.dumps({"n": choice, "first": "text", "row": [0.0] * N_FEATURES}).encode(), [])

    def fault(self, choice: int, answer: Mapping[str, Any]) -> str | None:
        code = answer.get("score", {}).get("error", {}).get("code")
        return None if (answer.get("n"), code) == (choice, "invalid_value") else f"{answer} instead of an error"

    def variant(self, answer: Mapping[str, Any]) -> str:
        return str(answer.get("score", {}).get("version"))

    def letter(self, choice: int) -> Request | None:
        return None

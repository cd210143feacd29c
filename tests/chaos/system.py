"""The system under test: a broker, its proxy, workers, a load, and the ledger of it all."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from inferd.schemas.models.model import CacheSpec
from tests.chaos.broker import ClusterKafka, Kafka, ProxiedKafka
from tests.chaos.fleet import Fleet, FleetSettings, status
from tests.chaos.jobs import Jobs
from tests.chaos.kinds import ROLLED, Kind, trained, usual_kinds
from tests.chaos.ledger import PARTITIONS, Ledger, Place
from tests.chaos.load import Load
from tests.chaos.proxy import Proxy
from tests.chaos.reader import Reader, Watch
from tests.chaos.routed import RoutedCluster
from tests.fixtures.workers import PATIENCE, Cluster, TrainedModel, until

TENANTS = ("default", "acme")
MODEL_SEEDS = (1, 2)
SETTLED_WITHIN_S = 90.0
QUIET_S = 1.5
ENDED_MAX = 20
"""Number of unexpected exits of workers after which no more are started."""


CACHE = CacheSpec(ttl_s=60, max_entries=100)


@dataclass(frozen=True)
class Experiment:
    """The options of an experiment; its random choices depend only on `seed`."""

    guarantee: str
    seed: int
    name: str
    slots: int = 2
    per_second: int = 1_000
    brief: bool = False
    """Whether faults use their shorter durations."""
    lengthy: bool = False
    """Whether faults of half a minute and more are drawn."""
    routed: bool = False
    """Whether a route over topics of others is part of the system."""
    cached: bool = False
    """Whether the model of most requests has a prediction cache, too small for all of their rows."""
    bug: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the workers by name."""


class System:
    """Runs in its own namespace, on a broker that may be shared."""

    def __init__(self, kafka: Kafka, experiment: Experiment, directory: Path) -> None:
        self.kafka, self.experiment = kafka, experiment
        self.directory = directory
        self.namespace = f"{experiment.name}-{experiment.guarantee.replace('_', '-')}-{experiment.seed}"
        self.clusters = [Cluster(kafka.bootstrap_servers, self.namespace, tenant) for tenant in TENANTS]
        if experiment.cached:
            for cluster in self.clusters:
                cluster.caches["demo"] = CACHE
        self.models: list[TrainedModel] = [trained(seed) for seed in MODEL_SEEDS]
        self.kinds: list[Kind] = usual_kinds(self.models)
        self.jobs = Jobs(self.clusters, self.models[0])
        self.routed = RoutedCluster(self.clusters[0], self.models) if experiment.routed else None
        self.oldest_version = self.versions = 1
        """Of the model `demo`: the first that is left, and the last that was given."""
        self.ledger = Ledger()
        self.watches: list[Watch] = []
        self.totals: dict[str, int] = {}
        """Counts of other actions: restarts of the broker, lost replies, …"""
        self.reply_small, self.reply_gone = f"{self.namespace}.replies-small", f"{self.namespace}.replies-gone"
        """Topics for replies: one rejects all of them, the other is deleted at times."""
        self.fleet = Fleet(
            FleetSettings(
                kafka.bootstraps, self.namespace, directory, experiment.slots,
                experiment.bug,
                {
                    "processing_guarantee": experiment.guarantee, "tenants": ",".join(TENANTS),
                    "topic_replication": min(3, len(kafka.nodes)) if isinstance(kafka, ClusterKafka) else 1,
                    "reply_to_allowed": f"{self.reply_small},{self.reply_gone}", **experiment.settings,
                    **({} if self.routed is None else self.routed.settings),
                },
            )
        )  # fmt: skip
        self._generation = 0
        self.load: Load
        self.reader: Reader

    @property
    def proxy(self) -> Proxy:
        """Between workers and the only broker."""
        assert isinstance(self.kafka, ProxiedKafka), "a cluster has a network of its own"
        return self.kafka.proxy

    @property
    def admin(self) -> AdminClient:
        """A new client for each request: after a broker was killed, an existing librdkafka client may wait forever."""
        return AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0})

    @property
    def brief(self) -> bool:
        return self.experiment.brief

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Topics, models, workers that are ready, and a load that runs."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.kafka.running:
            self.kafka.start()
        for cluster in self.clusters:
            cluster.create_topics(PARTITIONS)
            for name in ("demo", "side", ROLLED):
                cluster.deploy(self.models[0], name)
        self.jobs.deploy()
        tiny = NewTopic(self.reply_small, 1, -1, config={"max.message.bytes": "100"})
        admin = self.admin
        for created in admin.create_topics([tiny, NewTopic(self.reply_gone, 1, -1)]).values():
            created.result(30)
        everything: list[Cluster | RoutedCluster] = [*self.clusters]
        if self.routed is not None:
            self.routed.create(self.admin)
            everything.append(self.routed)
        self.fleet.start_all()
        self.reader = Reader(everything, self.ledger)
        self.reader.start()
        self.load = Load(everything, self.kinds, self.ledger, self.experiment.per_second, self.experiment.seed)
        self.load.start()
        self.recover(self.mark(), SETTLED_WITHIN_S)

    def check(self) -> None:
        """Raises the exception that ended the load or the reader: without them a fault reveals nothing."""
        self.load.check()
        self.reader.check()

    def settle(self, within_s: float = SETTLED_WITHIN_S) -> None:
        """Stops the load and waits until everything is answered, or no more answers arrive; reads the results of
        jobs."""
        self.load.stop()
        deadline = time.monotonic() + within_s * PATIENCE
        while self.ledger.missing() and time.monotonic() < deadline:
            self.fleet.supervise()
            time.sleep(0.2)
        time.sleep(QUIET_S)  # also reads records that must not arrive
        self.rebalances()
        peaks = [status(worker).get("memory", {}).get("peak_bytes", 0) for worker in self.fleet.slots]
        self.count("peak resident MB of a worker", max(peaks) // 1_000_000)
        self.fleet.stop_all()
        self.jobs.read()

    def close(self) -> None:
        """Ends all processes that still run."""
        self.kafka.network.heal()
        if not self.kafka.running:
            self.kafka.start()
        if hasattr(self, "load"):
            self.load.give_up()
        if hasattr(self, "reader"):
            self.reader.stop()
        for worker in self.fleet.slots:
            if worker.process.poll() is None:
                worker.kill()

    # ------------------------------------------------------------------ what faults use

    def mark(self, affected: Collection[Place] | None = None) -> Watch:
        """From this moment on the time to the next results is measured."""
        self.watches.append(self.reader.watch(affected))
        return self.watches[-1]

    def recover(self, watch: Watch, within_s: float) -> None:
        """Waits until results come from every partition and every worker is ready."""

        def recovered() -> bool:
            self.fleet.supervise()
            assert len(self.fleet.unexpected) < ENDED_MAX, f"workers end by themselves: {self.fleet.unexpected[-1]}"
            return watch.complete and self.fleet.ready()

        def said() -> str:
            waiting = sorted(f"{p.tenant}/{p.partition}" for p in watch.places - watch.first.keys())
            unready = [f"{w.name}: {status(w).get('unready', 'silent')}" for w in self.fleet.slots]
            return f"no results of {waiting}; {unready}"

        deadline = time.monotonic() + within_s * PATIENCE
        while not recovered():
            assert time.monotonic() < deadline, f"not recovered within {within_s * PATIENCE:g} s: {said()}"
            time.sleep(0.1)

    def run_on(self, seconds: float) -> None:
        """Lets the system run for this time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))

    def count(self, what: str, times: int = 1) -> None:
        self.totals[what] = self.totals.get(what, 0) + times

    def rebalances(self) -> int:
        """Generations that the group went through."""
        generations = [self._generation, *(status(w).get("generation") or 0 for w in self.fleet.slots)]
        self._generation = max(generations)
        return self._generation

    def topics(self, stream: str) -> list[str]:
        return [cluster.topics.name(stream) for cluster in self.clusters]  # type: ignore[arg-type]

    def committed(self) -> dict[Place, int]:
        """The group's committed offsets."""
        asked = [TopicPartition(topic, n) for topic in self.topics("requests") for n in range(PARTITIONS)]
        request = ConsumerGroupTopicPartitions(self.namespace, asked)
        admin = self.admin
        # Records of an open transaction do not count; with read_committed the broker would not report them.
        (answer,) = admin.list_consumer_group_offsets([request], require_stable=False).values()
        return {Place(tp.topic.split(".")[1], tp.partition): tp.offset for tp in answer.result(20).topic_partitions}

    def fault_said(self, words: Sequence[str], within_s: float) -> None:
        """Waits until some worker's `/status` names a fault with one of `words`."""

        def said() -> bool:
            errors = [str(status(worker).get("last_error") or "").lower() for worker in self.fleet.slots]
            return any(word in error for error in errors for word in words)

        until(said, within_s, f"/status says why ({' or '.join(words)})")

    @contextmanager
    def broker_absent(self, *, kill: bool) -> Iterator[None]:
        """No broker in this block; a new one, with the same data, after it."""
        before = until(self._committed_if_known, 60, "the broker knows the committed offsets")
        if kill:
            self.kafka.kill()
        else:
            self.kafka.stop()
        try:
            yield
        finally:
            self.kafka.start()
            self.count("broker restarts")
        now = until(self._committed_if_known, 60, "the broker knows the committed offsets")
        older = {place: f"{offset} before, {now[place]} now" for place, offset in before.items() if now[place] < offset}
        # No worker can prevent these: check this first if results were repeated.
        assert not older, f"Kafka itself came back with older committed offsets: {older}"

    def _committed_if_known(self) -> dict[Place, int] | None:
        # Not with an `AdminClient`, which may abort the process if the broker was started just before.
        client = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": self.namespace,
                "isolation.level": "read_uncommitted",
                "log_level": 0,
            }
        )
        try:
            asked = [TopicPartition(topic, n) for topic in self.topics("requests") for n in range(PARTITIONS)]
            committed = client.committed(asked, timeout=5)
        except KafkaException:
            return None
        finally:
            client.close()
        return {Place(tp.topic.split(".")[1], tp.partition): tp.offset for tp in committed}

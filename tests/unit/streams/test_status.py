"""The snapshot of the streams: reasons for unreadiness, and consistency of its figures."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import QuotaExceededError
from inferd.schemas.models.model import Alias, SplitShare
from inferd.schemas.models.pause import Pause, PauseKey
from inferd.streams.inference.cache.cache import CacheSnapshot
from inferd.streams.inference.catalog import ModelCatalog, Version
from inferd.streams.jobs.state.state import Usage
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.partition import Partition
from inferd.streams.models.pauses import Pauses
from inferd.streams.requests.quota import Quota
from inferd.streams.status import UNREACHABLE_S, fault_of, take_snapshot
from inferd.streams.telemetry.counters import ChunkCounters, JobCounters, Tally, TenantCounters
from inferd.streams.telemetry.measure import STEPS, LaneMeasures, LatencyHistogram
from inferd.streams.telemetry.snapshot import (
    AliasSnapshot,
    ModelMemorySnapshot,
    PauseSnapshot,
    Phase,
    RolloutsSnapshot,
    StreamsSnapshot,
)
from tests.fixtures.lane import request, running, sum_model, tp

NO_MODEL = "no model is ready; deploy one with `inferd models deploy`"


def ready(version: int = 1) -> Version:
    model = sum_model(version)
    return Version(model.manifest, "ready", None, model)


def failed(version: int = 1, former: Version | None = None) -> Version:
    return Version(sum_model(version).manifest, "failed", "it is bad", former.served if former else None)


@dataclass
class Lane:
    """The attributes of a lane that a snapshot reads."""

    partitions: dict[TopicPartition, Partition] = field(default_factory=dict)
    fault: str | None = None
    restoring: int | None = None
    restored_records: int = 0
    counters: TenantCounters = field(default_factory=lambda: TenantCounters("default", requests_in=7))

    def is_lifecycle(self, topic: str) -> bool:
        return topic.endswith(".model-stats")

    def tenant_of(self, topic: str) -> str:
        return "default"

    def tenant_snapshots(self) -> tuple[Any, ...]:
        return (self.counters.snapshot(sum(partition.pending for partition in self.partitions.values())),)


class FakeStreams:
    """Streams that are all right: a partition, a model, a broker that has just answered."""

    def __init__(self) -> None:
        self.settings: Any = SimpleNamespace(
            connection=KafkaConnection("kafka.test:9092"), models=SimpleNamespace(bytes_max=500)
        )
        self.measures = LaneMeasures()
        self.route_measures = LaneMeasures()
        self.routes = None
        self.shadows = None
        self.catalog = ModelCatalog()
        self.catalog.put(ready())
        self.lane: Lane | None = Lane({tp(0): running(tp(0), 100)})
        on_demand = SimpleNamespace(snapshot=ModelMemorySnapshot, waits=LatencyHistogram())
        self.follower: Any = SimpleNamespace(
            on_demand=on_demand,
            catalogs={"default": self.catalog, "other": ModelCatalog()},
            pauses={"default": Pauses()},
            reachable_at=time.monotonic(),
            fault=None,
        )
        self.tenants: dict[str, Any] = {}
        self.generation, self.rebalances = 5, 2
        self.ends: dict[TopicPartition, int] = {}
        self.problems: list[str] = []
        self.admission = SimpleNamespace(waits={}, fault=None)

    def highwater(self, tp: TopicPartition) -> int | None:
        return self.ends.get(tp)

    def snapshot(self, phase: Phase = "running") -> StreamsSnapshot:
        return take_snapshot(self, phase, 1.5)  # type: ignore[arg-type]

    def topic_problems(self) -> list[str]:
        return self.problems

    def unready(self) -> tuple[str, ...]:
        return self.snapshot().unready


@pytest.fixture
def streams() -> FakeStreams:
    return FakeStreams()


# Readiness


def test_streams_that_are_all_right_are_ready(streams: FakeStreams) -> None:
    assert streams.unready() == ()
    assert streams.snapshot().last_error is None


@pytest.mark.parametrize("phase", ["starting", "rebalancing", "recovering", "draining", "stopped"])
def test_only_streams_that_run_are_ready(streams: FakeStreams, phase: Phase) -> None:
    assert streams.snapshot(phase).unready == (f"the streams are {phase}",)


def test_a_worker_without_partitions_is_not_ready(streams: FakeStreams) -> None:
    streams.lane = Lane()
    assert streams.unready() == ("no partitions are assigned to this worker",)


def test_a_waiting_lane_is_not_ready_and_has_a_reason(streams: FakeStreams) -> None:
    assert streams.lane is not None
    streams.lane.fault = "results cannot be published: KafkaConnectionError"
    assert streams.unready() == (streams.lane.fault,)
    assert streams.snapshot().last_error == streams.lane.fault


def test_before_models_are_followed_the_memory_budget_is_the_configured_one(streams: FakeStreams) -> None:
    streams.follower = None
    assert streams.snapshot().model_memory == ModelMemorySnapshot(bytes=0, bytes_max=500)
    streams.settings.models.bytes_max = 0
    assert streams.snapshot().model_memory == ModelMemorySnapshot()


def test_a_broker_that_is_silent_makes_unready(streams: FakeStreams) -> None:
    streams.follower.reachable_at -= UNREACHABLE_S - 1
    assert streams.unready() == ()
    streams.follower.reachable_at -= 10
    assert streams.unready() == ("the broker has not answered for 15 s",)
    assert streams.snapshot().last_error == streams.unready()[0]
    streams.follower.reachable_at = None
    assert streams.unready() == (), "before the first response, the time counts from the start"


def test_no_model_makes_unready(streams: FakeStreams) -> None:
    streams.catalog.remove("sum", 1)
    assert streams.unready() == (NO_MODEL,)
    streams.catalog.put(failed(2))
    assert streams.unready() == (NO_MODEL,)
    streams.follower.catalogs["other"].put(ready(3))
    assert streams.unready() == (), "a model of any tenant"


def test_a_model_that_serves_while_its_successor_failed_is_a_model(streams: FakeStreams) -> None:
    streams.catalog.put(failed(1, former=ready(1)))
    assert streams.unready() == ()
    (model,) = streams.snapshot().models
    assert (model.state, model.reason) == ("failed", "it is bad")


def test_deploys_that_have_to_wait_do_not_make_unready(streams: FakeStreams) -> None:
    streams.follower.fault = "models cannot be stored in /data: No space left on device"
    assert streams.unready() == ()
    assert streams.snapshot().last_error == streams.follower.fault
    assert fault_of(streams) is None  # type: ignore[arg-type]


def test_every_reason_is_reported(streams: FakeStreams) -> None:
    assert streams.lane is not None
    streams.catalog.remove("sum", 1)
    streams.lane.fault = "a fault"
    assert streams.snapshot("rebalancing").unready == ("the streams are rebalancing", "a fault", NO_MODEL)


def test_before_the_start_the_snapshot_is_empty(streams: FakeStreams) -> None:
    streams.lane = streams.follower = None
    snapshot = streams.snapshot("starting")
    assert snapshot.unready == ("the streams are starting", NO_MODEL)
    assert (snapshot.partitions, snapshot.tenants, snapshot.models, snapshot.queued_bytes) == ((), (), (), 0)


# Figures


def test_counts_of_a_partition(streams: FakeStreams) -> None:
    assert streams.lane is not None
    partition = streams.lane.partitions[tp(0)]
    partition.offer([request(n) for n in range(100, 110)])
    partition.take(4, 10**6)
    streams.ends[tp(0)] = 150
    (shown,) = streams.snapshot().partitions
    assert (shown.topic, shown.partition) == (tp(0).topic, 0)
    assert (shown.position, shown.committed, shown.end, shown.lag) == (104, 100, 150, 50)
    assert (shown.queued, shown.in_flight) == (6, 4)
    assert streams.snapshot().queued_bytes == partition.queued_bytes > 0


def test_a_lag_is_never_negative_and_may_be_unknown(streams: FakeStreams) -> None:
    streams.ends[tp(0)] = 40
    assert streams.snapshot().partitions[0].lag == 0
    streams.ends.clear()
    (shown,) = streams.snapshot().partitions
    assert (shown.end, shown.lag) == (None, None)


def test_sums_over_partitions_and_measures_of_the_lane(streams: FakeStreams) -> None:
    assert streams.lane is not None
    for number in range(3):
        streams.lane.partitions[tp(number)] = partition = running(tp(number))
        partition.offer([request(n, number) for n in range(number + 1)])
        partition.start_publishing(OutputBatch(0, 0, [], Tally(bytes_out=10 * number)))
    measures = streams.measures
    measures.batches, measures.batch_rows_last, measures.commits, measures.commit_failures = 4, 5, 6, 7
    measures.queue.observe(0.1)
    measures.infer.observe(0.2)
    measures.end_to_end.observe(0.3)
    snapshot = streams.snapshot()
    assert snapshot.in_flight_bytes == 30
    assert snapshot.queued_bytes == sum(p.queued_bytes for p in streams.lane.partitions.values())
    assert (snapshot.batches, snapshot.batch_rows_last, snapshot.commits, snapshot.commit_failures) == (4, 5, 6, 7)
    assert (snapshot.queue.total_s, snapshot.infer.total_s, snapshot.end_to_end.total_s) == (0.1, 0.2, 0.3)
    assert (snapshot.phase, snapshot.phase_for_s, snapshot.generation, snapshot.rebalances) == ("running", 1.5, 5, 2)
    (tenant,) = snapshot.tenants
    assert (tenant.requests_in, tenant.pending) == (7, 6)


def test_models_with_their_aliases_and_counters(streams: FakeStreams) -> None:
    streams.catalog.put(failed(2))
    streams.catalog.put_alias("sum", "champion", Alias(1))
    streams.catalog.put_alias("sum", "canary", Alias(split=[SplitShare(1, 9.0), SplitShare(2, 1.0)]))
    streams.follower.catalogs["other"].put(ready(1))
    streams.measures.count_models("default", {("sum", 1): (3, 30)})
    streams.measures.count_prediction("default", sum_model(1).manifest, 0.5)
    models = streams.snapshot().models
    assert [(m.tenant, m.model_id, m.version, m.state, m.reason, m.aliases) for m in models] == [
        ("default", "sum", 1, "ready", None, ("canary (90 %)", "champion")),
        ("default", "sum", 2, "failed", "it is bad", ("canary (10 %)",)),
        ("other", "sum", 1, "ready", None, ()),
    ]
    assert [(m.requests, m.rows, m.predict_s) for m in models] == [(3, 30, 0.5), (0, 0, 0.0), (0, 0, 0.0)]
    assert models[0].digest == sum_model(1).manifest.sha256


def test_aliases_have_their_target_and_revision(streams: FakeStreams) -> None:
    streams.catalog.put_alias("sum", "next", Alias(split=[SplitShare(1, 9.0), SplitShare(7, 1.0)], shadow=[2]))
    streams.catalog.put_alias("sum", "champion", Alias(1, revision=3, changed_at="today", changed_by="ana"))
    assert streams.snapshot().aliases == (
        AliasSnapshot("default", "sum", "champion", "1", 3, "today", "ana"),
        AliasSnapshot("default", "sum", "next", "1 (90 %), 7 (10 %), 2 (shadow)", 0),
    )


def test_aliases_that_lead_nowhere_are_named(streams: FakeStreams) -> None:
    streams.catalog.put_alias("sum", "champion", Alias(1))
    streams.catalog.put_alias("sum", "next", Alias(split=[SplitShare(1, 1.0), SplitShare(7, 1.0)]))
    streams.follower.catalogs["other"].put_alias("gone", "champion", Alias(3))
    assert [(a.tenant, a.model_id, a.alias, a.missing) for a in streams.snapshot().dangling_aliases] == [
        ("default", "sum", "next", (7,)),
        ("other", "gone", "champion", (3,)),
    ]


# Cache, jobs, restoring


def usage(**changes: Any) -> CacheSnapshot:
    values = dict.fromkeys(("misses", "fills", "evictions", "expirations", "entries", "n_bytes"), 0)
    times = {"lookup_s": 0.25, "fill_s": 0.25}
    names = {"tenant": "default", "model_id": "sum", "version": 1}
    return CacheSnapshot(**{**names, "hits": 3_000, "hit_ratio": None, **values, **times, **changes})


def tenant_parts(*usages: CacheSnapshot, **jobs: Any) -> Any:
    cache = SimpleNamespace(usage=lambda: list(usages))
    parts = {
        "owned": SimpleNamespace(counters=JobCounters(), in_use=Usage()),
        "processors": (),
        "chunks": SimpleNamespace(scored=ChunkCounters()),
    }
    return SimpleNamespace(
        requests=SimpleNamespace(quota=Quota(), predictions=SimpleNamespace(cache=cache)),
        jobs=SimpleNamespace(**parts | jobs),
        rollouts=SimpleNamespace(owned=SimpleNamespace(snapshot=lambda: RolloutsSnapshot("default"))),
        lifecycle=SimpleNamespace(drift=SimpleNamespace(snapshot=tuple)),
        capture=None,
        labels=None,
    )


def test_quotas_of_tenants_that_have_one(streams: FakeStreams) -> None:
    streams.tenants |= {"default": tenant_parts(), "acme": tenant_parts()}
    quota = streams.tenants["acme"].requests.quota = Quota(requests_per_s=1)
    quota.share_of_worker = lambda: 0.5
    quota.check(10)
    with pytest.raises(QuotaExceededError, match=r"\(1 requests a second, of which this worker has 50%\)"):
        quota.check(10)
    (found,) = streams.snapshot().quotas
    assert (found.tenant, found.requests_per_s, found.bytes_per_s, found.share) == ("acme", 1, 0, 0.5)
    assert (found.delayed, found.refused) == (0, 1)


@pytest.mark.parametrize(
    ("predict_s", "saved_s", "pays"), [(1.0, 1.0, True), (0.2, -0.2, False)], ids=["dear model", "cheap model"]
)
def test_a_cache_pays_if_hits_save_more_time_than_lookups_take(
    streams: FakeStreams, predict_s: float, saved_s: float, pays: bool
) -> None:
    streams.tenants["default"] = tenant_parts(usage(misses=1_000, entries=5, n_bytes=500))
    streams.measures.count_prediction("default", sum_model(1).manifest, predict_s, 2_000)
    (cache,) = streams.snapshot().cache
    assert (cache.tenant, cache.model_id, cache.version, cache.entries, cache.n_bytes) == ("default", "sum", 1, 5, 500)
    assert cache.saved_s == pytest.approx(saved_s)
    assert cache.pays is pays


@pytest.mark.parametrize(("looked_up", "scored"), [(999, 5_000), (5_000, 999)])
def test_too_few_rows_do_not_judge_a_cache(streams: FakeStreams, looked_up: int, scored: int) -> None:
    streams.tenants["default"] = tenant_parts(usage(hits=looked_up))
    streams.measures.count_prediction("default", sum_model(1).manifest, 1.0, scored)
    (cache,) = streams.snapshot().cache
    assert (cache.saved_s, cache.pays) == (None, None)


def test_jobs_are_reported_by_tenant(streams: FakeStreams) -> None:
    owned = SimpleNamespace(counters=JobCounters(50, 20, 10, Counter(completed=2)), in_use=Usage(3, 400, 9_000))
    messages, chunks = TenantCounters("default"), TenantCounters("default")
    messages.errors.update(job_closed=2, malformed=1)
    chunks.errors.update(malformed=4)
    processors = [SimpleNamespace(counters=messages), SimpleNamespace(counters=chunks)]
    streams.tenants["default"] = tenant_parts(
        owned=owned, processors=processors, chunks=SimpleNamespace(scored=ChunkCounters(7, 700, 1.5))
    )
    (jobs,) = streams.snapshot().jobs
    assert (jobs.tenant, jobs.open, jobs.open_rows) == ("default", 3, 400)
    assert (jobs.rows_in, jobs.rows_succeeded, jobs.rows_failed, jobs.ended) == (50, 20, 10, {"completed": 2})
    assert jobs.refused == {"job_closed": 2, "malformed": 5}
    assert (jobs.chunks, jobs.chunk_rows, jobs.chunk_s) == (7, 700, 1.5)


def test_rollouts_are_reported_by_their_owner(streams: FakeStreams) -> None:
    assert streams.snapshot().rollouts == ()
    streams.tenants["default"] = tenant_parts()
    assert streams.snapshot().rollouts == (RolloutsSnapshot("default"),)
    streams.tenants["default"].rollouts.owned.snapshot = lambda: None
    assert streams.snapshot().rollouts == ()


def test_a_restore_is_reported_with_its_remaining_records(streams: FakeStreams) -> None:
    assert isinstance(streams.lane, Lane)
    streams.lane.restoring, streams.lane.restored_records = 1_234, 99
    snapshot = streams.snapshot("recovering")
    assert (snapshot.restoring, snapshot.restored_records) == (1_234, 99)


def test_every_step_is_in_the_snapshot(streams: FakeStreams) -> None:
    streams.measures.observe_step("retrieve", 0.25)
    steps = streams.snapshot().steps
    assert tuple(steps) == STEPS
    assert {step: histogram.total_s for step, histogram in steps.items() if histogram.total_s} == {"retrieve": 0.25}


def test_acknowledged_but_uncommitted_records_are_lag(streams: FakeStreams) -> None:
    assert streams.lane is not None
    partition = streams.lane.partitions[tp(0)]
    streams.ends[tp(0)] = 102
    partition.offer([request(100)])
    partition.take(1, 10**6)
    partition.start_publishing(OutputBatch(101, 1, [])).published()
    partition.complete_batches(lambda _: None)
    assert partition.acked == 101
    assert streams.snapshot().partitions[0].lag == 2


def test_what_is_paused_is_named() -> None:
    streams = FakeStreams()
    streams.follower.pauses["default"].apply(PauseKey("model", "churn"), Pause(at=7, by="ana"), 8)
    assert streams.snapshot().pauses == (PauseSnapshot("default", "model", "churn", 7, "ana"),)

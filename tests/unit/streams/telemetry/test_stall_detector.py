"""The watchdog of the streams, and their stop: which conditions end the process, and with which exit code."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inferd.schemas.connection import KafkaConnection
from inferd.streams import admission as admission_module
from inferd.streams import app as app_module
from inferd.streams import composition
from inferd.streams.app import EXIT_FAILED, EXIT_STALLED, Streams
from inferd.streams.http_requests import HttpRequests
from inferd.streams.inference.catalog import ModelCatalog
from inferd.streams.kafka.destinations import Destinations
from inferd.streams.kafka.rights import Right
from inferd.streams.kafka.topic_checks import TopicState
from inferd.streams.kafka.topic_watch import TopicWatch
from inferd.streams.models.pauses import Pauses
from inferd.streams.settings import GroupSettings, StreamSettings
from inferd.streams.telemetry import LatencyHistogram, ModelMemorySnapshot
from inferd.streams.telemetry.snapshot import Phase
from inferd.streams.telemetry.stall_detector import StallDetector

# Conditions that count as a stall


@dataclass
class Watched:
    """A watch of 10 s, and its clock."""

    now: float = 1_000.0
    watch: StallDetector = field(init=False)

    def __post_init__(self) -> None:
        self.watch = StallDetector(10.0, lambda: self.now)

    def after(
        self,
        seconds: float,
        phase: Phase = "running",
        progress: int = 0,
        *,
        busy: bool = True,
        fault: str | None = None,
    ) -> str | None:
        self.now += seconds
        return self.watch.check(phase, progress, busy=busy, fault=fault)


@pytest.mark.parametrize("phase", ["starting", "rebalancing", "recovering", "running"])
def test_no_progress_for_too_long_is_a_stall(phase: Phase) -> None:
    watched = Watched()
    assert watched.after(0, phase) is None
    assert watched.after(10, phase) is None
    assert watched.after(2.4, phase) == f"{phase} without progress for 12 s"


@pytest.mark.parametrize("phase", ["starting", "rebalancing", "recovering", "running"])
def test_progress_is_not_a_stall(phase: Phase) -> None:
    watched = Watched()
    assert [watched.after(6, phase, progress) for progress in range(5)] == [None] * 5
    assert watched.after(6, phase, 4) is None
    assert watched.after(6, phase, 4) is not None, "the time since the last progress counts"


def test_an_idle_lane_is_not_a_stall() -> None:
    watched = Watched()
    assert [watched.after(6, busy=False) for _ in range(5)] == [None] * 5
    assert watched.after(6, busy=True) is None
    assert watched.after(6, busy=True) is not None


@pytest.mark.parametrize("phase", ["starting", "rebalancing", "recovering"])
def test_having_no_work_excuses_only_a_lane_that_runs(phase: Phase) -> None:
    watched = Watched()
    watched.after(0, phase, busy=False)
    assert watched.after(11, phase, busy=False) is not None


@pytest.mark.parametrize("phase", ["starting", "rebalancing", "recovering", "running"])
def test_a_known_fault_is_not_a_stall(phase: Phase) -> None:
    watched = Watched()
    assert [watched.after(6, phase, fault="the broker is down") for _ in range(5)] == [None] * 5
    assert watched.after(6, phase) is None
    assert watched.after(6, phase) is not None, "no progress afterwards is a stall"


@pytest.mark.parametrize("phase", ["draining", "stopped"])
def test_a_stop_has_its_own_deadline(phase: Phase) -> None:
    watched = Watched()
    assert [watched.after(60, phase) for _ in range(3)] == [None] * 3


def test_alternating_phases_are_not_progress() -> None:
    watched = Watched()
    phases: list[Phase] = ["rebalancing", "starting"]
    assert [watched.after(4, phases[n % 2]) for n in range(4)][-1] is not None


# The watch over Faust and a lane


@dataclass
class FakeLane:
    """A lane as the streams see it."""

    progress: int = 0
    busy: bool = False
    fault: str | None = None
    settled: bool = True
    restoring: int | None = None
    restored_records: int = 0
    partitions: dict[Any, Any] = field(default_factory=dict)
    topics: frozenset[str] = frozenset()
    assigned: frozenset[Any] = frozenset()
    unserved: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    drains_for_s: float = 0.0
    acquired: list[Any] = field(default_factory=list)
    run_raises: Exception | None = None

    def wake(self, topic: str) -> None:
        """Does nothing."""

    def add(self, processors: Any) -> None:
        """There are no routes."""
        assert not processors

    @property
    def kinds(self) -> dict[str, str]:
        return {}

    def busy_besides(self, _tenants: Any) -> bool:
        return self.busy

    async def run(self) -> None:
        if self.run_raises:
            raise self.run_raises
        await asyncio.Event().wait()

    def check_topics(self) -> None:
        """Topics have not changed."""

    async def drain(self) -> None:
        self.calls.append("drain")
        await asyncio.sleep(self.drains_for_s)
        self.calls.append("commit")

    async def close(self) -> None:
        self.calls.append("close")

    def tenant_snapshots(self) -> tuple[Any, ...]:
        return ()


class FakeApp:
    """A Faust app as the streams see it."""

    def __init__(self) -> None:
        self.in_recovery = self.rebalancing = self.crashed = False
        self.crash_reason: BaseException | None = None
        self.consumer_generation_id, self.rebalancing_count = 3, 2
        self.stopped = asyncio.Event()
        self.stops_for_s = 0.0
        self.calls: list[str] = []
        self.intake: Any = None
        self.on_rebalance_complete = SimpleNamespace(connect=lambda function: None)
        self.topics = SimpleNamespace(add=lambda topic: None)
        self.partitions_max: dict[str, int] = {}
        self.assignor = SimpleNamespace(external_topics_metadata=dict)
        client = SimpleNamespace(cluster=SimpleNamespace(partitions_for_topic={}.get))
        self.excluded = frozenset[str]()
        self.consumer = SimpleNamespace(
            fetching=True,
            was_replaced=False,
            aiokafka=SimpleNamespace(_client=client),
            exclude=lambda topics: None,
        )

    def topic(self, name: str, **_: Any) -> str:
        return name

    async def start(self) -> None:
        self.calls.append("start")

    async def wait_until_stopped(self) -> None:
        await self.stopped.wait()

    async def stop(self) -> None:
        self.calls.append("stop")
        await asyncio.sleep(self.stops_for_s)


class FakeModelFollower:
    """A follower whose broker responds, unless set otherwise."""

    def __init__(self, *_: Any) -> None:
        self.catalogs = {"default": ModelCatalog()}
        self.pauses = {"default": Pauses()}
        self.reachable_at: float | None = None
        self.fault: str | None = None
        self.answers = True
        self.ping_raises: Exception | None = None
        self.start_raises: BaseException | None = None
        self.calls: list[str] = []
        self.loaded = frozenset({"default"})
        self.on_demand = SimpleNamespace(
            on_change=None, load_from_thread=lambda *_: None, snapshot=ModelMemorySnapshot, waits=LatencyHistogram(),
            prefer=lambda _tenant, _version: None,
        )  # fmt: skip

    def of(self, tenant: str) -> Any:
        """No models."""
        return SimpleNamespace(catalog=self.catalogs[tenant], alias_logs={})

    def baseline(self, tenant: str, model_id: str, version: int) -> None:
        """There is none."""

    def follow(self, tenants: frozenset[str]) -> None:
        """Does nothing: its catalogs do not change."""

    async def start(self) -> None:
        self.calls.append("start")
        if self.start_raises:
            raise self.start_raises

    async def stop(self) -> None:
        self.calls.append("stop")

    async def ping(self) -> bool:
        if self.ping_raises:
            raise self.ping_raises
        if self.answers:
            self.reachable_at = time.monotonic()
        return self.answers


class FakeClient:
    """A connection to an available broker."""

    def __init__(self, **_: Any) -> None: ...

    async def bootstrap(self) -> None: ...

    async def close(self) -> None: ...


async def no_contradiction(_settings: StreamSettings) -> None: ...


async def no_rights_missing(*_: Any) -> list[Right]:
    return []


@dataclass
class Run:
    """Streams over fakes, and the reasons they gave for ending the process."""

    streams: Streams
    app: FakeApp
    lane: FakeLane
    follower: FakeModelFollower
    fatal: list[tuple[str, int]]

    async def until_fatal(self) -> tuple[str, int]:
        async with asyncio.timeout(60):
            while not self.fatal:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return self.fatal[0]

    async def run_checks(self, times: int = 5) -> None:
        """Lets the watch look so often."""
        for _ in range(times):
            await asyncio.sleep(app_module.WATCH_INTERVAL_S)


@pytest.fixture
async def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    app, lane, follower, fatal = FakeApp(), FakeLane(), FakeModelFollower(), list[tuple[str, int]]()

    async def topics(_: Any) -> list[TopicState]:
        return []

    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(app_module, "WATCH_INTERVAL_S", 0.01)
    monkeypatch.setattr(admission_module, "ensure_topics", topics)
    monkeypatch.setattr(admission_module, "check_noted_partitions", no_contradiction)
    monkeypatch.setattr(admission_module, "missing_rights", no_rights_missing)
    monkeypatch.setattr(admission_module, "AIOKafkaClient", FakeClient)
    monkeypatch.setattr(app_module, "ModelFollower", lambda *_: follower)
    monkeypatch.setattr(app_module, "Lane", lambda *_: lane)
    monkeypatch.setattr(app_module, "create_app", lambda _: app)
    monkeypatch.setattr(TopicWatch, "refresh", nothing)
    table = SimpleNamespace(close=nothing, owned={})
    monkeypatch.setattr(composition, "make_table", lambda *_: table)
    monkeypatch.setattr(app_module, "install_batch_checks", lambda *_: None)
    settings = StreamSettings(
        KafkaConnection(), "worker-1", tmp_path, group=GroupSettings(stall_timeout_s=0.15), namespace="ns"
    )
    streams = Streams(settings, lambda reason, code: fatal.append((reason, code)))
    run = Run(streams, app, lane, follower, fatal)
    yield run
    lane.drains_for_s = app.stops_for_s = 0.0
    await streams.stop(1.0)


async def test_a_rebalance_that_stalls_ends_the_process(run: Run) -> None:
    await run.streams.start()
    run.app.rebalancing = True
    reason, code = await run.until_fatal()
    assert code == EXIT_STALLED == 71
    assert reason.startswith("rebalancing without progress for")


async def test_work_that_stalls_ends_the_process(run: Run) -> None:
    await run.streams.start()
    run.lane.busy = True
    reason, code = await run.until_fatal()
    assert (reason.split(" for ")[0], code) == ("running without progress", 71)


async def test_a_takeover_that_never_ends_ends_the_process(run: Run) -> None:
    run.lane.settled = False
    await run.streams.start()
    reason, code = await run.until_fatal()
    assert (reason.split(" for ")[0], code) == ("starting without progress", 71)


async def test_a_worker_with_progress_continues(run: Run) -> None:
    await run.streams.start()
    run.lane.busy = True
    for _ in range(30):
        run.lane.progress += 1
        await run.run_checks(1)
    assert run.fatal == []


async def test_a_prediction_of_minutes_that_scores_rows_is_no_stall(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = itertools.count()
    monkeypatch.setattr(run.follower.catalogs["default"], "rows_scored_alone", lambda: next(scored), raising=True)
    await run.streams.start()
    run.lane.busy = True
    await run.run_checks(30)
    assert run.fatal == []


async def test_a_lane_that_waits_for_its_broker_continues(run: Run) -> None:
    await run.streams.start()
    run.lane.busy, run.lane.fault = True, "results cannot be published: KafkaConnectionError"
    await run.run_checks(30)
    assert run.fatal == []


async def test_a_broker_that_is_silent_in_a_rebalance_is_waited_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.streams.status.UNREACHABLE_S", 0.02)
    await run.streams.start()
    await run.run_checks(2)
    run.follower.answers = False
    run.app.rebalancing = True
    await run.run_checks(30)
    assert run.fatal == []
    run.follower.answers = True
    assert (await run.until_fatal())[1] == 71, "once the broker responds, the rebalance has to progress"


async def test_a_crash_of_faust_ends_the_process(run: Run) -> None:
    await run.streams.start()
    run.app.crashed, run.app.crash_reason = True, RuntimeError("a bug in faust")
    assert await run.until_fatal() == ("the streams failed: RuntimeError: a bug in faust", EXIT_FAILED)


async def test_a_fetcher_that_has_ended_ends_the_process(run: Run) -> None:
    await run.streams.start()
    run.app.consumer.fetching = False
    assert await run.until_fatal() == ("the streams failed: RuntimeError: aiokafka's fetcher has ended", EXIT_FAILED)


async def test_faust_that_ends_by_itself_ends_the_process(run: Run) -> None:
    await run.streams.start()
    run.app.stopped.set()
    assert await run.until_fatal() == ("the streams failed: RuntimeError: faust stopped by itself", 1)


async def test_a_crash_of_the_lane_ends_the_process(run: Run) -> None:
    run.lane.run_raises = ZeroDivisionError("a bug")
    await run.streams.start()
    assert await run.until_fatal() == ("the streams failed: ZeroDivisionError: a bug", 1)


async def test_an_unexpected_exception_of_a_ping_ends_the_process(run: Run) -> None:
    run.follower.ping_raises = AttributeError("a bug")
    await run.streams.start()
    assert await run.until_fatal() == ("the streams failed: AttributeError: a bug", 1)


async def test_phases_follow_faust_and_the_lane(run: Run) -> None:
    assert run.streams.snapshot().phase == "starting"
    run.lane.settled = False
    await run.streams.start()

    def phase() -> Phase:
        return run.streams.snapshot().phase

    seen = [phase()]
    run.app.rebalancing = True
    seen.append(phase())
    run.app.in_recovery = True
    seen.append(phase())
    run.app.rebalancing = run.app.in_recovery = False
    run.lane.settled = True
    seen.append(phase())
    await run.streams.stop(1.0)
    seen.append(phase())
    assert seen == ["starting", "rebalancing", "recovering", "running", "stopped"]


# Start and stop


async def test_a_stop_finishes_commits_and_leaves_in_this_order(run: Run) -> None:
    await run.streams.start()
    await run.run_checks(1)
    story: list[str] = []
    run.lane.calls = run.app.calls = run.follower.calls = story
    assert await run.streams.stop(5.0)
    assert story == ["drain", "commit", "close", "stop", "stop"]
    assert run.fatal == []


async def test_a_stop_past_its_deadline_commits_nothing_and_is_reported(run: Run) -> None:
    await run.streams.start()
    run.lane.drains_for_s = 60.0
    began = time.monotonic()
    assert not await run.streams.stop(0.2)
    assert time.monotonic() - began < 30
    assert run.lane.calls == ["drain", "close"], "and no commit"
    assert run.app.calls[-1] == "stop", "it leaves the group all the same"
    assert run.fatal == []


async def test_a_stop_that_cannot_leave_the_group_in_time_is_late(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "LEAVE_S_MIN", 0.05)
    await run.streams.start()
    run.app.stops_for_s = 60.0
    assert not await run.streams.stop(0.1)
    assert run.lane.calls == ["drain", "commit", "close"]


async def test_a_failed_start_leaves_no_task_running(run: Run) -> None:
    before = asyncio.all_tasks()
    run.follower.start_raises = ConnectionError("connection refused")
    with pytest.raises(ConnectionError):
        await run.streams.start()
    assert asyncio.all_tasks() == before
    assert run.follower.calls == ["start", "stop"]
    assert run.streams.snapshot().phase == "starting"
    run.follower.start_raises = None
    await run.streams.start()
    assert run.streams.snapshot().phase == "running"


async def test_a_stop_before_the_start_is_done_at_once(run: Run) -> None:
    assert await run.streams.stop(5.0)
    assert run.lane.calls == run.app.calls == []


@pytest.mark.parametrize(("owned", "leads"), [([0], True), ([1], False), ([], False)])
async def test_who_owns_the_first_partition_speaks_for_the_group(run: Run, owned: list[int], leads: bool) -> None:
    await run.streams.start()
    run.lane.partitions = {("ns.default.requests", number): SimpleNamespace() for number in owned}
    assert run.streams._leads("default") is leads


async def test_the_lane_gets_the_allowed_reply_topics(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, int] = {}

    async def topics(_: Any) -> list[TopicState]:
        return [TopicState("ns.default.results", "results", 4, 1), TopicState("mine", "reply-to", 3, 1)]

    def request_processor(names: Any, scorer: Any, worker_id: str, destinations: Destinations, *_: Any) -> Any:
        made.update({topic: destinations[topic].partitions for topic in destinations.reply_to})
        direct = HttpRequests(1)
        topic = names.name("requests")
        return SimpleNamespace(tenant=names.tenant, kind="requests", tables=(), topic=topic, direct=direct)

    monkeypatch.setattr(admission_module, "ensure_topics", topics)
    monkeypatch.setattr(admission_module, "check_noted_partitions", no_contradiction)
    monkeypatch.setattr(admission_module, "missing_rights", no_rights_missing)
    monkeypatch.setattr(admission_module, "AIOKafkaClient", FakeClient)
    monkeypatch.setattr(composition, "RequestProcessor", request_processor)
    lane: Callable[..., Any] = lambda context, *_: (list(context.processors), run.lane)[1]  # noqa: E731
    monkeypatch.setattr(app_module, "Lane", lane)
    run.streams.settings = replace(run.streams.settings, reply_to_allowed=("mine",))
    await run.streams.start()
    assert made == {"mine": 3}

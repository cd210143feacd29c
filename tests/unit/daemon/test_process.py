"""Start and graceful stop of a worker, with fake streams."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections.abc import Callable

import pytest
from aiohttp import ClientSession
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaConnectionError, TopicAuthorizationFailedError

from inferd.daemon import cluster, process
from inferd.daemon.cluster import BrokerAnswer
from inferd.daemon.process import (
    Parts,
    WorkerProcess,
    backoff,
    is_connection_error,
    loop_factory,
)
from inferd.daemon.settings.settings import Settings
from inferd.daemon.settings.table import SettingsError
from inferd.daemon.supervision.exit import EXIT_DRAIN_TIMEOUT
from inferd.daemon.supervision.stop_signals import StopSignals
from inferd.schemas.connection import BrokerUnreachableError, KafkaConnection
from inferd.schemas.errors import ServerError
from inferd.streams.kafka.topic_checks import TopicsError
from inferd.streams.serving.user_code import UserCode
from inferd.streams.settings import StreamSettings
from tests.unit.daemon.fake_streams import FakeStreams, snapshot

DEADLINE_S = 20.0


class Bench:
    """A worker on the test's event loop, its fake streams, and its exit code."""

    def __init__(self, **flags: str) -> None:
        flags = {"http_port": "0", "worker_id": "w1", **flags}
        self.settings = Settings.from_environment({}, flags)
        self.made: list[FakeStreams] = []
        self.prepare: Callable[[FakeStreams], None] = lambda _streams: None
        self.urls: list[str] = []
        self.left: list[tuple[int, str]] = []
        self.started = asyncio.Event()
        self.signals = StopSignals(lambda _code: None)
        parts = Parts(
            load_streams=lambda: self.make,
            on_listening=self.urls.append,
            on_started=lambda _url: self.started.set(),
            leave=lambda code, reason: self.left.append((code, reason)),
        )
        self.worker = WorkerProcess(self.settings, self.signals, parts)
        self.running: asyncio.Task[int] | None = None

    def make(
        self, settings: StreamSettings, on_fatal: Callable[[str, int], None], _custom: UserCode | None
    ) -> FakeStreams:
        streams = FakeStreams(settings, on_fatal)
        self.prepare(streams)
        self.made.append(streams)
        return streams

    def run(self) -> None:
        self.running = asyncio.create_task(self.worker.run())

    async def until_started(self) -> None:
        self.run()
        await asyncio.wait_for(self.started.wait(), DEADLINE_S)

    async def stop(self) -> int:
        self.signals.receive(signal.SIGTERM)
        return await self.code()

    async def code(self) -> int:
        assert self.running is not None
        return await asyncio.wait_for(self.running, DEADLINE_S)

    async def get(self, path: str) -> tuple[int, str]:
        async with ClientSession() as session, session.get(self.urls[0] + path) as answer:
            return answer.status, await answer.text()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.001)


class Cluster:
    """A broker that responds unless it is down."""

    def __init__(self) -> None:
        self.down: str | None = None

    async def reach(self, _connection: KafkaConnection, _timeout_s: float) -> BrokerAnswer:
        if self.down:
            raise BrokerUnreachableError(self.down)
        return BrokerAnswer("127.0.0.1", 9092, {})


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(cluster, "reach", found.reach)
    monkeypatch.setattr(process, "BACKOFF_S_MIN", 0.001)
    monkeypatch.setattr(process, "BACKOFF_S_MAX", 0.01)
    monkeypatch.setattr(process, "settle_memory", lambda: None)
    return found


@pytest.fixture
def bench(broker: Cluster) -> Bench:
    return Bench()


async def test_start_and_graceful_stop(bench: Bench) -> None:
    await bench.until_started()
    assert (await bench.get("/readyz"))[0] == 200
    assert await bench.stop() == 0
    (streams,) = bench.made
    assert streams.starts == 1
    assert len(streams.stops) == 1
    assert 24 < streams.stops[0] <= 25
    assert bench.left == []
    with pytest.raises(OSError, match="onnect"):
        await bench.get("/livez")


async def test_http_answers_before_kafka_does(bench: Bench, broker: Cluster) -> None:
    broker.down = "no Kafka broker answers: kafka:9092 refuses"
    bench.run()
    await until(lambda: bench.worker.board.unready(None)[0].startswith("waiting for the broker: no"))
    assert (await bench.get("/livez"))[0] == 200
    status, text = await bench.get("/readyz")
    assert status == 503
    assert "waiting for the broker: no Kafka broker answers: kafka:9092 refuses" in text
    assert bench.made == []
    broker.down = None
    await asyncio.wait_for(bench.started.wait(), DEADLINE_S)
    assert (await bench.get("/readyz"))[0] == 200
    assert await bench.stop() == 0


async def test_it_can_be_stopped_while_it_waits_for_the_broker(bench: Bench, broker: Cluster) -> None:
    broker.down = "nobody"
    bench.run()
    await until(lambda: bench.urls)
    assert await bench.stop() == 0
    assert bench.made == []


async def test_it_can_be_stopped_while_the_streams_start(bench: Bench) -> None:
    def never_started(streams: FakeStreams) -> None:
        streams.start_gate = asyncio.Event()

    bench.prepare = never_started
    bench.run()
    await until(lambda: bench.made and bench.made[0].starts)
    assert (await bench.get("/readyz"))[0] == 503
    assert await bench.stop() == 0
    assert len(bench.made[0].stops) == 1


async def test_a_lost_connection_during_the_start_is_retried(bench: Bench) -> None:
    errors: list[Exception] = [KafkaConnectionError("gone"), ConnectionResetError()]

    def fails(streams: FakeStreams) -> None:
        streams.start_errors = [errors.pop(0)] if errors else []

    bench.prepare = fails
    await bench.until_started()
    assert [(streams.starts, len(streams.stops)) for streams in bench.made] == [(1, 1), (1, 1), (1, 0)]
    assert await bench.stop() == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ServerError("the disk is full"), 1),
        (ZeroDivisionError(), 1),
        (TopicsError(["topic x does not exist"]), 1),
        (TopicsError(["topic x has 3 partitions"], lasting=True), 2),
    ],
)
async def test_a_failed_start_exits(bench: Bench, error: Exception, code: int) -> None:
    def fails(streams: FakeStreams) -> None:
        streams.start_errors = [error]

    bench.prepare = fails
    bench.run()
    assert await bench.code() == code
    assert len(bench.made) == 1
    assert len(bench.made[0].stops) == 1


async def test_settings_rejected_by_the_streams_are_invalid_settings(bench: Bench) -> None:
    def rejects(_streams: FakeStreams) -> None:
        raise ServerError("INFERD_PROCESSING_GUARANTEE=thrice is not available")

    bench.prepare = rejects
    bench.run()
    assert await bench.code() == 2


async def test_an_incomplete_stop_exits_with_70(bench: Bench) -> None:
    await bench.until_started()
    bench.made[0].stop_in_time = False
    assert await bench.stop() == EXIT_DRAIN_TIMEOUT
    assert bench.left[0][0] == EXIT_DRAIN_TIMEOUT
    assert "INFERD_DRAIN_TIMEOUT_S=25" in bench.left[0][1]


@pytest.mark.usefixtures("broker")
async def test_a_hanging_stop_is_abandoned() -> None:
    bench = Bench(drain_timeout_s="0.1")
    await bench.until_started()
    bench.made[0].stop_gate = asyncio.Event()
    assert await bench.stop() == EXIT_DRAIN_TIMEOUT
    assert bench.left[0][0] == EXIT_DRAIN_TIMEOUT


async def test_an_exception_in_stop_is_a_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.until_started()

    async def breaks(_timeout_s: float) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.made[0], "stop", breaks)
    assert await bench.stop() == 1


async def test_a_fatal_fault_exits_immediately_with_its_code(bench: Bench) -> None:
    await bench.until_started()
    bench.made[0].on_fatal("a lane made no progress for 120 s", 71)
    assert bench.left == [(71, "a lane made no progress for 120 s")]
    assert bench.made[0].stops == []
    await bench.stop()


async def test_a_failing_snapshot_does_not_stop_the_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TICK_S", 0.001)
    await bench.until_started()
    asked = itertools.count()
    enough = asyncio.Event()

    def breaks() -> None:
        if next(asked) > 3:
            enough.set()
        raise ZeroDivisionError

    monkeypatch.setattr(bench.made[0], "snapshot", breaks)
    await asyncio.wait_for(enough.wait(), DEADLINE_S)
    assert (await bench.get("/livez"))[0] == 200
    assert await bench.stop() == 0


async def test_losing_readiness_is_logged_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "TICK_S", 0.001)
    await bench.until_started()
    await until(lambda: bench.worker._was_ready)
    bench.made[0].said = snapshot(unready=("rebalancing",))
    await until(lambda: not bench.worker._was_ready)
    bench.made[0].said = snapshot()
    await until(lambda: bench.worker._was_ready)
    await bench.stop()
    out = capsys.readouterr().out
    assert out.count("worker_unready") == 1
    assert out.count("worker_ready") == 2


def test_the_backoff_is_bounded() -> None:
    pauses = list(itertools.islice(backoff(), 50))
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.5
    assert pauses[-1] == process.BACKOFF_S_MAX


def test_connection_errors_are_found_among_causes() -> None:
    wrapped = ServerError("start failed")
    wrapped.__cause__ = KafkaConnectionError("x")
    assert is_connection_error(wrapped)
    assert is_connection_error(ConnectionRefusedError())
    assert is_connection_error(TimeoutError()), "a look at the topics that takes too long"
    assert is_connection_error(GroupCoordinatorNotAvailableError())
    assert not is_connection_error(TopicAuthorizationFailedError())
    assert not is_connection_error(ServerError("x"))


def test_the_configured_event_loop_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def loop_of(choice: str) -> str:
        loop = loop_factory(Settings.from_environment({}, {"uvloop": choice}))()
        loop.close()
        return type(loop).__module__

    assert loop_of("off").startswith("asyncio")
    assert loop_of("on").startswith("uvloop")
    assert loop_of("auto").startswith("uvloop")
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_of("auto").startswith("asyncio")
    with pytest.raises(SettingsError, match="INFERD_UVLOOP=on"):
        loop_of("on")

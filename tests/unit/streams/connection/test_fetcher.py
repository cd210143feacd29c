"""What the fetcher asks each broker for, and the names in aiokafka that this rests on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.consumer import consumer, fetcher
from aiokafka.protocol.fetch import FetchResponse_v11

from inferd.streams.connection import clients as _clients
from inferd.streams.connection.clients import install
from inferd.streams.connection.fetch_sessions import FetchSession
from inferd.streams.connection.fetcher import (
    BULK_CONNECTIONS,
    BULK_WAIT_MS,
    SessionFetcher,
    Source,
    _Request,
    _StockFetcher,
)

NODE = 1
LONE, OTHER, BULK = (TopicPartition(name, 0) for name in ("lone", "other", "bulk"))
WAIT_MS = 100


class FakeState:
    """The state of an assigned partition."""

    def __init__(self, position: int | None = 0) -> None:
        self.has_valid_position = position is not None
        self.position = position
        self.paused = False
        self.resume_fut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.highwater: int | None = None
        self.lso: int | None = None
        self.timestamp: int | None = None


class FakeAssignment:
    """Partitions with their states."""

    def __init__(self, *tps: TopicPartition) -> None:
        self.states = {tp: FakeState() for tp in tps}
        self.active = True

    @property
    def tps(self) -> list[TopicPartition]:
        return list(self.states)

    def state_value(self, tp: TopicPartition) -> FakeState:
        return self.states[tp]


class FakeClient:
    """A client that answers fetches with prepared responses, as bytes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._metadata_max_age_ms = 1_000
        self.cluster = SimpleNamespace(leader_for_partition=self.leader, broker_metadata=lambda _: object())
        self.leaders: dict[TopicPartition, int | None] = {}
        self.sent: list[tuple[int, Any, Any]] = []
        self.responses: list[list[Any]] = []
        self.session_id = 9
        self.meanwhile: Callable[[], None] = lambda: None

    def leader(self, tp: TopicPartition) -> int | None:
        return self.leaders.get(tp, NODE)

    async def send(self, node_id: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        struct = request.prepare({1: (4, 11)})
        self.sent.append((node_id, group, struct))
        await asyncio.sleep(0)
        self.meanwhile()
        topics = self.responses.pop(0) if self.responses else []
        return struct.RESPONSE_TYPE.decode(FetchResponse_v11(0, 0, self.session_id, topics).encode())


class Bench:
    """A fetcher whose own task does not run: tests call its steps."""

    def __init__(self, *tps: TopicPartition) -> None:
        self.client = FakeClient()
        subscriptions = SimpleNamespace(register_fetch_waiters=lambda _: None)
        make: Any = SessionFetcher
        self.fetcher = make(self.client, subscriptions, fetch_max_wait_ms=WAIT_MS, isolation_level="read_committed")
        self.fetcher._fetch_task.cancel()
        self.fetcher._wait_consume_future = asyncio.get_running_loop().create_future()
        self.assignment = FakeAssignment(*tps)

    def actions(self) -> Any:
        return self.fetcher._get_actions_per_node(self.assignment)

    def fetches(self) -> dict[Source, _Request]:
        return dict(self.actions()[0])

    async def fetch(self, source: Source) -> Any:
        """Sends the next fetch of a source; the struct that was sent."""
        await self.fetcher._proc_fetch_request(self.assignment, source, self.fetches()[source])
        return self.client.sent[-1][2]

    def buffer(self, tp: TopicPartition, backoff_s: float = 0.1) -> None:
        self.fetcher._records[tp] = SimpleNamespace(calculate_backoff=lambda: backoff_s)


PLAIN, BULKY = Source(NODE, bulk=False), Source(NODE, bulk=True)


@pytest.fixture(autouse=True)
def bulk_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SessionFetcher, "bulk_topics", {BULK.topic})


def part(number: int = 0, error: int = 0, end: int = 7) -> tuple[Any, ...]:
    return (number, error, end, end, 0, [], -1, b"")


def names(struct: Any) -> set[tuple[str, int]]:
    return {(topic, part[0]) for topic, parts in struct.topics for part in parts}


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (_StockFetcher, "_get_actions_per_node", ["self", "assignment"]),
        (_StockFetcher, "_proc_fetch_request", ["self", "assignment", "node_id", "request"]),
        (_StockFetcher, "_select_read_replica", ["self", "tp"]),
        (_StockFetcher, "_notify", ["self", "future"]),
        (_clients, "_stock_client_send", ["self", "node_id", "request", "group"]),
    ],
)
def test_aiokafka_has_the_names_that_are_used(owner: Any, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_aiokafka_uses_the_fetcher_and_its_parts_as_expected() -> None:
    install()
    module: Any = consumer
    assert module.Fetcher is SessionFetcher
    routine = inspect.getsource(_StockFetcher._fetch_requests_routine)
    assert "self._proc_fetch_request(assignment, node_id, request)," in routine
    assert "self._in_flight.add(node_id)" in routine
    assert "self._client.send(node_id, request)" in inspect.getsource(_StockFetcher._proc_fetch_request)
    options = inspect.getsource(fetcher.Fetcher.__init__)
    for name in ("_max_partition_fetch_bytes", "_fetch_min_bytes", "_fetch_max_bytes", "_fetcher_timeout", "_records"):
        assert f"self.{name} = " in options


async def test_bulk_topics_are_fetched_apart_over_another_connection() -> None:
    bench = Bench(LONE, BULK)
    assert {source: set(request.wanted) for source, request in bench.fetches().items()} == {
        PLAIN: {LONE},
        BULKY: {BULK},
    }
    bench.fetcher._in_flight.add(BULKY)
    assert set(bench.fetches()) == {PLAIN}
    plain, bulky = await bench.fetch(PLAIN), None
    bench.fetcher._in_flight.clear()
    bulky = await bench.fetch(BULKY)
    assert [group for _, group, _ in bench.client.sent] == [ConnectionGroup.DEFAULT, BULK_CONNECTIONS]
    assert (plain.max_wait_time, bulky.max_wait_time) == (WAIT_MS, BULK_WAIT_MS)


async def test_the_second_fetch_names_only_what_moved() -> None:
    bench = Bench(LONE, OTHER)
    assert names(await bench.fetch(PLAIN)) == {LONE, OTHER}
    bench.assignment.states[LONE].position = 3
    assert names(await bench.fetch(PLAIN)) == {LONE}
    assert names(await bench.fetch(PLAIN)) == set()


async def test_unconsumed_records_delay_the_fetches_of_their_source_only() -> None:
    bench = Bench(LONE, OTHER, BULK)
    bench.buffer(LONE)
    assert set(bench.fetches()) == {BULKY}
    assert bench.actions()[2] == 0.1
    bench.buffer(LONE, backoff_s=0.0)
    assert {each: set(request.wanted) for each, request in bench.fetches().items()} == {PLAIN: {OTHER}, BULKY: {BULK}}


async def test_held_partitions_delay_nothing() -> None:
    bench = Bench(LONE, OTHER)
    bench.buffer(LONE)
    bench.fetcher.hold({LONE})
    assert bench.fetcher._wait_consume_future.done(), "the fetcher was not woken"
    assert set(bench.fetches()[PLAIN].wanted) == {OTHER}
    bench.fetcher.hold(set())
    assert not bench.fetches()


async def test_positions_are_reset_at_the_leader_before_its_partitions_are_fetched() -> None:
    bench = Bench(LONE, OTHER)
    bench.assignment.states[LONE] = FakeState(position=None)
    fetches, resets, _, leaderless, _ = bench.actions()
    assert (fetches, dict(resets), leaderless) == ([], {NODE: [LONE]}, False)
    bench.fetcher._in_flight.add(NODE)
    assert bench.actions()[:2] == ([], {})


async def test_a_partition_without_a_leader_asks_for_metadata() -> None:
    bench = Bench(LONE, OTHER)
    bench.client.leaders[LONE] = -1
    fetches, _, _, leaderless, _ = bench.actions()
    assert leaderless
    assert [set(request.wanted) for _, request in fetches] == [{OTHER}]


async def test_a_paused_partition_is_not_fetched_and_wakes_the_fetcher_when_resumed() -> None:
    bench = Bench(LONE)
    bench.assignment.states[LONE].paused = True
    assert bench.actions()[0] == []
    assert bench.actions()[4] == [bench.assignment.states[LONE].resume_fut]


async def test_what_the_fetcher_dropped_is_asked_for_again() -> None:
    bench = Bench(LONE, OTHER)
    await bench.fetch(PLAIN)
    bench.client.responses = [[(LONE.topic, [part()])]]
    bench.client.meanwhile = lambda: setattr(bench.assignment.states[LONE], "position", 4)
    await bench.fetch(PLAIN)
    assert bench.assignment.states[LONE].highwater is None
    assert names(await bench.fetch(PLAIN)) == {LONE, OTHER}


async def test_an_error_of_a_partition_keeps_the_session() -> None:
    bench = Bench(LONE, OTHER)
    await bench.fetch(PLAIN)
    bench.client.responses = [[(LONE.topic, [part(error=-1, end=-1)])]]
    await bench.fetch(PLAIN)
    assert names(await bench.fetch(PLAIN)) == set()


async def test_a_new_assignment_starts_with_new_sessions_that_close_the_old_ones() -> None:
    bench = Bench(LONE)
    await bench.fetch(PLAIN)
    bench.assignment = FakeAssignment(LONE)
    struct = await bench.fetch(PLAIN)
    assert (struct.session_id, struct.session_epoch, names(struct)) == (9, 0, {LONE})


async def test_partitions_that_a_response_does_not_name_get_its_time() -> None:
    bench = Bench(LONE, OTHER)
    bench.client.responses = [[(LONE.topic, [part()])]]
    await bench.fetch(PLAIN)
    assert all(state.timestamp for state in bench.assignment.states.values())


async def test_a_failed_fetch_is_followed_by_a_new_session() -> None:
    bench = Bench(LONE)
    await bench.fetch(PLAIN)

    def fail() -> None:
        raise asyncio.CancelledError

    bench.client.meanwhile = fail
    await bench.fetch(PLAIN)
    bench.client.meanwhile = lambda: None
    struct = await bench.fetch(PLAIN)
    assert (struct.session_id, struct.session_epoch) == (9, 0)


async def test_old_brokers_are_asked_without_sessions() -> None:
    request = _Request(FetchSession(), {LONE: (3, 100)}, max_wait_time=1, min_bytes=1, max_bytes=100, isolation_level=1)
    struct: Any = request.prepare({1: (0, 4)})
    assert struct.topics == [("lone", [(0, 3, 100)])]


async def test_while_all_sources_wait_nothing_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(LONE, OTHER, BULK)
    await bench.fetch(PLAIN)
    await bench.fetch(BULKY)
    bench.buffer(LONE, 0.03)
    bench.fetcher._in_flight.add(BULKY)
    monkeypatch.setattr(bench.fetcher, "_plan", None)
    assert bench.actions() == ([], {}, 0.03, False, [])

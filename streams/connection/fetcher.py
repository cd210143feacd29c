"""aiokafka's fetcher, with incremental fetch sessions, and with separate fetches for bulk topics.

A fetch response may hold megabytes of a job, and a consumer has one fetch at a time from a broker: requests of other
tenants would wait for those megabytes. Bulk topics are therefore fetched over a connection of their own.

Private names used, each covered by `tests/unit/streams/connection/test_fetcher.py`: the name `Fetcher` in
`aiokafka.consumer.consumer` (replaced), and of `Fetcher` the methods `_get_actions_per_node` (replaced),
`_proc_fetch_request` (the hook), `_select_read_replica`, `_notify`, and the attributes `_client`, `_records`,
`_in_flight`, `_wait_consume_future`, `_fetcher_timeout` and those that hold its options.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.consumer import consumer, fetcher

from inferd.streams.connection.fetch_sessions import FetchSession, Part, Position, SessionRequest

BULK_CONNECTIONS: Any = max(ConnectionGroup) + 1
"""aiokafka keeps a connection to each broker for each number of a connection group."""
BULK_WAIT_MS = 500
"""How long the broker may hold a fetch of bulk topics: latency matters less there than the cost of an idle worker."""
STAMP_S = 1.0
"""How often partitions without records get the time of their last fetch, in seconds. Its readers compare minutes."""


class Source(NamedTuple):
    """What has one fetch in flight: a broker, with either its bulk or its other topics."""

    node_id: int
    bulk: bool


@dataclass(slots=True)
class _Actions:
    """What is to be done for each source or broker."""

    sources: set[Source] = field(default_factory=set)
    """Sources of all assigned partitions."""
    fetches: defaultdict[Source, dict[Part, Position]] = field(default_factory=lambda: defaultdict(dict))
    resets: defaultdict[int, list[TopicPartition]] = field(default_factory=lambda: defaultdict(list))
    """Partitions whose position is unknown, by leader."""
    waits_s: defaultdict[Source, float] = field(default_factory=lambda: defaultdict(float))
    """How long to wait for fetched records to be consumed, so that the next fetch includes their partitions."""
    resumed: list[Any] = field(default_factory=list)
    """Futures that complete when a paused partition is resumed."""
    leaderless: bool = False


class _Client:
    """aiokafka's client; sends the fetches of bulk topics over connections of their own."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any) -> Any:
        group = getattr(request, "group", ConnectionGroup.DEFAULT)
        return await self._client.send(node_id, request, group=group)


class _Request(SessionRequest):
    group: Any = ConnectionGroup.DEFAULT


_StockFetcher: Any = fetcher.Fetcher  # aiokafka leaves it untyped


class SessionFetcher(_StockFetcher):  # type: ignore[misc]
    """aiokafka's fetcher, with a session for each source.

    An assignment starts with new sessions: the broker would not repeat the end of a partition that it has already sent.
    """

    bulk_topics: ClassVar[AbstractSet[str]] = frozenset()

    def __init__(self, client: Any, *args: Any, **options: Any) -> None:
        self._sessions: dict[Source, FetchSession] = {}
        self._sources: set[Source] = set()
        self._assignment: Any = None
        """The assignment of the sources and sessions."""
        self._held: AbstractSet[TopicPartition] = frozenset()
        self._stamped = 0.0
        super().__init__(_Client(client), *args, **options)

    def hold(self, tps: AbstractSet[TopicPartition]) -> None:
        """Marks the partitions whose records are not being consumed: fetches of others do not wait for them."""
        added, self._held = tps - self._held, tps
        if not added.isdisjoint(self._records):
            self._notify(self._wait_consume_future)

    def _get_actions_per_node(self, assignment: Any) -> Any:
        """Like aiokafka's own, for sources instead of brokers."""
        if assignment is not self._assignment:
            self._assignment = assignment
            self._sessions = {each: FetchSession(session.id) for each, session in self._sessions.items()}
        elif wait_s := self._all_wait():
            return [], {}, wait_s, False, []
        actions = _Actions()
        for tp in assignment.tps:
            self._plan(tp, assignment.state_value(tp), actions)
        self._sources = actions.sources
        fetches = [
            (source, self._request(source, wanted))
            for source, wanted in actions.fetches.items()
            if source not in actions.waits_s and source.node_id not in actions.resets
        ]
        timeout_s = min(actions.waits_s.values(), default=self._fetcher_timeout)
        return fetches, actions.resets, timeout_s, actions.leaderless, actions.resumed

    def _all_wait(self) -> float:
        """Seconds to wait if no source can be fetched from before fetched records are consumed; else 0."""
        waiting: dict[Source, float] = {}
        for tp in self._records.keys() - self._held:
            source = Source(self._select_read_replica(tp), tp.topic in self.bulk_topics)
            waiting[source] = max(waiting.get(source, 0.0), self._records[tp].calculate_backoff())
        if any(source not in self._in_flight and not waiting.get(source) for source in self._sources):
            return 0.0
        return min((wait_s for wait_s in waiting.values() if wait_s), default=0.0)

    def _plan(self, tp: TopicPartition, state: Any, actions: _Actions) -> None:
        node_id = self._select_read_replica(tp)
        source = Source(node_id, tp.topic in self.bulk_topics)
        actions.sources.add(source)
        if tp in self._records:
            if tp not in self._held and (wait_s := self._records[tp].calculate_backoff()):
                actions.waits_s[source] = max(actions.waits_s[source], wait_s)
        elif source in self._in_flight or node_id in self._in_flight:
            return
        elif node_id is None or node_id == -1:
            actions.leaderless = True
        elif not state.has_valid_position:
            # Only the leader knows the ends of a partition.
            leader_id = self._client.cluster.leader_for_partition(tp)
            if leader_id is None or leader_id == -1:
                actions.leaderless = True
            else:
                actions.resets[leader_id].append(tp)
        elif state.paused:
            actions.resumed.append(state.resume_fut)
        else:
            actions.fetches[source][tp] = (state.position, self._max_partition_fetch_bytes)

    def _request(self, source: Source, wanted: dict[Part, Position]) -> _Request:
        request = _Request(
            self._sessions.setdefault(source, FetchSession()),
            wanted,
            max_wait_time=max(self._fetch_max_wait_ms, BULK_WAIT_MS) if source.bulk else self._fetch_max_wait_ms,
            min_bytes=self._fetch_min_bytes,
            max_bytes=self._fetch_max_bytes,
            isolation_level=self._isolation_level,
            rack_id=self._client_rack or "",
        )
        if source.bulk:
            request.group = BULK_CONNECTIONS
        return request

    async def _proc_fetch_request(self, assignment: Any, source: Source, request: _Request) -> Any:
        has_records = await super()._proc_fetch_request(assignment, source.node_id, request)
        if request.response is not None and assignment.active:
            self._stamp(assignment, request)
            if not _was_taken(assignment, request.response):
                request.session.restart()
        return has_records

    def _stamp(self, assignment: Any, request: SessionRequest) -> None:
        """Sets the time of the last fetch of all requested partitions, also of those without news in the response."""
        now = time.time()
        if now - self._stamped < STAMP_S:
            return
        self._stamped = now
        for topic, part in request.wanted:
            assignment.state_value(TopicPartition(topic, part)).timestamp = int(now * 1000)


def install() -> None:
    """Installs the fetcher for all consumers of this process. Repeated calls have no effect."""
    module: Any = consumer
    module.Fetcher = SessionFetcher


def set_bulk_topics(topics: AbstractSet[str]) -> None:
    """Sets the topics that all consumers of this process fetch over a connection of their own."""
    SessionFetcher.bulk_topics = topics


def _was_taken(assignment: Any, response: Any) -> bool:
    """Whether the fetcher has applied the response for each partition: it ignores those whose position has changed."""
    return all(
        error_code or assignment.state_value(TopicPartition(topic, part)).highwater == end
        for topic, parts in response.topics
        for part, error_code, end, *_ in parts
    )

"""Redrives against a topic in memory: each dead letter is sent once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.audit import AuditLog
from inferd.redrive import Redrive, Selection
from inferd.schemas.audit import decode_audit
from inferd.schemas.dead_letters import DeadLetter, Omitted
from inferd.schemas.errors import ServerError
from inferd.schemas.redrive import ATTEMPTS, Redriven, RedriveReport, attempts_of, ranges_of, redriven_headers
from inferd.schemas.topics import TenantTopics

TOPICS = TenantTopics("ns", "t")
REQUESTS = TOPICS.name("requests")


class FakeKafka:
    """The topics of a tenant. A transaction is lost if `dies_after` records of it were sent."""

    def __init__(self, letters: Iterable[tuple[int, DeadLetter]]) -> None:
        self.topics = TOPICS
        self.dead: dict[int, list[Any]] = {0: [], 1: []}
        for partition, letter in letters:
            self.add(partition, letter)
        self.audit: list[Any] = []
        self.sent: list[tuple[str, int, bytes | None, tuple[tuple[str, bytes | None], ...]]] = []
        self.pending: list[Any] = []
        self.dies_after: int | None = None
        self.fault: Exception = KeyboardInterrupt  # type: ignore[assignment]

    def add(self, partition: int, letter: DeadLetter) -> None:
        log = self.dead[partition]
        log.append(
            SimpleNamespace(
                partition=partition, offset=len(log), key=letter.key, value=letter.value, headers=letter.headers()
            )
        )

    # The cluster:

    async def partitions(self, stream: str) -> tuple[int, ...]:
        return (0, 1) if stream == "dead-letters" else (0,)

    @asynccontextmanager
    async def consumer(self, stream: str, partitions: Iterable[int]) -> AsyncIterator[Any]:
        logs = self.dead if stream == "dead-letters" else {0: self.audit}
        yield FakeConsumer({TopicPartition(TOPICS.name(stream), n): logs[n] for n in partitions})  # type: ignore[arg-type]

    def transactional_producer(self, transactional_id: str) -> Any:
        assert transactional_id == "inferd-redrive-ns.t"
        return self

    def typed(self, error: BaseException, _doing: str) -> BaseException:
        return error

    # The producer:

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self.pending = []
        yield
        for topic, value, partition, headers in self.pending:
            if topic == TOPICS.name("audit"):
                self.audit.append(SimpleNamespace(partition=0, offset=len(self.audit), value=value))
            else:
                self.sent.append((topic, partition, value, tuple(headers)))

    async def send(self, topic: str, value: bytes | None, *, partition: int, headers: Any, key: Any = None) -> Any:
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                raise self.fault
        self.pending.append((topic, value, partition, headers))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class FakeConsumer:
    def __init__(self, logs: dict[TopicPartition, list[Any]]) -> None:
        self.logs, self.positions = logs, dict.fromkeys(logs, 0)

    def assignment(self) -> set[TopicPartition]:
        return set(self.logs)

    async def end_offsets(self, tps: Any) -> dict[TopicPartition, int]:
        return {tp: len(self.logs[tp]) for tp in tps}

    async def beginning_offsets(self, tps: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 0)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.positions[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        return self.positions[tp]

    async def getmany(self, tp: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        first = self.positions[tp]
        self.positions[tp] = min(first + 3, len(self.logs[tp]))
        return {tp: self.logs[tp][first : first + 3]}


def letter(name: str, code: str = "too_large", topic: str = REQUESTS, **more: Any) -> DeadLetter:
    return DeadLetter(code, "m", topic, 1, 7, 0, "w1", b"k", name.encode(), **more)


async def redrive(
    kafka: FakeKafka, topics: list[str] | None = None, *, dry_run: bool = False, **options: Any
) -> RedriveReport:
    audit = AuditLog(kafka, "c")  # type: ignore[arg-type]
    return await Redrive(kafka, audit).run(  # type: ignore[arg-type]
        Selection(**options), topics, dry_run=dry_run, on_progress=lambda _report: None
    )


def names(kafka: FakeKafka) -> list[str]:
    return [(value or b"").decode() for _, _, value, _ in kafka.sent]


async def test_what_is_chosen_and_what_is_sent() -> None:
    kafka = FakeKafka(
        [
            (0, letter("a", original_headers=(("x", b"1"), ("inferd-error-code", b"older")))),
            (0, letter("b", "malformed")),
            (0, letter("c", omitted=(Omitted("value", 3, "00"),))),
            (1, letter("d", topic="other.source")),
            (1, letter("e", original_headers=((ATTEMPTS, b"2"),))),
            (1, letter("f", original_headers=((ATTEMPTS, b"3"),))),
        ]
    )
    kafka.dead[1].append(SimpleNamespace(partition=1, offset=3, key=None, value=b"?", headers=[]))
    skipped = {"incomplete": 1, "no dead letter": 1, "other topic": 1, "too many attempts": 1}
    dry = await redrive(kafka, code="too_large", dry_run=True)
    assert dry == RedriveReport(read=7, redriven=2, skipped=skipped, dry_run=True, done=True)
    assert (kafka.sent, kafka.audit) == ([], [])
    assert await redrive(kafka, code="too_large") == RedriveReport(read=7, redriven=2, skipped=skipped, done=True)
    assert kafka.sent == [
        (REQUESTS, 1, b"a", (("x", b"1"), (ATTEMPTS, b"1"))),
        (REQUESTS, 1, b"e", ((ATTEMPTS, b"3"),)),
    ]
    (record,) = (decode_audit(each.value) for each in kafka.audit)
    assert (record.action, record.details) == ("redrive", {"too_large": "2"})
    assert record.letters == {"0": [(0, 0)], "1": [(1, 1)]}
    again = await redrive(kafka, code="too_large")
    assert (again.redriven, again.skipped["already redriven"]) == (0, 2)
    assert (await redrive(kafka, topics=["other.source"])).redriven == 1
    assert names(kafka) == ["a", "e", "d"]


async def test_a_limit_is_repeated_until_done() -> None:
    kafka = FakeKafka([(n % 2, letter(str(n))) for n in range(5)])
    reports = [await redrive(kafka, limit=2) for _ in range(3)]
    assert [(each.redriven, each.done) for each in reports] == [(2, False), (2, False), (1, True)]
    assert sorted(names(kafka)) == ["0", "1", "2", "3", "4"]


async def test_a_redrive_that_was_fenced_says_so() -> None:
    kafka = FakeKafka([(0, letter("a"))])
    kafka.dies_after, kafka.fault = 0, ProducerFenced()
    with pytest.raises(ServerError, match="another redrive"):
        await redrive(kafka)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["a", "b"])), max_size=12),
    st.lists(
        st.tuples(st.sampled_from([None, "a", "b"]), st.none() | st.integers(1, 4), st.none() | st.integers(0, 6))
    ),
)
def test_whatever_is_repeated_or_killed_each_is_sent_once(
    codes: list[tuple[int, str]], runs: list[tuple[str | None, int | None, int | None]]
) -> None:
    async def run() -> None:
        kafka = FakeKafka([(partition, letter(f"{n}", code)) for n, (partition, code) in enumerate(codes)])
        for code, limit, dies_after in runs:
            kafka.dies_after = dies_after
            try:
                await redrive(kafka, code=code, limit=limit)
            except KeyboardInterrupt:
                assert dies_after is not None
        kafka.dies_after = None
        assert (await redrive(kafka)).done
        assert sorted(names(kafka), key=int) == [str(n) for n in range(len(codes))]

    asyncio.run(run())


def test_attempts_count_from_the_last_valid_header() -> None:
    assert attempts_of(()) == attempts_of(((ATTEMPTS, b"x"),)) == attempts_of(((ATTEMPTS, None),)) == 0
    assert attempts_of(((ATTEMPTS, b"1"), (ATTEMPTS, b"2"))) == 2
    twice = letter("a", original_headers=((ATTEMPTS, b"1"), (ATTEMPTS, b"2")))
    assert redriven_headers(twice) == [(ATTEMPTS, b"3")]


@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 9))))
def test_ranges_hold_just_what_was_redriven(places: set[tuple[int, int]]) -> None:
    redriven = Redriven()
    redriven.add(ranges_of(list(places)))
    redriven.add({"x": [(0, 9)]})
    assert {(p, n) for p in range(3) for n in range(10) if (p, n) in redriven} == places

"""Redrives dead letters: sends them again to the topic that they were read from.

Each batch is one transaction of the records and of an audit record that names their dead letters. A redrive first
fences all earlier ones, and then reads their audit records: a dead letter is redriven once, also if a redrive is killed
and repeated.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerFenced

from inferd.audit import AuditLog
from inferd.cluster import FAULTS, Cluster, records_between
from inferd.schemas.audit import HEADERS, AuditRecord, encode_audit
from inferd.schemas.dead_letters import DeadLetter
from inferd.schemas.errors import MalformedError, ServerError
from inferd.schemas.redrive import ATTEMPTS_MAX, Choice, Redriven, RedriveReport, ranges_of, redriven_headers
from inferd.schemas.topics import Stream

INPUTS: tuple[Stream, ...] = ("requests", "jobs", "labels", "rollouts")
"""Topics that records are sent to again; those of models would undo later changes."""
BATCH_MAX, BATCH_BYTES_MAX = 200, 1_048_576
OnRedriven = Callable[[RedriveReport], None]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are redriven; None: any."""

    code: str | None = None
    since: datetime | None = None
    limit: int | None = None
    attempts_max: int = ATTEMPTS_MAX


@dataclass(frozen=True, slots=True)
class _Letter:
    place: tuple[int, int]
    letter: DeadLetter

    @property
    def bytes(self) -> int:
        return len(self.letter.value or b"") + len(self.letter.key or b"")


class Redrive:
    """Redrives the dead letters of a tenant."""

    def __init__(self, cluster: Cluster, audit: AuditLog) -> None:
        self._cluster, self._audit = cluster, audit

    async def run(
        self, selection: Selection, topics: Sequence[str] | None, *, dry_run: bool, on_progress: OnRedriven
    ) -> RedriveReport:
        """See `Client.redrive_dead_letters`; `topics`: the only ones that records are sent to."""
        allowed = [self._cluster.topics.name(stream) for stream in INPUTS] if topics is None else topics
        choice = Choice(frozenset(allowed), selection.code, selection.attempts_max)
        if dry_run:
            return await self._run(_Run(choice, selection, None), on_progress)
        async with self._producer() as producer:
            # Started: earlier redrives are fenced, and their transactions have ended.
            return await self._run(_Run(choice, selection, producer), on_progress)

    async def _run(self, run: _Run, on_progress: OnRedriven) -> RedriveReport:
        async for record in self._audit.read():
            run.redriven.add(record.letters)
        partitions = await self._cluster.partitions("dead-letters")
        async with self._cluster.consumer("dead-letters", partitions) as consumer:
            async for record in records_between(consumer, run.selection.since):
                run.look_at(record)
                if run.is_full:
                    await self._send(run)
                    on_progress(run.report(done=False))
                if run.at_limit:
                    break
            await self._send(run)
        return run.report(done=not run.at_limit)

    async def _send(self, run: _Run) -> None:
        """Send what was chosen, in one transaction with the audit record."""
        chosen, run.chosen = run.chosen, []
        if chosen and run.producer is not None:
            try:
                await self._transaction(run.producer, chosen)
            except ProducerFenced as error:
                raise ServerError("another redrive of this tenant has started and has ended this one") from error
            except FAULTS as error:
                raise self._cluster.typed(error, "redriving dead letters") from error
        run.sent += len(chosen)

    async def _transaction(self, producer: AIOKafkaProducer, chosen: Sequence[_Letter]) -> None:
        actor = self._audit.actor()
        codes = Counter(each.letter.code for each in chosen)
        note = AuditRecord(
            at=int(time.time() * 1_000), action="redrive", subject=self._cluster.topics.name("dead-letters"),
            by=actor.name, origin=actor.origin, details={code: str(count) for code, count in codes.items()},
            letters=ranges_of([each.place for each in chosen]),
        )  # fmt: skip
        async with producer.transaction():
            sent = [await _send_again(producer, each.letter) for each in chosen]
            sent.append(
                await producer.send(
                    self._cluster.topics.name("audit"), encode_audit(note), partition=0, headers=list(HEADERS)
                )
            )
            for future in sent:
                await future

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[AIOKafkaProducer]:
        topics = self._cluster.topics
        for stream in ("dead-letters", "audit"):
            await self._cluster.partitions(stream)
        producer = self._cluster.transactional_producer(f"inferd-redrive-{topics.namespace}.{topics.tenant}")
        try:
            await producer.start()
        except (*FAULTS, KafkaError) as error:
            await producer.stop()
            raise self._cluster.typed(error, "starting a redrive") from error
        try:
            yield producer
        finally:
            await producer.stop()


class _Run:
    """One redrive: what was looked at, chosen and sent."""

    def __init__(self, choice: Choice, selection: Selection, producer: AIOKafkaProducer | None) -> None:
        """Without a producer nothing is sent."""
        self.choice, self.selection, self.producer = choice, selection, producer
        self.redriven = Redriven()
        self.chosen: list[_Letter] = []
        self.sent = self.read = 0
        self.skipped: Counter[str] = Counter()

    def look_at(self, record: Any) -> None:
        """Chooses a record of the topic, or counts why not."""
        self.read += 1
        try:
            letter = DeadLetter.parse(record.key, record.value, record.headers)
        except MalformedError:
            self.skipped["no dead letter"] += 1
            return
        if not self.choice.wants(letter):
            return
        place = (record.partition, record.offset)
        obstacle = "already redriven" if place in self.redriven else self.choice.obstacle(letter)
        if obstacle is None:
            self.chosen.append(_Letter(place, letter))
        else:
            self.skipped[obstacle] += 1

    @property
    def is_full(self) -> bool:
        """Whether what was chosen is to be sent."""
        return (
            self.at_limit or len(self.chosen) >= BATCH_MAX or sum(each.bytes for each in self.chosen) > BATCH_BYTES_MAX
        )

    @property
    def at_limit(self) -> bool:
        """Whether as many were chosen as were asked for."""
        limit = self.selection.limit
        return limit is not None and self.sent + len(self.chosen) >= limit

    def report(self, *, done: bool) -> RedriveReport:
        """What was done so far."""
        return RedriveReport(
            read=self.read, redriven=self.sent, skipped=dict(sorted(self.skipped.items())),
            dry_run=self.producer is None, done=done,
        )  # fmt: skip


async def _send_again(producer: AIOKafkaProducer, letter: DeadLetter) -> Awaitable[Any]:
    sent: Awaitable[Any] = await producer.send(
        letter.topic, letter.value, key=letter.key, partition=letter.partition, headers=redriven_headers(letter)
    )
    return sent

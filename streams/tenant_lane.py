"""The stage of prediction requests: one tenant's topics and models, and what follows from each of its records."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition

from schemas.headers import CONTENT_TYPE_HEADERS, RequestHeaders
from schemas.topics import TenantTopics
from streams.batch_scoring import BatchScoring
from streams.counters import Tally, TenantCounters
from streams.dead_letters import add_dead_letter
from streams.direct import DIRECT_PARTITION, DirectRequest, DirectRequests
from streams.effects import Effects, Outgoing, timestamps_of
from streams.fetch import Records
from streams.inference.micro_batch import CACHE_HIT, CACHE_MISS, Outcome, Record
from streams.inference.scoring import UNDECODABLE, Scorer
from streams.laps import Laps
from streams.predictions import Predictions
from streams.stage import Kind, Work
from streams.tables import LaneTable
from streams.tracing import OpenSpans, Tracing

DIRECT_MAX = 1_024
"""How many direct requests of a tenant may wait."""
CACHE_HEADERS: dict[int, tuple[str, bytes | None]] = {
    CACHE_MISS: ("inferd-cache", b"miss"),
    CACHE_HIT: ("inferd-cache", b"hit"),
}


@dataclass(frozen=True, slots=True)
class Timing:
    """When a micro-batch was scored, and how long that took."""

    started_ms: int
    """Unix milliseconds."""
    infer_us: int


class TenantLane:
    """What a lane needs to know of the requests of one tenant; a `Stage`."""

    kind: Kind = "requests"

    def __init__(
        self,
        topics: TenantTopics,
        scorer: Scorer,
        worker_id: str,
        partitions_of: dict[str, int],
        scoring: BatchScoring,
        predictions: Predictions | None = None,
        direct_max: int = DIRECT_MAX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`partitions_of`: the number of partitions of every topic that a reply may go to; `clock`: Unix seconds."""
        self.tenant = topics.tenant
        self.topic = topics.name("requests")
        self.scorer = scorer
        self.counters = TenantCounters(topics.tenant)
        self.tables: Sequence[LaneTable] = (predictions.table,) if predictions is not None else ()
        self.predictions = predictions
        self.direct = DirectRequests(direct_max)
        self.tracing: Tracing | None = None
        """What makes spans; None for none."""
        self._scoring = scoring
        self._clock = clock
        self._results = topics.name("results")
        self._dead_letters = topics.name("dead-letters")
        self._worker_id = worker_id
        self._worker = ("inferd-worker", worker_id.encode())
        self._partitions_of = partitions_of
        self._key_bytes_max = scorer.limits.key_bytes_max

    def unit(self, number: int) -> Hashable:
        return (self.topic, number)

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        yield TopicPartition(self._results, number)
        yield TopicPartition(self._dead_letters, number)
        for topic, partitions in self._partitions_of.items():
            yield TopicPartition(topic, number % partitions)

    def records_max(self) -> int:
        return self._scoring.records_max()

    @property
    def waits(self) -> bool:
        return self.direct.unanswered > 0

    async def process(self, work: Work) -> Sequence[Sequence[Effects]]:
        """Scores a micro-batch, and with it what was asked directly; those are answered here."""
        started_ms, started = int(self._clock() * 1000), time.perf_counter()
        asked = self.direct.take(self.records_max())
        parts: list[tuple[int, Sequence[Record]]] = [(tp.partition, records) for tp, records in work]
        if asked:
            parts.append((DIRECT_PARTITION, asked))
        if not parts:
            return []
        predictions = self.predictions
        cache = predictions.cache if predictions is not None else None
        fill_direct = predictions.open_number if predictions is not None and asked else None
        laps = Laps()
        outcome = await self._scoring.score(self.tenant, self.scorer, parts, cache, fill_direct, laps)
        timing = Timing(started_ms, int((time.perf_counter() - started) * 1e6))
        effects, start = [], 0
        for tp, records in work:
            span = range(start, start := start + len(records))
            effects.append(self.effects(tp, records, outcome, span, timing))
        self._add_changes(work, effects, outcome, started_ms)
        if asked:
            self._answer(asked, outcome, start)
        if self.tracing is not None and outcome.headers:
            self._add_spans(self.tracing.batch(self.topic, parts, outcome, laps), work, effects)
        return [[part] for part in effects]

    def _add_spans(self, spans: dict[int, OpenSpans], work: Work, effects: Sequence[Effects]) -> None:
        """Gives each partition's effects the spans that they end; direct requests are answered already."""
        if (direct := spans.get(DIRECT_PARTITION)) is not None:
            direct.landed()
        for (tp, _), part in zip(work, effects, strict=True):
            part.spans = spans.get(tp.partition)

    def _answer(self, asked: Sequence[DirectRequest], outcome: Outcome, start: int) -> None:
        tally = Tally(results=len(asked))
        for index, request in enumerate(asked, start):
            tally.bytes_out += len(outcome.values[index])
            if (error := outcome.failures.get(index)) is not None:
                tally.results -= 1
                tally.errors[error.code] += 1
            if not request.answer.done():
                request.answer.set_result(outcome.values[index])
        self.counters.requests_in += len(asked)
        self.counters.direct += len(asked)
        self.counters.add(tally)
        self._scoring.answered([request.timestamp for request in asked])

    def _add_changes(self, work: Work, effects: Sequence[Effects], outcome: Outcome, now_ms: int) -> None:
        """Gives each partition's effects what its cache gains and loses."""
        if self.predictions is None:
            return
        changes_of = dict(outcome.table_changes)
        for (tp, _), part in zip(work, effects, strict=True):
            changes = changes_of.pop(tp.partition, []) + self.predictions.due(tp.partition, now_ms)
            if changes:
                part.changes[self.predictions.partition(tp.partition)] = changes
        for number, changes in changes_of.items():
            self.predictions.keep(number, changes)

    async def opened(self, number: int) -> None:
        if self.predictions is not None:
            await self.predictions.open(number)

    def closed(self, number: int) -> None:
        if self.predictions is not None:
            self.predictions.close(number)

    def rewound(self, number: int, dropped: Sequence[Effects]) -> None:
        for effects in dropped:
            if effects.spans is not None:
                effects.spans.dropped()
        if self.predictions is not None:
            for effects in dropped:
                for changes in effects.changes.values():
                    self.predictions.forget(number, changes)

    def landed(self, number: int, effects: Effects) -> None:
        if effects.spans is not None:
            effects.spans.landed()

    def idle_effects(self, tp: TopicPartition, next_offset: int, now_ms: int) -> Effects | None:
        if self.predictions is None or not (changes := self.predictions.due(tp.partition, now_ms)):
            return None
        return Effects(next_offset, 0, [], changes={self.predictions.partition(tp.partition): changes})

    def effects(self, tp: TopicPartition, records: Records, outcome: Outcome, span: range, timing: Timing) -> Effects:
        """What follows from `records`, those of `outcome` at `span`, all of partition `tp` and in order."""
        timestamps = timestamps_of(records, timing.started_ms)
        values = outcome.values[span.start : span.stop]
        tally = Tally(results=len(records), bytes_out=sum(map(len, values)))
        effects = Effects(records[-1].offset + 1, len(records), timestamps, tally)
        headers = self._usual_headers(timestamps, timing)
        results: list[Outgoing] = [
            (record.key, value, headers[timestamp])
            for record, value, timestamp in zip(records, values, timestamps, strict=True)
        ]
        if outcome.cache_marks:
            self._mark(results, outcome.cache_marks[span.start : span.stop])
        effects.by_topic[self._results, tp.partition] = results
        self._add_unusual(effects, tp, results, records, outcome, span)
        return effects

    def _usual_headers(self, timestamps: Sequence[int], timing: Timing) -> dict[int, list[tuple[str, bytes | None]]]:
        """Headers of a result by the timestamp of its request: many requests share one. The content-type is first."""
        infer = ("inferd-infer-us", b"%d" % timing.infer_us)
        return {
            timestamp: [
                CONTENT_TYPE_HEADERS["msgpack"],
                self._worker,
                ("inferd-queue-us", b"%d" % (max(0, timing.started_ms - timestamp) * 1000)),
                infer,
            ]
            for timestamp in set(timestamps)
        }

    def _mark(self, results: list[Outgoing], marks: bytes) -> None:
        """Says of each result that was looked up whether the cache had it."""
        for place, mark in enumerate(marks):
            if mark:
                key, value, headers = results[place]
                results[place] = (key, value, [*headers, CACHE_HEADERS[mark]])

    def _add_unusual(
        self,
        effects: Effects,
        tp: TopicPartition,
        results: list[Outgoing],
        records: Records,
        outcome: Outcome,
        span: range,
    ) -> None:
        """What records with headers of their own, and records that failed, ask for beyond the usual."""
        for place in self._too_long_keys(records, outcome, span):
            results[place] = (None, *results[place][1:])
        if outcome.headers:
            self._apply_headers(effects, tp, results, outcome.headers, span)
        for index in sorted(outcome.failures):
            if index in span:
                error = outcome.failures[index]
                effects.tally.results -= 1
                effects.tally.errors[error.code] += 1
                if isinstance(error, UNDECODABLE):
                    record = records[index - span.start]
                    add_dead_letter(effects, self._dead_letters, record, tp, error, self._worker_id)

    def _too_long_keys(self, records: Records, outcome: Outcome, span: range) -> list[int]:
        """Places of refused records whose key no result can carry."""
        places = (index - span.start for index in outcome.failures if index in span)
        return [place for place in places if len(records[place].key or b"") > self._key_bytes_max]

    def _apply_headers(
        self,
        effects: Effects,
        tp: TopicPartition,
        results: list[Outgoing],
        headers_of: dict[int, RequestHeaders],
        span: range,
    ) -> None:
        elsewhere = []
        for place, index in enumerate(span):
            headers = headers_of.get(index)
            if headers is None:
                continue
            key, value, (_, *own) = results[place]
            results[place] = (key, value, [CONTENT_TYPE_HEADERS[headers.encoding], *headers.passed_through, *own])
            if headers.reply_to is not None:
                elsewhere.append(place)
                number = tp.partition % self._partitions_of[headers.reply_to]
                effects.add(headers.reply_to, number, results[place])
        for place in reversed(elsewhere):
            del results[place]

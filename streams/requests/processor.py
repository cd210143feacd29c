"""The processor of prediction requests of one tenant: turns records of `requests` into results and dead letters."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import accumulate, zip_longest

from aiokafka import TopicPartition

from inferd.schemas.errors import ModelNotReadyError, error_of_code
from inferd.schemas.topics import TenantTopics
from inferd.streams.http_requests import HttpAnswer, HttpRequest, HttpRequests
from inferd.streams.inference import (
    NeededVersions,
    Outcome,
    Record,
    Scorer,
)
from inferd.streams.inference.cache import HTTP_PARTITION
from inferd.streams.kafka import Destinations
from inferd.streams.lane import Kind, OutputBatch, Work
from inferd.streams.models.on_demand import OnDemandLoader
from inferd.streams.models.pauses import Pauses
from inferd.streams.models.waiting import Waiting
from inferd.streams.monitoring import CountedPart, Monitor
from inferd.streams.recording import Part, Recorder, record_scored
from inferd.streams.requests.batch_scoring import BatchScoring
from inferd.streams.requests.cache_table import CacheTable
from inferd.streams.requests.quota import Quota
from inferd.streams.requests.results import COLUMNS_MIN, ResultWriter, Timing
from inferd.streams.shadow import Shadows
from inferd.streams.state import LaneTable
from inferd.streams.telemetry import OpenSpans, StepTimer, Tally, TenantCounters, Tracing

DIRECT_MAX = 1_024
"""Limit of waiting direct requests (over HTTP) per tenant."""


class RequestProcessor:
    """Processes the prediction requests of one tenant in a lane."""

    kind: Kind = "requests"

    def __init__(
        self,
        topics: TenantTopics,
        scorer: Scorer,
        worker_id: str,
        destinations: Destinations,
        scoring: BatchScoring,
        predictions: CacheTable | None = None,
        direct_max: int = DIRECT_MAX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`destinations`: limits of the topics for results, replies and dead letters; `clock`: Unix seconds."""
        self.tenant = topics.tenant
        self.topic = topics.name("requests")
        self.scorer = scorer
        self.counters = TenantCounters(topics.tenant)
        self.tables: Sequence[LaneTable] = (predictions.table,) if predictions is not None else ()
        self.predictions = predictions
        self.direct = HttpRequests(direct_max)
        self.on_demand: OnDemandLoader | None = None
        """Loads models that are not loaded; None if all are."""
        self.quota = Quota()
        """How much is scored a second."""
        self.owned: set[int] = set()
        """The partitions that are open here."""
        self.pauses = Pauses()
        """Models whose requests wait."""
        self.shadows: Shadows | None = None
        """Scores requests with shadow versions; None if there are none."""
        self.tracing: Tracing | None = None
        """Creates spans; None without tracing."""
        self.recorders: Sequence[Recorder] = ()
        self.monitor: Monitor | None = None
        """Counts what versions score; None without."""
        self._scoring = scoring
        self._clock = clock
        self.results = ResultWriter(topics, worker_id, destinations, scorer.limits, scorer.version_of)

    def unit(self, number: int) -> Hashable:
        return (self.topic, number)

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        yield from self.results.topics(number)
        if self.monitor is not None:
            yield from self.monitor.outputs()
        for recorder in self.recorders:
            yield from recorder.outputs(number)

    def start(self, number: int) -> int | None:
        return None

    def records_max(self) -> int:
        return self._scoring.records_max()

    @property
    def waits(self) -> bool:
        return self.direct.unanswered > 0

    async def process(self, work: Work) -> Sequence[Sequence[OutputBatch]]:
        """Scores a micro-batch together with waiting HTTP requests, whose results are set here.

        Records that wait for their model or are beyond the quota, and those after them in their partition, are left for
        a later call.
        """
        asked = self.direct.take(self.records_max())
        bounded, paused = self.on_demand is not None and self.on_demand.bounded, self.pauses.models
        if not bounded and not paused and not self.quota.limited:
            return [[output] for output in await self._score_all(work, asked)]
        needed = self.scorer.needed_versions(int(self._clock() * 1000))
        if paused:
            asked = self._refuse_paused(asked, needed)
        waiting = Waiting(self.tenant, self.on_demand, needed, paused)
        ready = [(tp, waiting.ready(tp.partition, records)) for tp, records in work]
        if self.quota.limited:
            ready = [(tp, self.quota.within(records)) for tp, records in ready]
        left = {request for request in asked if waiting.waits(HTTP_PARTITION, request)}
        self.direct.put_back(left)
        asked = [request for request in asked if request not in left]
        pinned = nullcontext() if self.on_demand is None else self.on_demand.pinned(
            self.tenant, waiting.versions.values()
        )  # fmt: skip
        with pinned:
            outputs = iter(await self._score_all([part for part in ready if part[1]], asked))
        return [[next(outputs)] if records else [] for _, records in ready]

    def _refuse_paused(self, asked: Sequence[HttpRequest], needed: NeededVersions) -> list[HttpRequest]:
        """Answers HTTP requests to paused models at once: their callers wait. Returns the others."""
        left, tally = list[HttpRequest](), Tally()
        for request in asked:
            model_id = needed.model_of(HTTP_PARTITION, request)
            if model_id not in self.pauses.models:
                left.append(request)
                continue
            error = ModelNotReadyError(f"{self.pauses.reason('model', model_id)}; retry later")
            tally.results += 1
            tally.fail(error.code, None)
            if not request.answer.done():
                request.answer.set_exception(error)
        self.counters.requests_in += len(asked) - len(left)
        self.counters.direct += len(asked) - len(left)
        self.counters.add(tally)
        return left

    async def _score_all(self, work: Work, asked: Sequence[HttpRequest]) -> Sequence[OutputBatch]:
        """Like `_score`; many records, which are columns, are not mixed with HTTP requests, which are none."""
        if asked and sum(len(records) for _, records in work) >= COLUMNS_MIN:
            await self._score([], asked)
            asked = ()
        return await self._score(work, asked)

    async def _score(self, work: Work, asked: Sequence[HttpRequest]) -> Sequence[OutputBatch]:
        """Scores each part of `work`, none of which is empty; returns their output batches."""
        started_ms, started = int(self._clock() * 1000), time.perf_counter()
        parts: list[tuple[int, Sequence[Record]]] = [(tp.partition, records) for tp, records in work]
        if asked:
            parts.append((HTTP_PARTITION, asked))
        if not parts:
            return []
        predictions = self.predictions
        cache = predictions.cache if predictions is not None else None
        fill_direct = predictions.open_number if predictions is not None and asked else None
        step_timer = StepTimer()
        outcome = await self._scoring.score(self.tenant, self.scorer, parts, cache, fill_direct, step_timer)
        timing = Timing(started_ms, int((time.perf_counter() - started) * 1e6))
        outputs = self.results.outputs(work, outcome, timing)
        self._add_changes(work, outputs, outcome, started_ms)
        self._record(parts, outputs, outcome, started_ms)
        if self.monitor is not None:
            self._count(self.monitor, [*(records for _, records in work), asked], outputs, outcome)
        if asked:
            self._answer(asked, outcome)
        if self.shadows is not None and outcome.shadows:
            self._shadow(self.shadows, outcome, parts, outputs)
        if self.tracing is not None and outcome.headers:
            self._add_spans(self.tracing.batch(self.topic, parts, outcome, step_timer), work, outputs)
        return outputs

    def _shadow(
        self,
        shadows: Shadows,
        outcome: Outcome,
        parts: Sequence[tuple[int, Sequence[Record]]],
        outputs: Sequence[OutputBatch],
    ) -> None:
        """Passes the requests to the shadow versions once they are answered: those over HTTP have been by now."""
        ends = accumulate(len(records) for _, records in parts)
        work = [(*part, range(end - len(part[1]), end)) for part, end in zip(parts, ends, strict=True)]
        found = shadows.parts(self.tenant, outcome, work)
        for output, part in zip(outputs, found, strict=False):
            if part is not None:
                output.on_acked = partial(shadows.start, part)
        for part in found[len(outputs) :]:
            if part is not None:
                shadows.start_soon(part)

    def _add_spans(self, spans: dict[int, OpenSpans], work: Work, outputs: Sequence[OutputBatch]) -> None:
        """Attaches to each partition's output the spans that end with it; spans of HTTP requests end here."""
        if (direct := spans.get(HTTP_PARTITION)) is not None:
            direct.acked()
        for (tp, _), part in zip(work, outputs, strict=True):
            part.spans = spans.get(tp.partition)

    def _record(
        self,
        parts: Sequence[tuple[int, Sequence[Record]]],
        outputs: Sequence[OutputBatch],
        outcome: Outcome,
        now_ms: int,
    ) -> None:
        """Adds what recorders write to the output of each part; that of HTTP requests waits for the next output."""
        if not self.recorders:
            return
        start, of_outputs = 0, list[Part]()
        for (number, records), output in zip_longest(parts, outputs):
            of_outputs.append(Part(range(start, start := start + len(records)), number, records, output))
        record_scored(self.recorders, of_outputs, outcome, now_ms)

    def _count(
        self, monitor: Monitor, records: Sequence[Sequence[Record]], outputs: Sequence[OutputBatch], outcome: Outcome
    ) -> None:
        """Adds counts of what was scored to each partition's output. The last of the `records` came over HTTP."""
        stamps = [*(output.timestamps for output in outputs), [request.timestamp for request in records[-1]]]
        if resumed_ms := self.pauses.resumed_ms:
            # The time of a pause is not the latency of a version: guards of rollouts compare it.
            stamps = [[max(stamp, resumed_ms) for stamp in each] for each in stamps]
        ends = [*accumulate(map(len, stamps))]
        parts = [CountedPart(range(end - len(each), end), each) for end, each in zip(ends, stamps, strict=True)]

        def version_of(index: int) -> tuple[str, int] | None:
            place = bisect_right(ends, index)
            key = records[place][index - parts[place].span.start].key
            return self.scorer.version_of(outcome.asked.get(index), key)

        monitor.add([*outputs, None], parts, outcome, version_of)

    def _answer(self, asked: Sequence[HttpRequest], outcome: Outcome) -> None:
        tally = Tally(results=len(asked))
        for index, request in enumerate(asked, len(outcome.values) - len(asked)):
            tally.bytes_out += len(outcome.values[index])
            if (error := outcome.failures.get(index)) is not None:
                tally.fail(error.code, self.scorer.version_of(outcome.asked.get(index), request.key))
            if request.answer.done():
                continue
            if error is None:
                request.answer.set_result(HttpAnswer(outcome.values[index], outcome.variants.at(index)))
            else:
                # A new error: records may share one, which would accumulate the tracebacks of all raises.
                failure = error_of_code(error.code, error.message)
                failure.result_headers = outcome.variants.at(index)
                request.answer.set_exception(failure)
        self.counters.requests_in += len(asked)
        self.counters.direct += len(asked)
        self.counters.add(tally)
        self._scoring.answered([request.timestamp for request in asked])

    def _add_changes(self, work: Work, outputs: Sequence[OutputBatch], outcome: Outcome, now_ms: int) -> None:
        """Adds the changes of the cache table to each partition's output."""
        if self.predictions is None:
            return
        changes_of = dict(outcome.table_changes)
        for (tp, _), part in zip(work, outputs, strict=True):
            changes = changes_of.pop(tp.partition, []) + self.predictions.due(tp.partition, now_ms)
            if changes := self.predictions.writable(tp.partition, changes):
                part.changes[self.predictions.partition(tp.partition)] = changes
        for number, changes in changes_of.items():
            self.predictions.keep(number, changes)

    async def opened(self, number: int) -> None:
        self.owned.add(number)
        if self.predictions is not None:
            await self.predictions.open(number)

    def closed(self, number: int) -> None:
        self.owned.discard(number)
        if self.predictions is not None:
            self.predictions.close(number)

    def rewound(self, number: int, dropped: Sequence[OutputBatch]) -> None:
        for output in dropped:
            if output.spans is not None:
                output.spans.dropped()
        if self.predictions is not None:
            for output in dropped:
                for changes in output.changes.values():
                    self.predictions.forget(number, changes)

    def acked(self, number: int, output: OutputBatch) -> None:
        if output.spans is not None:
            output.spans.acked()
        if self.predictions is not None:
            for changes in output.changes.values():
                self.predictions.acked(number, changes)

    def idle_output(self, tp: TopicPartition, next_offset: int, now_ms: int) -> OutputBatch | None:
        output = OutputBatch(next_offset, 0, [])
        for recorder in self.recorders:
            recorder.add_late(tp.partition, output)
        if self.predictions is not None:
            changes = self.predictions.writable(tp.partition, self.predictions.due(tp.partition, now_ms))
            if changes:
                output.changes[self.predictions.partition(tp.partition)] = changes
        if self.monitor is not None:
            self.monitor.flush(output)
        return output if output.by_topic or output.changes else None

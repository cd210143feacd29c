"""The processor of one source topic of a route: turns its records into records of the sink and dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from aiokafka import TopicPartition

from inferd.schemas.requests import ModelReference
from inferd.schemas.routes import Route
from inferd.schemas.topics import TenantTopics
from inferd.streams.group import Records
from inferd.streams.inference import Outcome, Record
from inferd.streams.kafka import Destinations
from inferd.streams.lane import DeadLetters, Kind, OutputBatch, Work, timestamps_of
from inferd.streams.models.on_demand import OnDemandLoader
from inferd.streams.models.pauses import Pauses
from inferd.streams.monitoring import CountedPart, Monitor
from inferd.streams.recording import Part, Recorder, record_scored
from inferd.streams.requests import BatchScoring, CacheTable
from inferd.streams.routes.output import RouteOutput, Sink, before, is_tombstone
from inferd.streams.routes.scoring import RouteScorer
from inferd.streams.shadow import Shadows
from inferd.streams.state import LaneTable
from inferd.streams.telemetry import LaneMeasures, StepTimer, TenantCounters


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteContext:
    """What the routes of a tenant share."""

    topics: TenantTopics
    worker_id: str
    measures: LaneMeasures
    """Of all routes."""
    destinations: Destinations
    """Limits of sinks and of dead letters."""
    partitions_of: Callable[[str], int]
    """The partitions of a topic; 0 if it does not exist."""
    predictions: CacheTable | None = None
    """The prediction cache."""
    recorders: Sequence[Recorder] = ()
    on_demand: OnDemandLoader | None = None
    """Loads models that are not loaded."""
    shadows: Shadows | None = None
    """Scores records with shadow versions."""
    pauses: Pauses = field(default_factory=Pauses)
    """Models and routes whose records wait."""
    monitor: Monitor | None = None
    """Counts what versions score."""
    clock: Callable[[], float] = time.time
    """Unix seconds."""


class RouteProcessor:
    """Processes one source topic of a route in a lane."""

    kind: Kind = "routes"
    tables: Sequence[LaneTable] = ()
    waits = False

    def __init__(self, context: RouteContext, topic: str, scorer: RouteScorer, scoring: BatchScoring) -> None:
        self.topic = topic
        self.tenant_name = context.topics.tenant
        self.tenant = f"{self.tenant_name}/{scorer.route.name}"
        self.counters = TenantCounters(self.tenant_name)
        self.waiting: str | None = None
        """What the next records wait for; None if they are processed."""
        self._context = context
        self._scorer = scorer
        self._scoring = scoring
        self._partitions_of = context.partitions_of
        self._destinations = context.destinations
        dead_letters = context.topics.name("dead-letters")
        self._dead_letters = DeadLetters(dead_letters, context.worker_id, context.destinations)

    @property
    def route(self) -> Route:
        """The route, as it is processed now."""
        return self._scorer.route

    def use(self, scorer: RouteScorer) -> None:
        """Processes the next records by a changed route of the same name."""
        self._scorer = scorer

    def unit(self, number: int) -> Hashable:
        return (self.topic, number)

    def start(self, number: int) -> int | None:
        offsets = self.route.source.start.get(self.topic, [])
        return offsets[number] if number < len(offsets) else 0

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        sink = self.route.sink.topic
        yield TopicPartition(self._dead_letters.topic, self._dead_letter_partition(number))
        if self._context.monitor is not None:
            yield from self._context.monitor.outputs()
        partitions = self._partitions_of(sink)
        if partitions in (0, self._partitions_of(self.topic)):
            yield TopicPartition(sink, number)
        else:
            yield from (TopicPartition(sink, each) for each in range(partitions))
        for recorder in self._context.recorders:
            yield from recorder.outputs(number)

    def records_max(self) -> int:
        return self._scoring.records_max()

    async def process(self, work: Work) -> Sequence[Sequence[OutputBatch]]:
        """Scores a micro-batch. Records that wait for a model, a schema or the sink, and those after them in their
        partition, are left for a later call."""
        scorer = self._scorer
        self.waiting = self.reason_to_wait()
        if self.waiting is not None:
            return [[] for _ in work]
        valued = [(tp.partition, [record for record in records if not is_tombstone(record)]) for tp, records in work]
        parts: list[tuple[int, Sequence[Record]]] = [part for part in valued if part[1]]
        started_ms = int(self._context.clock() * 1000)
        step_timer = StepTimer()
        outcome = await self._score(scorer, parts, step_timer) if parts else Outcome([], {}, {}, 0, [], {})
        outputs, written, start = [], list[range](), 0
        for (tp, records), (_, scored) in zip(work, valued, strict=True):
            span = self._ready(outcome, range(start, start := start + len(scored)))
            ready = records if len(span) == len(scored) else before(records, len(span))
            outputs.append(self._output(scorer.route, tp, ready, outcome, span, started_ms))
            written.append(span)
        if self._context.monitor is not None and parts:
            self._count(self._context.monitor, [records for _, records in valued], outputs, written, outcome)
        self._trace(work, parts, outputs, written, outcome, step_timer)
        if self._context.recorders:
            of_parts = zip(valued, written, outputs, strict=True)
            taken = [Part(span, part[0], part[1], of[0], self.topic) for part, span, of in of_parts if of]
            record_scored(self._context.recorders, taken, outcome, started_ms)
        self._shadow(outcome, [(*part, span) for part, span in zip(valued, written, strict=True)], outputs)
        return outputs

    def _shadow(
        self,
        outcome: Outcome,
        work: Sequence[tuple[int, Sequence[Record], range]],
        outputs: Sequence[Sequence[OutputBatch]],
    ) -> None:
        """Passes the records of the outputs to the shadow versions, once these are acknowledged."""
        shadows = self._context.shadows
        if shadows is None or not outcome.shadows:
            return
        for part, steps in zip(shadows.parts(self.tenant_name, outcome, work), outputs, strict=True):
            if part is not None and steps:
                steps[-1].on_acked = partial(shadows.start, part)

    def _count(
        self,
        monitor: Monitor,
        records: Sequence[Sequence[Record]],
        outputs: Sequence[Sequence[OutputBatch]],
        written: Sequence[range],
        outcome: Outcome,
    ) -> None:
        """Adds counts of what was scored to each partition's output, without the records that are not ready."""
        now_ms = int(self._context.clock() * 1000)
        found = [
            (batches[0], CountedPart(span, timestamps_of(of_part[: len(span)], now_ms)))
            for of_part, batches, span in zip(records, outputs, written, strict=True)
            if batches and len(span)
        ]
        if found:
            monitor.add(
                [output for output, _ in found],
                [part for _, part in found],
                outcome,
                lambda index: self._scorer.version_of(outcome.asked.get(index)),
            )

    def _ready(self, outcome: Outcome, span: range) -> range:
        """The indexes of a partition up to the first one that is not ready."""
        if not outcome.unready:
            return span
        first = next((index for index in span if index in outcome.unready), None)
        if first is None:
            return span
        self.waiting = outcome.unready[first]
        return range(span.start, first)

    def _trace(
        self,
        work: Work,
        parts: Sequence[tuple[int, Sequence[Record]]],
        outputs: Sequence[Sequence[OutputBatch]],
        written: Sequence[range],
        outcome: Outcome,
        step_timer: StepTimer,
    ) -> None:
        """Attaches to each partition's output the spans that end with it."""
        tracing = self._context.measures.tracing
        if tracing is None or not parts:
            return
        indexes = {index for span in written for index in span}
        spans = tracing.route_batch(self.topic, parts, indexes, outcome, step_timer)
        for (tp, _), batches in zip(work, outputs, strict=True):
            for output in batches:
                output.spans = spans.get(tp.partition)

    async def _score(
        self, scorer: RouteScorer, parts: Sequence[tuple[int, Sequence[Record]]], step_timer: StepTimer
    ) -> Outcome:
        predictions, fill = self._context.predictions, None
        if predictions is not None:
            fill = predictions.open_number
        cache = predictions.cache if predictions is not None else None
        on_demand, batches = self._context.on_demand, scorer.of_topic(self.topic)
        if on_demand is None or not on_demand.bounded:
            outcome = await self._scoring.score(self.tenant_name, batches, parts, cache, fill, step_timer)
        else:
            with on_demand.pinned(self.tenant_name, scorer.versions()):
                outcome = await self._scoring.score(self.tenant_name, batches, parts, cache, fill, step_timer)
        if predictions is not None:
            for number, changes in outcome.table_changes.items():
                predictions.keep(number, changes)
        return outcome

    def reason_to_wait(self) -> str | None:
        """What every record would wait for; None if records can be processed."""
        scorer, pauses = self._scorer, self._context.pauses
        model_id = ModelReference.parse(scorer.route.model).name
        for reason in (pauses.reason("route", scorer.route.name), pauses.reason("model", model_id)):
            if reason is not None:
                return reason
        if not self._partitions_of(scorer.route.sink.topic):
            return f"topic {scorer.route.sink.topic} does not exist: create it"
        if (reason := scorer.fit()) is not None:
            return reason
        on_demand = self._context.on_demand
        if on_demand is not None and on_demand.bounded:
            loading = [v for v in scorer.versions() if on_demand.waits_for(self.tenant_name, v)]
            if loading:
                manifest = loading[0].manifest
                return f"{manifest.model_id}:{manifest.version} is being loaded"
        return None

    def _output(
        self, route: Route, tp: TopicPartition, records: Records, outcome: Outcome, span: range, now_ms: int
    ) -> list[OutputBatch]:
        """The output of records of a partition, whose values are at `span` in `outcome`; empty if there are none."""
        if not records:
            return []
        output = OutputBatch(records[-1].offset + 1, len(records), timestamps_of(records, now_ms))
        topic = route.sink.topic
        sink = Sink(topic, self._partitions_of(self.topic), self._partitions_of(topic), self._destinations)
        dead_letter_partition = self._dead_letter_partition(tp.partition)
        RouteOutput(
            output, tp, sink, self._dead_letters, dead_letter_partition, self._scorer.version_of,
            route.source.tombstones,
        ).fill(records, outcome, span)  # fmt: skip
        return [output]

    def _dead_letter_partition(self, number: int) -> int:
        return number % max(1, self._partitions_of(self._dead_letters.topic))

    async def opened(self, number: int) -> None:
        """Nothing to open: a route has no tables."""

    def closed(self, number: int) -> None:
        """Nothing to close."""

    def rewound(self, number: int, dropped: Sequence[OutputBatch]) -> None:
        for output in dropped:
            if output.spans is not None:
                output.spans.dropped()

    def acked(self, number: int, output: OutputBatch) -> None:
        """Measures how long the records took, and ends their spans."""
        if output.spans is not None:
            output.spans.acked()
        if output.records:
            self._context.measures.end_to_end.observe_since(output.timestamps, self._context.clock() * 1000)

    def idle_output(self, tp: TopicPartition, next_offset: int, now_ms: int) -> OutputBatch | None:
        output = OutputBatch(next_offset, 0, [])
        if self._context.monitor is not None:
            self._context.monitor.flush(output)
        return output if output.by_topic else None

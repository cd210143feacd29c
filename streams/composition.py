"""Composes a worker's lane: the processors and tables of each tenant, and the processing guarantee of each topic."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition

from inferd.schemas.protocols import Exchanges
from inferd.schemas.rollouts import Metric
from inferd.schemas.routes import Route
from inferd.schemas.topics import LABEL_STREAMS, LIFECYCLE_STREAMS, Stream, TenantTopics
from inferd.streams.admission import Admission
from inferd.streams.capture import Capture
from inferd.streams.inference import Scorer
from inferd.streams.jobs.composition import TenantJobs, compose_jobs
from inferd.streams.jobs.moving import move_job
from inferd.streams.jobs.reader import RecordReader
from inferd.streams.kafka import Destinations, TopicWatch, UsedPartitions, unit_of
from inferd.streams.labels import TenantLabels, compose_labels
from inferd.streams.lane import (
    AtLeastOnce,
    ByTopic,
    ExactlyOnce,
    Guarantee,
    KeyedTable,
    MakeGuarantee,
    Move,
    OnAcked,
    OnFailed,
    Processor,
)
from inferd.streams.lifecycle import TenantLifecycle, compose_lifecycle
from inferd.streams.models.follower import ModelFollower
from inferd.streams.monitoring import Monitor
from inferd.streams.prediction_runner import PredictionRunner
from inferd.streams.recording import Recorder
from inferd.streams.requests import BatchScoring, BatchSizer, CacheTable, Quota, RequestProcessor
from inferd.streams.rollouts import MEASURED, RolloutProcessor, RolloutStore
from inferd.streams.routes import (
    RouteContext,
    RouteParts,
    RouteProcessor,
    RouteScorer,
    RouteService,
    RouteTable,
    route_unit,
)
from inferd.streams.routes.formats import Schemas
from inferd.streams.serving import UserCode
from inferd.streams.settings import StreamSettings
from inferd.streams.shadow import ShadowPublisher, Shadows, ShadowScoring
from inferd.streams.state import LaneTable, make_table
from inferd.streams.tasks import OnCrash, Slices
from inferd.streams.telemetry import LaneMeasures

OWNER_STREAMS: tuple[Stream, ...] = ("jobs", "job-results", *LIFECYCLE_STREAMS, *LABEL_STREAMS)
"""Topics whose owners have state that only they may write."""


@dataclass(frozen=True, slots=True)
class TenantParts:
    """The lane processors of one tenant."""

    requests: RequestProcessor
    jobs: TenantJobs
    lifecycle: TenantLifecycle
    rollouts: RolloutProcessor
    monitor: Monitor
    capture: Capture | None
    """None if no requests are captured."""
    labels: TenantLabels | None
    """None if predictions do not wait for labels."""

    @property
    def recorders(self) -> Sequence[Recorder]:
        """What writes records beside the results of requests and routes."""
        labels = self.labels.predictions if self.labels is not None else None
        return [recorder for recorder in (self.capture, labels) if recorder is not None]

    @property
    def processors(self) -> Sequence[Processor]:
        labels = self.labels.processors if self.labels is not None else ()
        return (self.requests, *self.jobs.processors, *self.lifecycle.processors, self.rollouts, *labels)

    @property
    def tables(self) -> Sequence[LaneTable]:
        labels = (self.labels.store.table,) if self.labels is not None else ()
        return (*self.requests.tables, self.jobs.owned.table, *self.lifecycle.tables, *labels)

    def keyed_tables(self, settings: StreamSettings, used: UsedPartitions) -> Iterator[KeyedTable]:
        """The tables whose partition is the hash of an id."""
        tenant = self.jobs.owned.tenant
        topics = TenantTopics(settings.namespace, tenant)
        read = topics.name("jobs"), topics.name("job-results")
        yield KeyedTable(self.jobs.owned.table, read, partial(move_job, topics), partial(used.of, tenant, "jobs"))
        if self.labels is not None:
            read = topics.name("labels"), topics.name("to-label")
            yield KeyedTable(
                self.labels.store.table, read, lambda _key, value, _old, _new: Move(value),
                partial(used.of, tenant, "labels"),
            )  # fmt: skip


def compose_shadows(settings: StreamSettings, follower: ModelFollower, destinations: Destinations) -> Shadows:
    """What scores requests and records of routes with shadow versions."""
    names = {tenant: TenantTopics(settings.namespace, tenant) for tenant in settings.tenants}
    publisher = ShadowPublisher(settings, destinations)
    return Shadows(
        names, follower.catalogs, ShadowScoring(settings.worker_id), publisher, follower.on_demand.prefer
    )  # fmt: skip


def compose_tenants(  # noqa: PLR0913, PLR0915, PLR0917  (one statement for each part)
    app: Any,
    settings: StreamSettings,
    follower: ModelFollower,
    measures: LaneMeasures,
    reader: RecordReader,
    directory: Path | None,
    user_code: UserCode,
    destinations: Destinations,
    used: UsedPartitions,
) -> Mapping[str, TenantParts]:
    """The parts of each tenant, by name. Their tables are declared in the app; `directory` holds local state stores."""
    parts, slices = {}, Slices()
    for tenant in settings.tenants:
        catalog = follower.catalogs[tenant]
        table = make_table(app, settings, tenant, "predictions", directory)
        predictions = CacheTable(tenant, table, catalog, settings.cache.ttl_max_s, destinations)
        predictions.slices = slices
        names = TenantTopics(settings.namespace, tenant)
        exchanges = Exchanges(settings.limits, settings.group.group_id, names.name("requests"))
        ask, ask_rows = user_code.ask(tenant), user_code.ask_rows(tenant)
        scorer = Scorer(catalog, settings.limits, settings.reply_to_allowed, ask, ask_rows, exchanges)
        runner = PredictionRunner("inferd-requests", measures, settings.lane.inline_ms_max)
        scoring = BatchScoring(measures, BatchSizer(settings.lane), runner, time.time)
        requests = RequestProcessor(names, scorer, settings.worker_id, destinations, scoring, predictions)
        requests.tracing, requests.on_demand = measures.tracing, follower.on_demand
        requests.monitor = monitor = Monitor(
            names.name("model-stats"),
            settings.monitor.mode,
            partial(follower.baseline, tenant),
            learns=True,
            exact=settings.processing_guarantee == "exactly_once",
        )
        jobs_table = make_table(app, settings, tenant, "jobs", directory)
        process_batch = user_code.process_batch(tenant)
        jobs = compose_jobs(
            settings, tenant, jobs_table, catalog, reader, measures, destinations, process_batch,
            partial(used.of, tenant, "jobs"),
        )  # fmt: skip
        jobs.owned.slices = slices
        jobs.chunks.on_demand = follower.on_demand
        requests.quota = Quota(settings.quota.requests_per_s.of(tenant), settings.quota.bytes_per_s.of(tenant))
        requests.pauses = jobs.chunks.pauses = follower.pauses[tenant]
        windows = make_table(app, settings, tenant, "model-windows", directory)
        rollouts_table = make_table(app, settings, tenant, "rollouts", directory)
        lifecycle = compose_lifecycle(
            settings, tenant, windows, (rollouts_table,), destinations, partial(follower.baseline, tenant)
        )
        lifecycle.windows.slices = slices
        owned = RolloutStore(tenant, rollouts_table)
        owned.slices = slices
        measured: set[Metric] = set()
        if settings.monitor.mode != "off":
            measured = {*MEASURED, "auc"} if settings.labels_window_s else {*MEASURED}
        rollouts = RolloutProcessor(lifecycle.context, owned, lifecycle.windows, follower.of(tenant), measured)
        capture = labels = None
        if settings.capture_share:
            capture = Capture(names.name("capture"), settings.capture_share, destinations)
        if settings.labels_window_s:
            labels_table = make_table(app, settings, tenant, "labels", directory)
            labels = compose_labels(settings, tenant, labels_table, destinations, partial(used.of, tenant, "labels"))
            labels.store.slices = slices
        parts[tenant] = TenantParts(requests, jobs, lifecycle, rollouts, monitor, capture, labels)
        requests.recorders = parts[tenant].recorders
    return parts


@dataclass(frozen=True, slots=True)
class RouteInputs:
    """What the routes of a worker are made from."""

    table: RouteTable
    measures: LaneMeasures
    """Apart from those of requests."""
    schemas: Schemas | None
    """Those of the schema registry, if there is one."""
    shadows: Shadows


def compose_routes(
    settings: StreamSettings,
    inputs: RouteInputs,
    tenants: Mapping[str, TenantParts],
    follower: ModelFollower,
    topics: TopicWatch,
    destinations: Destinations,
    admission: Admission,
) -> RouteService:
    """The routes of a worker."""
    table, measures, schemas = inputs.table, inputs.measures, inputs.schemas

    def scorer(tenant: str, route: Route) -> RouteScorer:
        return RouteScorer(route, follower.catalogs[tenant], settings.limits, settings.group.group_id, schemas)

    def processor(names: TenantTopics, topic: str, scorer: RouteScorer) -> RouteProcessor:
        runner = PredictionRunner("inferd-routes", measures, settings.lane.inline_ms_max)
        scoring = BatchScoring(measures, BatchSizer(settings.lane), runner, time.time)
        context = RouteContext(
            topics=names, worker_id=settings.worker_id, measures=measures, destinations=destinations,
            partitions_of=topics.partitions_of,
            predictions=tenants[names.tenant].requests.predictions,
            recorders=tenants[names.tenant].recorders, on_demand=follower.on_demand,
            shadows=inputs.shadows,
            monitor=tenants[names.tenant].monitor,
            pauses=follower.pauses[names.tenant],
        )  # fmt: skip
        return RouteProcessor(context, topic, scorer, scoring)

    return RouteService(
        settings, table, topics, destinations, RouteParts(processor, scorer), admission.missing,
        lambda tenant: admission.unserved_reason(tenant) is None,
    )  # fmt: skip


def guarantee_of(
    settings: StreamSettings,
    measures: LaneMeasures,
    destinations: Destinations,
    processors: Mapping[str, Processor],
) -> MakeGuarantee:
    """A factory of a lane's guarantee: that of the settings, and always `exactly_once` for `OWNER_STREAMS`.

    `processors`: those of the lane by topic, as they are now.
    """

    def unit(tp: TopicPartition) -> str:
        processor = processors.get(tp.topic)
        return route_unit(tp) if processor and processor.kind == "routes" else unit_of(tp)

    def tenant_of(topic: str) -> str:
        processor = processors.get(topic)
        return processor.tenant if processor else ""

    def make(on_acked: OnAcked, on_failed: OnFailed, on_crash: OnCrash) -> Guarantee:
        once = ExactlyOnce(settings, measures, on_acked, unit, destinations)
        if settings.processing_guarantee == "exactly_once":
            return once
        usual = AtLeastOnce(settings, measures, on_acked, on_failed, on_crash, destinations, tenant_of)
        owners = [
            TenantTopics(settings.namespace, tenant).name(stream)
            for tenant in settings.tenants
            for stream in OWNER_STREAMS
        ]  # fmt: skip
        return ByTopic(usual, once, owners)

    return make

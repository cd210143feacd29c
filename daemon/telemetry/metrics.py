"""Metrics for Prometheus, made from a snapshot when they are scraped. `METRICS` is the one table of their names.

Labels take their values from what is configured or deployed (tenants, topics, models) and from fixed sets (codes,
phases), never from what a request says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from inferd.daemon.telemetry.latency import cumulative
from inferd.daemon.telemetry.status import Stage, StatusBoard, TrafficSource
from inferd.daemon.version import inferd_version
from inferd.streams.telemetry import (
    CacheSnapshot,
    JobsSnapshot,
    LatencySnapshot,
    ModelSnapshot,
    PartitionSnapshot,
    Phase,
    Step,
    StreamsSnapshot,
    TenantSnapshot,
)

MetricType = Literal["counter", "gauge", "histogram"]
Samples = Iterable[tuple[tuple[str, ...], Any]]
PHASES = tuple(dict.fromkeys((*get_args(Stage), *get_args(Phase))))


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the metrics of one scrape are read from."""

    board: StatusBoard
    snapshot: StreamsSnapshot | None


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """One metric: `read` gives its samples as (label values, value)."""

    name: str
    type: MetricType
    labels: tuple[str, ...]
    meaning: str
    read: Callable[[Scrape], Samples]


def _of_process(name: str, meaning: str, read: Callable[[Scrape], Samples], labels: tuple[str, ...] = ()) -> MetricInfo:
    return MetricInfo(name, "gauge", labels, meaning, read)


def _of_streams(
    name: str, type_: MetricType, meaning: str, value: Callable[[StreamsSnapshot], float | LatencySnapshot]
) -> MetricInfo:
    def read(scrape: Scrape) -> Samples:
        return [] if scrape.snapshot is None else [((), value(scrape.snapshot))]

    return MetricInfo(name, type_, (), meaning, read)


def _of_tenants(name: str, type_: MetricType, meaning: str, value: Callable[[TenantSnapshot], float]) -> MetricInfo:
    def read(scrape: Scrape) -> Samples:
        return [((item.tenant,), value(item)) for item in scrape.snapshot.tenants] if scrape.snapshot else []

    return MetricInfo(name, type_, ("tenant",), meaning, read)


def _of_partitions(name: str, meaning: str, value: Callable[[PartitionSnapshot], int | None]) -> MetricInfo:
    def read(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
        for item in scrape.snapshot.partitions if scrape.snapshot else ():
            if (known := value(item)) is not None:
                yield (item.topic, str(item.partition)), known

    return MetricInfo(name, "gauge", ("topic", "partition"), meaning, read)


def _of_models(name: str, meaning: str, value: Callable[[ModelSnapshot], float]) -> MetricInfo:
    def read(scrape: Scrape) -> Samples:
        return [(_model_labels(item), value(item)) for item in scrape.snapshot.models] if scrape.snapshot else []

    return MetricInfo(name, "counter", ("tenant", "model", "version"), meaning, read)


def _of_caches(
    name: str, type_: MetricType, meaning: str, value: Callable[[CacheSnapshot], float | None]
) -> MetricInfo:
    def read(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], float]]:
        for item in scrape.snapshot.cache if scrape.snapshot else ():
            if (known := value(item)) is not None:
                yield _model_labels(item), known

    return MetricInfo(name, type_, ("tenant", "model", "version"), meaning, read)


def _of_jobs(name: str, type_: MetricType, meaning: str, value: Callable[[JobsSnapshot], float]) -> MetricInfo:
    def read(scrape: Scrape) -> Samples:
        return [((item.tenant,), value(item)) for item in scrape.snapshot.jobs] if scrape.snapshot else []

    return MetricInfo(name, type_, ("tenant",), meaning, read)


def _counted_jobs(
    name: str, label: str, meaning: str, counts: Callable[[JobsSnapshot], Mapping[str, int]]
) -> MetricInfo:
    def read(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
        for item in scrape.snapshot.jobs if scrape.snapshot else ():
            for key, count in sorted(counts(item).items()):
                yield (item.tenant, key), count

    return MetricInfo(name, "counter", ("tenant", label), meaning, read)


def _steps(scrape: Scrape) -> Samples:
    return [((step,), histogram) for step, histogram in scrape.snapshot.steps.items()] if scrape.snapshot else []


def _model_labels(model: ModelSnapshot | CacheSnapshot) -> tuple[str, str, str]:
    return model.tenant, model.model_id, str(model.version)


def _by_route(traffic: TrafficSource) -> Samples:
    return [((route,), latency) for route, latency in sorted(traffic.latencies().items())]


def _errors(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
    """Errors by model and version as far as they are deployed, and what is left under no name."""
    for tenant in scrape.snapshot.tenants if scrape.snapshot else ():
        left = dict(tenant.errors)
        for each in tenant.model_errors:
            yield (tenant.tenant, each.model_id, str(each.version), each.code), each.count
            left[each.code] -= each.count
        for code, count in sorted(left.items()):
            if count:
                yield (tenant.tenant, "", "", code), count


def _model_states(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
    for model in scrape.snapshot.models if scrape.snapshot else ():
        yield (*_model_labels(model), model.state), 1


def _dangling_aliases(scrape: Scrape) -> Samples:
    if scrape.snapshot is None:
        return []
    by_tenant = Counter(item.tenant for item in scrape.snapshot.dangling_aliases)
    return [((tenant,), by_tenant[tenant]) for tenant in scrape.board.settings.tenants]


def _phases(scrape: Scrape) -> Samples:
    phase, _ = scrape.board.phase(scrape.snapshot)
    return [((name,), int(name == phase)) for name in PHASES]


STEPS: dict[Step, str] = {
    "load": "A model version is tried in a subprocess and loaded.",
    "receive": "Requests of a micro-batch come through Kafka and wait to be taken: the longest from its timestamp on.",
    "validate": "Headers, deadlines and envelopes of a micro-batch are checked.",
    "preprocess": "Its rows are checked against the features of their models, and become matrices.",
    "lookup": "Its rows are looked up in the prediction cache, as far as their models have one.",
    "predict": "Its models are run.",
    "postprocess": "Predictions become outputs, cache entries and encoded results.",
    "respond": "Results of a micro-batch and partition are published, until the broker has acknowledged them.",
    "queue": "A message of a job waits to be taken by its owner, or a chunk to be scored, from its timestamp on.",
    "chunk": "Messages of jobs are checked and cut into chunks.",
    "process": "Chunks are read, validated, predicted and encoded.",
    "store": "Results of chunks are published, until the broker has acknowledged them.",
    "retrieve": "The result of one chunk is read back for somebody who asked.",
}
"""What each step of `inferd_step_seconds` is: first those of requests, then those of jobs."""

METRICS: tuple[MetricInfo, ...] = (
    _of_process(
        "inferd_build_info",
        "Always 1; the labels name the version and the worker.",
        lambda scrape: [((inferd_version(), scrape.board.settings.worker_id), 1)],
        ("version", "worker"),
    ),
    _of_process("inferd_uptime_seconds", "Since the process started.", lambda scrape: [((), scrape.board.uptime_s)]),
    _of_process(
        "inferd_ready",
        "1 where `/readyz` answers 200, else 0.",
        lambda scrape: [((), int(not scrape.board.unready(scrape.snapshot)))],
    ),
    _of_process("inferd_phase", "1 for the phase that the worker is in, 0 for the others.", _phases, ("phase",)),
    _of_process(
        "inferd_phase_seconds",
        "How long the worker has been in its phase.",
        lambda scrape: [((), scrape.board.phase(scrape.snapshot)[1])],
    ),
    _of_process(
        "inferd_event_loop_lag_seconds",
        "By how much the event loop's last timer was late.",
        lambda scrape: [((), scrape.board.event_loop_lag_s)],
    ),
    _of_streams("inferd_group_generation", "gauge", "Generation of the consumer group.", lambda s: s.generation),
    _of_streams(
        "inferd_rebalances_total", "counter", "Rebalances that this worker took part in.", lambda s: s.rebalances
    ),
    _of_tenants(
        "inferd_requests_total", "counter", "Requests taken, from Kafka and over HTTP.", lambda t: t.requests_in
    ),
    _of_tenants("inferd_direct_requests_total", "counter", "Those of them that came over HTTP.", lambda t: t.direct),
    _of_tenants(
        "inferd_results_total",
        "counter",
        "Predictions that the broker acknowledged, or that were answered over HTTP.",
        lambda t: t.results,
    ),
    MetricInfo(
        "inferd_errors_total",
        "counter",
        ("tenant", "model", "version", "code"),
        "Typed errors that the broker acknowledged, or that were answered over HTTP; `model` and `version` are those"
        " deployed that the request asked for, and empty where there are none.",
        _errors,
    ),
    _of_tenants("inferd_dead_letters_total", "counter", "Records copied to dead-letters.", lambda t: t.dead_letters),
    _of_tenants("inferd_pending_requests", "gauge", "Requests taken and not yet answered.", lambda t: t.pending),
    _of_tenants("inferd_published_bytes_total", "counter", "Bytes of results and dead letters.", lambda t: t.bytes_out),
    _of_partitions("inferd_partition_position", "Next offset to take.", lambda p: p.position),
    _of_partitions("inferd_partition_committed_offset", "Committed offset.", lambda p: p.committed),
    _of_partitions("inferd_partition_end_offset", "End of the log, as far as it is known.", lambda p: p.end),
    _of_partitions("inferd_partition_lag_records", "End of the log less the committed offset.", lambda p: p.lag),
    _of_partitions("inferd_partition_queued_records", "Fetched and not yet scored.", lambda p: p.queued),
    _of_partitions("inferd_partition_in_flight_records", "Published and not yet acknowledged.", lambda p: p.in_flight),
    MetricInfo(
        "inferd_model_state",
        "gauge",
        ("tenant", "model", "version", "state"),
        "1 with the state that the version is in: fetching, trying, ready or failed.",
        _model_states,
    ),
    MetricInfo(
        "inferd_dangling_aliases",
        "gauge",
        ("tenant",),
        "Aliases that lead to a version that is not deployed: requests to them end as `version_not_found`.",
        _dangling_aliases,
    ),
    _of_models("inferd_model_requests_total", "Requests that the version answered.", lambda m: m.requests),
    _of_models("inferd_model_rows_total", "Rows that it scored.", lambda m: m.rows),
    _of_models("inferd_model_predict_seconds_total", "Time spent in its predictions.", lambda m: m.predict_s),
    MetricInfo(
        "inferd_http_requests_total",
        "counter",
        ("method", "route", "status"),
        "HTTP requests by the status of their answer; 499: the client hung up before its request was complete.",
        lambda scrape: [] if scrape.board.traffic is None else sorted(scrape.board.traffic.answers.items()),
    ),
    MetricInfo(
        "inferd_http_request_seconds",
        "histogram",
        ("route",),
        "From the headers of an HTTP request to its answer.",
        lambda scrape: [] if scrape.board.traffic is None else _by_route(scrape.board.traffic),
    ),
    _of_streams("inferd_batches_total", "counter", "Micro-batches scored.", lambda s: s.batches),
    _of_streams("inferd_batch_rows_last", "gauge", "Requests of the last micro-batch.", lambda s: s.batch_rows_last),
    _of_streams(
        "inferd_queue_seconds",
        "histogram",
        "From a record's timestamp to its scoring; an hour at most.",
        lambda s: s.queue,
    ),
    _of_streams("inferd_infer_seconds", "histogram", "Scoring of a micro-batch.", lambda s: s.infer),
    _of_streams(
        "inferd_end_to_end_seconds",
        "histogram",
        "From a record's timestamp to the broker's acknowledgement of its result; an hour at most.",
        lambda s: s.end_to_end,
    ),
    _of_streams(
        "inferd_direct_seconds", "histogram", "From a request over HTTP to its answer by the lane.", lambda s: s.direct
    ),
    MetricInfo(
        "inferd_step_seconds",
        "histogram",
        ("step",),
        "Each step of the work, once a micro-batch, model version, message or chunk; the steps are listed below.",
        _steps,
    ),
    _of_caches("inferd_cache_hits_total", "counter", "Rows that the prediction cache had.", lambda c: c.hits),
    _of_caches("inferd_cache_misses_total", "counter", "Rows looked up that it did not have.", lambda c: c.misses),
    _of_caches("inferd_cache_fills_total", "counter", "Entries made of fresh answers.", lambda c: c.fills),
    _of_caches("inferd_cache_evictions_total", "counter", "Entries that left for others.", lambda c: c.evictions),
    _of_caches("inferd_cache_expirations_total", "counter", "Entries past their time.", lambda c: c.expirations),
    _of_caches("inferd_cache_entries", "gauge", "Entries of the partitions owned here.", lambda c: c.entries),
    _of_caches("inferd_cache_bytes", "gauge", "Keys and values of these entries.", lambda c: c.n_bytes),
    _of_caches("inferd_cache_lookup_seconds_total", "counter", "Time spent on looking up.", lambda c: c.lookup_s),
    _of_caches("inferd_cache_fill_seconds_total", "counter", "Time spent on making entries.", lambda c: c.fill_s),
    _of_caches(
        "inferd_cache_saved_seconds",
        "gauge",
        "What the model would have taken for the hits, at its mean cost, less what looking up and filling took: below"
        " zero, the cache does not pay. Absent until 1,000 rows were looked up and 1,000 were predicted.",
        lambda c: c.saved_s,
    ),
    _of_jobs("inferd_jobs_open", "gauge", "Jobs owned here that have not ended.", lambda j: j.open),
    _of_jobs("inferd_jobs_open_rows", "gauge", "Rows that these were handed.", lambda j: j.open_rows),
    _of_jobs("inferd_job_rows_total", "counter", "Rows that jobs owned here were handed.", lambda j: j.rows_in),
    _of_jobs(
        "inferd_job_rows_succeeded_total",
        "counter",
        "Rows of jobs owned here that succeeded.",
        lambda j: j.rows_succeeded,
    ),
    _of_jobs(
        "inferd_job_rows_failed_total",
        "counter",
        "Rows of jobs owned here that failed; those that fail again in a retry count once more.",
        lambda j: j.rows_failed,
    ),
    _counted_jobs("inferd_jobs_ended_total", "status", "Jobs owned here that ended, by status.", lambda j: j.ended),
    _counted_jobs(
        "inferd_job_messages_refused_total",
        "code",
        "Messages of jobs that were refused; each is a dead letter.",
        lambda j: j.refused,
    ),
    _of_jobs("inferd_job_chunks_total", "counter", "Chunks scored here, of any worker's jobs.", lambda j: j.chunks),
    _of_jobs("inferd_job_chunk_rows_total", "counter", "Rows of these chunks.", lambda j: j.chunk_rows),
    _of_jobs("inferd_job_chunk_seconds_total", "counter", "Time spent on these chunks.", lambda j: j.chunk_s),
    _of_streams(
        "inferd_restore_behind_records",
        "gauge",
        "Changelog records still to be read before partitions are open; 0 while no table is being restored.",
        lambda s: s.restoring or 0,
    ),
    _of_streams("inferd_restored_records_total", "counter", "Changelog records read.", lambda s: s.restored_records),
    _of_streams("inferd_queued_bytes", "gauge", "Fetched and not yet scored.", lambda s: s.queued_bytes),
    _of_streams("inferd_in_flight_bytes", "gauge", "Published and not yet acknowledged.", lambda s: s.in_flight_bytes),
    _of_streams("inferd_commits_total", "counter", "Commits of offsets that succeeded.", lambda s: s.commits),
    _of_streams("inferd_commit_failures_total", "counter", "Commits that failed.", lambda s: s.commit_failures),
    _of_streams(
        "inferd_records_missing_total",
        "counter",
        "Requests that retention deleted before they were read.",
        lambda s: s.records_missing,
    ),
)


class StatusCollector(Collector):
    """Makes the families of `METRICS` from the board, at each scrape anew."""

    def __init__(self, board: StatusBoard) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """One family a metric."""
        scrape = Scrape(self._board, self._board.snapshot())
        for info in METRICS:
            yield _family(info, info.read(scrape))

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that registering them asks nothing of the board."""
        for info in METRICS:
            yield _family(info, ())


class Metrics:
    """The registry of one worker; nothing global."""

    def __init__(self, board: StatusBoard) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StatusCollector(board))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format that an `Accept` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def _family(info: MetricInfo, samples: Samples) -> Metric:
    if info.type == "histogram":
        return _histogram(info, samples)
    make = CounterMetricFamily if info.type == "counter" else GaugeMetricFamily
    family = make(info.name, info.meaning, labels=info.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(info: MetricInfo, samples: Samples) -> Metric:
    family = HistogramMetricFamily(info.name, info.meaning, labels=info.labels)
    for labels, histogram in samples:
        bounds = [*map(str, histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, cumulative(histogram.counts), strict=True))
        family.add_metric(labels, buckets, histogram.total_s)
    return family

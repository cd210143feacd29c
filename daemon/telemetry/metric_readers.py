"""How metrics are read from the status and the snapshot of the streams at a scrape.

Label values come from configuration and deployed models (tenants, topics, models) and from fixed sets (codes, phases),
never from a request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from inferd.daemon.telemetry.status import Stage, StatusBoard, TrafficSource
from inferd.schemas.rollouts import ENDED
from inferd.streams.telemetry import (
    CacheSnapshot,
    CaptureSnapshot,
    DriftSnapshot,
    JobsSnapshot,
    LatencySnapshot,
    ModelMemorySnapshot,
    ModelSnapshot,
    PartitionSnapshot,
    Phase,
    QuotaSnapshot,
    RouteSnapshot,
    RouteState,
    ShadowSnapshot,
    StreamsSnapshot,
    TenantSnapshot,
)

MetricType = Literal["counter", "gauge", "histogram"]
Samples = Iterable[tuple[tuple[str, ...], Any]]
PHASES = tuple(dict.fromkeys((*get_args(Stage), *get_args(Phase))))


@dataclass(frozen=True, slots=True)
class Scrape:
    """The input of one scrape."""

    board: StatusBoard
    snapshot: StreamsSnapshot | None


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """One metric. `read` returns its samples as (label values, value)."""

    name: str
    type: MetricType
    labels: tuple[str, ...]
    meaning: str
    read: Callable[[Scrape], Samples]


def of_process(name: str, meaning: str, read: Callable[[Scrape], Samples], labels: tuple[str, ...] = ()) -> MetricInfo:
    """A gauge of the process."""
    return MetricInfo(name, "gauge", labels, meaning, read)


def of_streams(
    name: str, type_: MetricType, meaning: str, value: Callable[[StreamsSnapshot], float | LatencySnapshot]
) -> MetricInfo:
    """A metric of the streams as a whole."""

    def read(scrape: Scrape) -> Samples:
        return [] if scrape.snapshot is None else [((), value(scrape.snapshot))]

    return MetricInfo(name, type_, (), meaning, read)


def of_budget(name: str, meaning: str, value: Callable[[ModelMemorySnapshot], int | None]) -> MetricInfo:
    """A gauge of the memory budget of models; absent without one."""

    def read(scrape: Scrape) -> Samples:
        known = value(scrape.snapshot.model_memory) if scrape.snapshot else None
        return [] if known is None else [((), known)]

    return MetricInfo(name, "gauge", (), meaning, read)


def of_tenants(name: str, type_: MetricType, meaning: str, value: Callable[[TenantSnapshot], float]) -> MetricInfo:
    """A metric with a sample per tenant."""

    def read(scrape: Scrape) -> Samples:
        return [((item.tenant,), value(item)) for item in scrape.snapshot.tenants] if scrape.snapshot else []

    return MetricInfo(name, type_, ("tenant",), meaning, read)


def of_partitions(name: str, meaning: str, value: Callable[[PartitionSnapshot], int | None]) -> MetricInfo:
    """A gauge with a sample per partition; unknown values are absent."""

    def read(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
        for item in scrape.snapshot.partitions if scrape.snapshot else ():
            if (known := value(item)) is not None:
                yield (item.topic, str(item.partition)), known

    return MetricInfo(name, "gauge", ("topic", "partition"), meaning, read)


def of_models(name: str, meaning: str, value: Callable[[ModelSnapshot], float]) -> MetricInfo:
    """A counter with a sample per model version."""

    def read(scrape: Scrape) -> Samples:
        return [(_model_labels(item), value(item)) for item in scrape.snapshot.models] if scrape.snapshot else []

    return MetricInfo(name, "counter", ("tenant", "model", "version"), meaning, read)


def of_shadows(name: str, meaning: str, value: Callable[[ShadowSnapshot], float]) -> MetricInfo:
    """A counter with a sample per shadow version."""

    def read(scrape: Scrape) -> Samples:
        return [(_model_labels(item), value(item)) for item in scrape.snapshot.shadows] if scrape.snapshot else []

    return MetricInfo(name, "counter", ("tenant", "model", "version"), meaning, read)


def shadow_drops(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
    """Requests without a shadow result, by reason."""
    for item in scrape.snapshot.shadows if scrape.snapshot else ():
        for reason, count in item.dropped.items():
            yield (*_model_labels(item), reason), count


def feature_drifts(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], float]]:
    """PSI of the features that drifted most."""
    for item in scrape.snapshot.drift if scrape.snapshot else ():
        for feature, psi in item.features.items():
            yield (*_model_labels(item), feature), psi


def prediction_drifts(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], float]]:
    """PSI of predictions."""
    for item in scrape.snapshot.drift if scrape.snapshot else ():
        if item.prediction_psi is not None:
            yield _model_labels(item), item.prediction_psi


def live_rollouts(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
    """Rollouts that may still change an alias, by phase."""
    for of in scrape.snapshot.rollouts if scrape.snapshot else ():
        for phase, count in sorted(Counter(each.phase for each in of.live).items()):
            yield (of.tenant, phase), count


def ended_rollouts(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
    """Rollouts that have ended, by phase."""
    for of in scrape.snapshot.rollouts if scrape.snapshot else ():
        for phase in sorted(ENDED):
            yield (of.tenant, phase), of.ended.get(phase, 0)


def of_caches(name: str, type_: MetricType, meaning: str, value: Callable[[CacheSnapshot], float | None]) -> MetricInfo:
    """A metric with a sample per cached model version; unknown values are absent."""

    def read(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], float]]:
        for item in scrape.snapshot.cache if scrape.snapshot else ():
            if (known := value(item)) is not None:
                yield _model_labels(item), known

    return MetricInfo(name, type_, ("tenant", "model", "version"), meaning, read)


def labels(scrape: Scrape) -> Samples:
    """Labels by tenant and outcome."""
    found = scrape.snapshot.labels if scrape.snapshot else {}
    return [((tenant, outcome), count) for tenant, counts in found.items() for outcome, count in counts.items()]


def of_quotas(name: str, type_: MetricType, meaning: str, value: Callable[[QuotaSnapshot], float]) -> MetricInfo:
    """A metric with a sample per tenant that has a quota."""

    def read(scrape: Scrape) -> Samples:
        return [((item.tenant,), value(item)) for item in scrape.snapshot.quotas] if scrape.snapshot else []

    return MetricInfo(name, type_, ("tenant",), meaning, read)


def of_capture(name: str, meaning: str, value: Callable[[CaptureSnapshot], float]) -> MetricInfo:
    """A counter of captured requests with a sample per tenant."""

    def read(scrape: Scrape) -> Samples:
        return [((item.tenant,), value(item)) for item in scrape.snapshot.capture] if scrape.snapshot else []

    return MetricInfo(name, "counter", ("tenant",), meaning, read)


def of_jobs(name: str, type_: MetricType, meaning: str, value: Callable[[JobsSnapshot], float]) -> MetricInfo:
    """A metric of jobs with a sample per tenant."""

    def read(scrape: Scrape) -> Samples:
        return [((item.tenant,), value(item)) for item in scrape.snapshot.jobs] if scrape.snapshot else []

    return MetricInfo(name, type_, ("tenant",), meaning, read)


def of_routes(name: str, type_: MetricType, meaning: str, value: Callable[[RouteSnapshot], float | None]) -> MetricInfo:
    """A metric with a sample per route; unknown values are absent."""

    def read(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], float]]:
        for item in scrape.snapshot.routes if scrape.snapshot else ():
            if (known := value(item)) is not None:
                yield (item.tenant, item.route), known

    return MetricInfo(name, type_, ("tenant", "route"), meaning, read)


def route_states(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
    """1 for the current state of each route, 0 for the others."""
    for item in scrape.snapshot.routes if scrape.snapshot else ():
        for state in get_args(RouteState):
            yield (item.tenant, item.route, state), int(item.state == state)


def route_errors(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
    """Records without a prediction by route and code."""
    for item in scrape.snapshot.routes if scrape.snapshot else ():
        for code, count in sorted(item.errors.items()):
            yield (item.tenant, item.route, code), count


def counted_jobs(
    name: str, label: str, meaning: str, counts: Callable[[JobsSnapshot], Mapping[str, int]]
) -> MetricInfo:
    """A counter of jobs with a sample per tenant and `label`."""

    def read(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
        for item in scrape.snapshot.jobs if scrape.snapshot else ():
            for key, count in sorted(counts(item).items()):
                yield (item.tenant, key), count

    return MetricInfo(name, "counter", ("tenant", label), meaning, read)


def steps(scrape: Scrape) -> Samples:
    """Samples of `inferd_step_seconds`."""
    return [((step,), histogram) for step, histogram in scrape.snapshot.steps.items()] if scrape.snapshot else []


def _model_labels(model: ModelSnapshot | CacheSnapshot | ShadowSnapshot | DriftSnapshot) -> tuple[str, str, str]:
    return model.tenant, model.model_id, str(model.version)


def by_route(traffic: TrafficSource) -> Samples:
    """Latencies of HTTP requests by route."""
    return [((route,), latency) for route, latency in sorted(traffic.latencies().items())]


def errors(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
    """Errors by deployed model and version; the rest with empty labels."""
    for tenant in scrape.snapshot.tenants if scrape.snapshot else ():
        left = dict(tenant.errors)
        for each in tenant.model_errors:
            yield (tenant.tenant, each.model_id, str(each.version), each.code), each.count
            left[each.code] -= each.count
        for code, count in sorted(left.items()):
            if count:
                yield (tenant.tenant, "", "", code), count


def model_states(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
    """1 for the state of each model version."""
    for model in scrape.snapshot.models if scrape.snapshot else ():
        yield (*_model_labels(model), model.state), 1


def model_kernels(scrape: Scrape) -> Iterator[tuple[tuple[str, ...], int]]:
    """Whether a compiled kernel scores each model version that has one."""
    for model in scrape.snapshot.models if scrape.snapshot else ():
        if model.kernel is not None:
            yield _model_labels(model), int(model.kernel)


def dangling_aliases(scrape: Scrape) -> Samples:
    """The number of aliases of undeployed versions by tenant."""
    if scrape.snapshot is None:
        return []
    by_tenant = Counter(item.tenant for item in scrape.snapshot.dangling_aliases)
    return [((tenant,), by_tenant[tenant]) for tenant in scrape.board.settings.tenants]


def paused(scrape: Scrape) -> Samples:
    """1 for each model and route that is paused."""
    return [((each.tenant, each.kind, each.name), 1) for each in (scrape.snapshot.pauses if scrape.snapshot else ())]


def phases(scrape: Scrape) -> Samples:
    """1 for the current phase, 0 for the others."""
    phase, _ = scrape.board.phase(scrape.snapshot)
    return [((name,), int(name == phase)) for name in PHASES]

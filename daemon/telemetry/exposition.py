"""The metrics of one worker as Prometheus scrapes them, collected from a snapshot at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from inferd.daemon.telemetry.latency import cumulative
from inferd.daemon.telemetry.metric_readers import MetricInfo, Samples, Scrape
from inferd.daemon.telemetry.metrics import METRICS
from inferd.daemon.telemetry.status import StatusBoard


class StatusCollector(Collector):
    """Collects the families of `METRICS` from the status board at each scrape."""

    def __init__(self, board: StatusBoard) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """One family per metric."""
        scrape = Scrape(self._board, self._board.snapshot())
        for info in METRICS:
            yield _family(info, info.read(scrape))

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that registration takes no snapshot."""
        for info in METRICS:
            yield _family(info, ())


class Metrics:
    """The registry of one worker, instead of the global registry."""

    def __init__(self, board: StatusBoard) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StatusCollector(board))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format of the `Accept` header, and their content type."""
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

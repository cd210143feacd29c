"""Traces: spans of the requests that carry a sampled `traceparent`, and of the micro-batches that answered them.

A request's span is a child of the caller's. A micro-batch's span has one child for each step, is itself a child of the
first such request's span, and is linked with the others; so each of the traces leads to the steps. Spans are made
afterwards, from when the steps began and ended: without such a request, a micro-batch costs the look for one.

OpenTelemetry is an optional extra: nothing of it is imported unless `otel_endpoint` is set.
"""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

import structlog

from schemas.errors import ServerError
from schemas.headers import RequestHeaders
from streams.direct import DIRECT_PARTITION
from streams.inference.micro_batch import Outcome, Record
from streams.measure import Laps
from streams.settings import StreamSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

log = structlog.get_logger(__name__)

REQUEST_SPAN, BATCH_SPAN = "inferd.request", "inferd.micro_batch"
REQUESTS_MAX = 64
"""Traced requests of one micro-batch; what goes beyond is answered without spans."""
CLOSE_TIMEOUT_S = 2.0
TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})(-|$)")
Parts = Sequence[tuple[int, Sequence[Record]]]


def make_tracing(settings: StreamSettings) -> Tracing | None:
    """What exports spans to `settings.otel_endpoint`; None where there is none. `ServerError` without the extra."""
    if settings.otel_endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ServerError(
            f"INFERD_OTEL_ENDPOINT is set, and {error.name} is not installed: pip install 'inferd[otel]'"
        ) from error
    ours = Resource.create({"service.name": "inferd", "service.instance.id": settings.worker_id})
    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes first.
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{settings.otel_endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that is to be traced."""

    index: int
    number: int
    record: Record
    headers: dict[str, str]


class OpenSpans:
    """Spans that end when the results of one partition are acknowledged."""

    def __init__(self, respond: Span, requests: Sequence[Span]) -> None:
        self._respond = respond
        self._requests = requests

    def landed(self) -> None:
        """The results are acknowledged."""
        for span in (self._respond, *self._requests):
            span.end()

    def dropped(self) -> None:
        """The results were not acknowledged: the requests are answered anew, and that has spans of its own."""
        self._respond.add_event("dropped", {"reason": "not acknowledged; the requests are answered again"})
        self.landed()


class Tracing:
    """Makes the spans of micro-batches."""

    def __init__(
        self,
        provider: TracerProvider,
        clock_ns: Callable[[], int] = time.time_ns,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`timer`: the clock of the laps."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._extract = TraceContextTextMapPropagator().extract
        self._provider = provider
        self._tracer = provider.get_tracer("inferd")
        self._clock_ns, self._timer = clock_ns, timer

    def close(self) -> None:
        """Exports what is left, within `CLOSE_TIMEOUT_S`; blocks."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)

    def batch(self, topic: str, parts: Parts, outcome: Outcome, laps: Laps) -> dict[int, OpenSpans]:
        """Spans of a scored micro-batch; by partition those that are still open, for whoever learns what becomes of
        the results. Never raises: requests are answered with or without spans."""
        try:
            asked = list(islice(_sampled(parts, outcome.headers), REQUESTS_MAX))
            return self._spans(topic, asked, outcome, laps) if asked else {}
        except Exception:
            log.exception("tracing_failed", topic=topic)
            return {}

    def _spans(self, topic: str, asked: Sequence[_Asked], outcome: Outcome, laps: Laps) -> dict[int, OpenSpans]:
        now_ns, now = self._clock_ns(), self._timer()

        def at(lap_s: float) -> int:
            return now_ns - int((now - lap_s) * 1e9)

        requests = [self._request(topic, each, outcome, at(laps.began)) for each in asked]
        batch = self._batch(topic, requests, outcome, at(laps.began))
        within = self._api.set_span_in_context(batch)
        for step, began, ended in laps.steps:
            self._tracer.start_span(step, within, start_time=at(began)).end(at(ended))
        batch.end(at(laps.ended))
        numbers = {each.number for each in asked}
        return {
            number: OpenSpans(
                self._tracer.start_span("respond", within, start_time=at(laps.ended)),
                [span for span, each in zip(requests, asked, strict=True) if each.number == number],
            )
            for number in numbers
        }

    def _batch(self, topic: str, requests: Sequence[Span], outcome: Outcome, began_ns: int) -> Span:
        first, *others = requests
        span = self._tracer.start_span(
            BATCH_SPAN,
            self._api.set_span_in_context(first),
            start_time=began_ns,
            links=[self._api.Link(other.get_span_context()) for other in others],
            attributes={
                "messaging.system": "kafka",
                "messaging.destination.name": topic,
                "messaging.batch.message_count": len(outcome.values),
                "inferd.rows": outcome.rows,
            },
        )
        for other in others:
            other.add_link(span.get_span_context())
        return span

    def _request(self, topic: str, asked: _Asked, outcome: Outcome, began_ns: int) -> Span:
        # Clocks of others may run ahead of ours.
        came_ns = min(asked.record.timestamp * 1_000_000, began_ns) if asked.record.timestamp > 0 else began_ns
        span = self._tracer.start_span(
            REQUEST_SPAN,
            self._extract(asked.headers),
            self._api.SpanKind.CONSUMER,
            _attributes(topic, asked),
            start_time=came_ns,
        )
        within = self._api.set_span_in_context(span)
        self._tracer.start_span("receive", within, start_time=came_ns).end(began_ns)
        if (error := outcome.failures.get(asked.index)) is not None:
            span.set_attribute("error.type", error.code)
            span.set_status(self._api.StatusCode.ERROR, error.code)
        return span


def _attributes(topic: str, asked: _Asked) -> dict[str, Any]:
    if asked.number == DIRECT_PARTITION:
        return {"inferd.direct": True}
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(asked.number),
        "messaging.kafka.offset": asked.record.offset,
    }


def _sampled(parts: Parts, headers_of: Mapping[int, RequestHeaders]) -> Iterator[_Asked]:
    """The requests whose callers record a trace."""
    starts = list(accumulate((len(records) for _, records in parts), initial=0))
    for index, headers in headers_of.items():
        passed = dict(headers.passed_through)
        if is_sampled(passed.get(TRACEPARENT, b"")):
            place = bisect_right(starts, index) - 1
            number, records = parts[place]
            found = {name: value.decode() for name, value in passed.items()}
            yield _Asked(index, number, records[index - starts[place]], found)


def is_sampled(traceparent: bytes) -> bool:
    """Whether a `traceparent` (W3C Trace Context) says that its caller records the trace."""
    match = _TRACEPARENT.match(traceparent)
    return match is not None and bool(int(match["flags"], 16) & 1)

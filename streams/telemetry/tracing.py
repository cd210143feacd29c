"""Traces: spans of requests and records of routes with a sampled `traceparent`, of their micro-batches, and of job
messages and chunks.

A request's span is a child of the caller's span. A micro-batch's span has one child per step, is a child of the first
traced request's span, and is linked with the others, so that each trace leads to the steps. Spans are created after the
work, from the recorded times of the steps: without a traced request, a micro-batch only costs the check for one.

OpenTelemetry is an optional extra: it is imported only if `otel_endpoint` is set.
"""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING, Any

import structlog

from inferd.schemas.errors import ServerError
from inferd.schemas.headers import PropagatedHeaders
from inferd.streams.inference import Outcome, Record
from inferd.streams.inference.cache import HTTP_PARTITION
from inferd.streams.settings import StreamSettings
from inferd.streams.telemetry.snapshot import Step
from inferd.streams.telemetry.step_timer import StepTimer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

log = structlog.get_logger(__name__)

REQUEST_SPAN, ROUTE_SPAN, BATCH_SPAN = "inferd.request", "inferd.route_record", "inferd.micro_batch"
MESSAGE_SPAN, CHUNK_SPAN = "inferd.job_message", "inferd.job_chunk"
REQUESTS_MAX = 64
"""Limit of traced requests per micro-batch; further requests get no spans."""
CLOSE_TIMEOUT_S = 2.0
TRACEPARENT = "traceparent"
TRACE_HEADERS = (TRACEPARENT, "tracestate")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})(-|$)")
CALLER: ContextVar[PropagatedHeaders] = ContextVar("caller", default=())
"""Headers of the current HTTP request to propagate."""
Parts = Sequence[tuple[int, Sequence[Record]]]
Headers = Sequence[tuple[str, bytes | None]]


def make_tracing(settings: StreamSettings) -> Tracing | None:
    """Tracing with export to `settings.otel_endpoint`; None if unset. Raises `ServerError` without the extra."""
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
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence.
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{settings.otel_endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that is traced."""

    index: int
    number: int
    record: Record
    headers: dict[str, str]


class OpenSpans:
    """Spans that end when the results of one partition are acknowledged."""

    def __init__(self, steps: Sequence[Span], wholes: Sequence[Span]) -> None:
        """`steps`: spans of the last step, publishing; `wholes`: their parents."""
        self._steps = steps
        self._wholes = wholes

    def acked(self) -> None:
        """Ends the spans, because the results are acknowledged."""
        for span in (*self._steps, *self._wholes):
            span.end()

    def dropped(self) -> None:
        """Ends the spans, because the results were not acknowledged; the repeated work gets new spans."""
        for step in self._steps:
            step.add_event("dropped", {"reason": "not acknowledged; repeated"})
        self.acked()


class Tracing:
    """Creates the spans of micro-batches of requests and routes, job messages and chunks."""

    def __init__(
        self,
        provider: TracerProvider,
        clock_ns: Callable[[], int] = time.time_ns,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`timer`: the clock of the `StepTimer`."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._extract = TraceContextTextMapPropagator().extract
        self._provider = provider
        self._tracer = provider.get_tracer("inferd")
        self._clock_ns, self._timer = clock_ns, timer

    def close(self) -> None:
        """Exports remaining spans within `CLOSE_TIMEOUT_S`; blocks."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)

    def batch(self, topic: str, parts: Parts, outcome: Outcome, step_timer: StepTimer) -> dict[int, OpenSpans]:
        """Creates the spans of a scored micro-batch; returns those that are still open, by partition. Never raises."""
        headers: Iterable[tuple[int, Headers]] = (
            (index, each.propagated) for index, each in outcome.headers.items() if each.propagated
        )
        if outcome.propagated is not None:
            headers = chain(headers, outcome.propagated.sampled())
        return self._batch_spans(REQUEST_SPAN, topic, _sampled(parts, headers), outcome, step_timer)

    def route_batch(
        self, topic: str, parts: Parts, indexes: Collection[int], outcome: Outcome, step_timer: StepTimer
    ) -> dict[int, OpenSpans]:
        """Like `batch`, for records of a route. `indexes`: those in `outcome` that have output."""
        every = enumerate(record for _, records in parts for record in records)
        headers = ((index, record.headers) for index, record in every if record.headers and index in indexes)
        return self._batch_spans(ROUTE_SPAN, topic, _sampled(parts, headers), outcome, step_timer)

    def _batch_spans(
        self, name: str, topic: str, sampled: Iterator[_Asked], outcome: Outcome, step_timer: StepTimer
    ) -> dict[int, OpenSpans]:
        try:
            asked = list(islice(sampled, REQUESTS_MAX))
            return self._spans(name, topic, asked, outcome, step_timer) if asked else {}
        except Exception:
            log.exception("tracing_failed", topic=topic)
            return {}

    def step_spans(
        self, name: str, topic: str, parts: Parts, step: Step, began: float, ended: float, last: Step | None = None
    ) -> dict[int, OpenSpans]:
        """Creates spans `name` for job records that waited in `queue` and took `step` together; times of the timer.

        With `last`, the step of publishing, returns the spans that are still open, by partition. Never raises."""
        try:
            at = self._times()
            opened: dict[int, tuple[list[Span], list[Span]]] = {}
            traced = [(number, each) for number, records in parts for each in records if is_traced(each.headers)]
            for number, record in traced[:REQUESTS_MAX]:
                attributes = _attributes(topic, number, record.offset)
                span = self._consumed(name, "queue", _texts(record.headers), attributes, record.timestamp, at(began))
                within = self._api.set_span_in_context(span)
                self._tracer.start_span(step, within, start_time=at(began)).end(at(ended))
                if last is None:
                    span.end(at(ended))
                    continue
                steps, wholes = opened.setdefault(number, ([], []))
                steps.append(self._tracer.start_span(last, within, start_time=at(ended)))
                wholes.append(span)
            return {number: OpenSpans(*spans) for number, spans in opened.items()}
        except Exception:
            log.exception("tracing_failed", topic=topic)
            return {}

    def step(self, name: Step, began: float) -> None:
        """Creates the span of a step that ends now, as a child of the current caller's span. Never raises."""
        try:
            if is_traced(headers := CALLER.get()):
                span = self._tracer.start_span(name, self._extract(_texts(headers)), start_time=self._times()(began))
                span.end()
        except Exception:
            log.exception("tracing_failed", step=name)

    def _times(self) -> Callable[[float], int]:
        """A function that converts a time of the timer to Unix nanoseconds."""
        now_ns, now = self._clock_ns(), self._timer()
        return lambda then: now_ns - int((now - then) * 1e9)

    def _spans(
        self, name: str, topic: str, asked: Sequence[_Asked], outcome: Outcome, step_timer: StepTimer
    ) -> dict[int, OpenSpans]:
        at = self._times()
        requests = [self._request(name, topic, each, outcome, at(step_timer.began)) for each in asked]
        batch = self._batch(topic, requests, outcome, at(step_timer.began))
        within = self._api.set_span_in_context(batch)
        for step, began, ended in step_timer.steps:
            self._tracer.start_span(step, within, start_time=at(began)).end(at(ended))
        batch.end(at(step_timer.ended))
        numbers = {each.number for each in asked}
        return {
            number: OpenSpans(
                [self._tracer.start_span("respond", within, start_time=at(step_timer.ended))],
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

    def _request(self, name: str, topic: str, asked: _Asked, outcome: Outcome, began_ns: int) -> Span:
        record = asked.record
        attributes = _attributes(topic, asked.number, record.offset)
        span = self._consumed(name, "receive", asked.headers, attributes, record.timestamp, began_ns)
        if (error := outcome.failures.get(asked.index)) is not None:
            span.set_attribute("error.type", error.code)
            span.set_status(self._api.StatusCode.ERROR, error.code)
        return span

    def _consumed(
        self,
        name: str,
        waiting: Step,
        headers: dict[str, str],
        attributes: dict[str, Any],
        timestamp_ms: int,
        began_ns: int,
    ) -> Span:
        """The span of a record, from its timestamp, with the step in which it waited until `began_ns`."""
        # The timestamp may be in the future: clocks differ.
        came_ns = min(timestamp_ms * 1_000_000, began_ns) if timestamp_ms > 0 else began_ns
        kind = self._api.SpanKind.CONSUMER
        span = self._tracer.start_span(name, self._extract(headers), kind, attributes, start_time=came_ns)
        within = self._api.set_span_in_context(span)
        self._tracer.start_span(waiting, within, start_time=came_ns).end(began_ns)
        return span


def _attributes(topic: str, number: int, offset: int) -> dict[str, Any]:
    if number == HTTP_PARTITION:
        return {"inferd.direct": True}
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(number),
        "messaging.kafka.offset": offset,
    }


def _sampled(parts: Parts, headers_of: Iterable[tuple[int, Headers]]) -> Iterator[_Asked]:
    """The records with a sampled `traceparent`. `headers_of`: headers by the number of the record in all `parts`."""
    starts = list(accumulate((len(records) for _, records in parts), initial=0))
    for index, headers in headers_of:
        if is_traced(headers):
            place = bisect_right(starts, index) - 1
            number, records = parts[place]
            yield _Asked(index, number, records[index - starts[place]], _texts(headers))


def is_traced(headers: Headers) -> bool:
    """Whether the headers have a sampled `traceparent`."""
    return any(is_sampled(value or b"") for name, value in headers if name.lower() == TRACEPARENT)


def _texts(headers: Headers) -> dict[str, str]:
    """The trace headers by name; the last one wins."""
    named = ((name.lower(), value) for name, value in headers if value is not None)
    return {name: value.decode("utf-8", "replace") for name, value in named if name in TRACE_HEADERS}


def is_sampled(traceparent: bytes) -> bool:
    """Whether a `traceparent` (W3C Trace Context) says that its caller records the trace."""
    match = _TRACEPARENT.match(traceparent)
    return match is not None and bool(int(match["flags"], 16) & 1)

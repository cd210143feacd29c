"""Traces: spans of the requests that carry a sampled `traceparent`, and of the micro-batches that answered them; and of
the messages, chunks and results of jobs that carry one.

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
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

import structlog

from inferd.schemas.errors import ServerError
from inferd.schemas.headers import PropagatedHeaders, RequestHeaders
from inferd.streams.inference import Outcome, Record
from inferd.streams.inference.cache import HTTP_PARTITION
from inferd.streams.settings import StreamSettings
from inferd.streams.telemetry.snapshot import Step
from inferd.streams.telemetry.step_timer import StepTimer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

log = structlog.get_logger(__name__)

REQUEST_SPAN, BATCH_SPAN = "inferd.request", "inferd.micro_batch"
MESSAGE_SPAN, CHUNK_SPAN = "inferd.job_message", "inferd.job_chunk"
REQUESTS_MAX = 64
"""Traced requests of one micro-batch; what goes beyond is answered without spans."""
CLOSE_TIMEOUT_S = 2.0
TRACEPARENT = "traceparent"
TRACE_HEADERS = (TRACEPARENT, "tracestate")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})(-|$)")
CALLER: ContextVar[PropagatedHeaders] = ContextVar("caller", default=())
"""Headers that whoever is served now, over HTTP, wants to be passed on."""
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

    def __init__(self, steps: Sequence[Span], wholes: Sequence[Span]) -> None:
        """`steps`: the last ones, of publishing; `wholes`: what they are steps of."""
        self._steps = steps
        self._wholes = wholes

    def landed(self) -> None:
        """The results are acknowledged."""
        for span in (*self._steps, *self._wholes):
            span.end()

    def dropped(self) -> None:
        """The results were not acknowledged: all is done anew, and that has spans of its own."""
        for step in self._steps:
            step.add_event("dropped", {"reason": "not acknowledged; it is done again"})
        self.landed()


class Tracing:
    """Makes the spans of micro-batches."""

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
        """Exports what is left, within `CLOSE_TIMEOUT_S`; blocks."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)

    def batch(self, topic: str, parts: Parts, outcome: Outcome, step_timer: StepTimer) -> dict[int, OpenSpans]:
        """Spans of a scored micro-batch; by partition those that are still open, for whoever learns what becomes of
        the results. Never raises: requests are answered with or without spans."""
        try:
            asked = list(islice(_sampled(parts, outcome.headers), REQUESTS_MAX))
            return self._spans(topic, asked, outcome, step_timer) if asked else {}
        except Exception:
            log.exception("tracing_failed", topic=topic)
            return {}

    def step_spans(
        self, name: str, topic: str, parts: Parts, step: Step, began: float, ended: float, last: Step | None = None
    ) -> dict[int, OpenSpans]:
        """Spans called `name` of records of jobs that took `step` at once, after waiting in `queue`; times are those
        of the timer. With `last`, the step of publishing, by partition those that are still open. Never raises."""
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
        """The span of a step that ends now, for the caller of now. Never raises."""
        try:
            if is_traced(headers := CALLER.get()):
                span = self._tracer.start_span(name, self._extract(_texts(headers)), start_time=self._times()(began))
                span.end()
        except Exception:
            log.exception("tracing_failed", step=name)

    def _times(self) -> Callable[[float], int]:
        """What makes Unix nanoseconds of a time of the timer."""
        now_ns, now = self._clock_ns(), self._timer()
        return lambda then: now_ns - int((now - then) * 1e9)

    def _spans(
        self, topic: str, asked: Sequence[_Asked], outcome: Outcome, step_timer: StepTimer
    ) -> dict[int, OpenSpans]:
        at = self._times()
        requests = [self._request(topic, each, outcome, at(step_timer.began)) for each in asked]
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

    def _request(self, topic: str, asked: _Asked, outcome: Outcome, began_ns: int) -> Span:
        record = asked.record
        attributes = _attributes(topic, asked.number, record.offset)
        span = self._consumed(REQUEST_SPAN, "receive", asked.headers, attributes, record.timestamp, began_ns)
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
        """The span of a record, from when it came, with the step in which it waited until `began_ns`."""
        # Clocks of others may run ahead of ours.
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


def _sampled(parts: Parts, headers_of: Mapping[int, RequestHeaders]) -> Iterator[_Asked]:
    """The requests whose callers record a trace."""
    starts = list(accumulate((len(records) for _, records in parts), initial=0))
    for index, headers in headers_of.items():
        if is_traced(headers.propagated):
            place = bisect_right(starts, index) - 1
            number, records = parts[place]
            yield _Asked(index, number, records[index - starts[place]], _texts(headers.propagated))


def is_traced(headers: Sequence[tuple[str, bytes | None]]) -> bool:
    """Whether whoever sent these headers records a trace."""
    return any(is_sampled(value or b"") for name, value in headers if name.lower() == TRACEPARENT)


def _texts(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """The trace headers by name; of several, the one that was added last."""
    named = ((name.lower(), value) for name, value in headers if value is not None)
    return {name: value.decode("utf-8", "replace") for name, value in named if name in TRACE_HEADERS}


def is_sampled(traceparent: bytes) -> bool:
    """Whether a `traceparent` (W3C Trace Context) says that its caller records the trace."""
    match = _TRACEPARENT.match(traceparent)
    return match is not None and bool(int(match["flags"], 16) & 1)

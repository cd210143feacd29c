"""The processor of a route: what it hands to the lane, and the spans of traced records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.routes import Format, Route, Sink, Source
from inferd.schemas.topics import TenantTopics
from inferd.streams.inference import ModelCatalog, Version
from inferd.streams.kafka import Destinations
from inferd.streams.lane import OutputBatch
from inferd.streams.prediction_runner import PredictionRunner
from inferd.streams.requests import BatchScoring, BatchSizer
from inferd.streams.routes import RouteContext, RouteProcessor, RouteScorer
from inferd.streams.settings import LaneSettings
from inferd.streams.telemetry import LaneMeasures
from inferd.streams.telemetry.tracing import BATCH_SPAN, ROUTE_SPAN, Tracing
from tests.fixtures.lane import fixed_clock, sum_model
from tests.unit.streams.telemetry.test_tracing import traceparent

ROUTE = Route("orders", Source(["in"], Format("json")), "sum", Sink("out", field="score"))
SOURCE = [TopicPartition("in", number) for number in range(4)]


def catalog() -> ModelCatalog:
    found, served = ModelCatalog(), sum_model()
    found.put(Version(served.manifest, "ready", served=served))
    return found


def processor(tracing: Tracing | None = None, models: ModelCatalog | None = None, **changes: Any) -> RouteProcessor:
    measures = LaneMeasures(tracing)
    context = RouteContext(
        topics=TenantTopics("ns", "default"), worker_id="worker-1", measures=measures, destinations=Destinations([]),
        partitions_of=lambda _topic: 4, clock=fixed_clock,
    )  # fmt: skip
    scorer = RouteScorer(msgspec.structs.replace(ROUTE, **changes), models or catalog(), DEFAULT_LIMITS, "group")
    settings = LaneSettings()
    runner = PredictionRunner("test", measures, settings.inline_ms_max)
    return RouteProcessor(context, "in", scorer, BatchScoring(measures, BatchSizer(settings), runner, fixed_clock))


def record(offset: int, value: bytes | None = b'{"a":1,"b":2}', *headers: Any) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord("in", 0, offset, 1_000, 0, b"k", value, None, 1, len(value or b""), headers)


def traced() -> tuple[Tracing, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider), exporter


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def ids(spans: Sequence[ReadableSpan]) -> list[int]:
    return [span.context.span_id for span in spans if span.context is not None]


async def processed(route: RouteProcessor, *records: Any) -> OutputBatch:
    ((output,),) = await route.process([(SOURCE[0], records)])
    return output


async def test_a_traced_record_has_the_steps_in_the_caller_s_trace_and_hands_it_on() -> None:
    tracing, exporter = traced()
    route = processor(tracing)
    output = await processed(route, record(0), record(1, None), record(2, b'{"a":1,"b":2}', traceparent(0xABC)))
    assert not named(exporter, ROUTE_SPAN), "it ends when its output is acknowledged"
    route.acked(0, output)
    (span,), (batch,) = named(exporter, ROUTE_SPAN), named(exporter, BATCH_SPAN)
    assert span.context is not None
    assert span.context.trace_id == 0xABC
    assert span.parent is not None
    assert span.parent.span_id == 0xABD
    assert (span.attributes or {})["messaging.kafka.offset"] == 2
    assert (span.attributes or {})["messaging.destination.name"] == "in"
    steps = [each for each in exporter.get_finished_spans() if each.parent and each.parent.span_id in ids([batch])]
    assert [each.name for each in steps] == ["validate", "preprocess", "predict", "postprocess", "respond"]
    sent = output.by_topic["out", 0]
    assert [headers for _, _, headers in sent] == [[], [traceparent(0xABC)]]


async def test_a_failed_record_has_an_error_and_an_unsampled_one_no_span() -> None:
    tracing, exporter = traced()
    route = processor(tracing)
    unsampled = traceparent(1, sampled=False)
    output = await processed(route, record(0, b"{", traceparent(0xABC)), record(1, b'{"a":1,"b":2}', unsampled))
    route.acked(0, output)
    (span,) = named(exporter, ROUTE_SPAN)
    assert (span.attributes or {})["error.type"] == "malformed"


async def test_output_that_is_dropped_is_said_in_its_span() -> None:
    tracing, exporter = traced()
    route = processor(tracing)
    output = await processed(route, record(0, b'{"a":1,"b":2}', traceparent(0xABC)))
    route.rewound(0, [output])
    (respond,) = named(exporter, "respond")
    assert [event.name for event in respond.events] == ["dropped"]
    assert len(named(exporter, ROUTE_SPAN)) == 1


async def test_records_that_wait_have_no_span_yet() -> None:
    tracing, exporter = traced()
    route = processor(tracing, models=ModelCatalog())
    assert await route.process([(SOURCE[0], [record(0, b'{"a":1,"b":2}', traceparent(0xABC))])]) == [[]]
    assert route.waiting is not None
    assert not exporter.get_finished_spans()

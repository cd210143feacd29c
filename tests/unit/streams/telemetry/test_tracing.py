"""Traces: only a request with a sampled `traceparent` yields spans, which are linked and named by the steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import ServerError
from inferd.streams.settings import StreamSettings
from inferd.streams.telemetry import tracing as tracing_module
from inferd.streams.telemetry.tracing import (
    BATCH_SPAN,
    CALLER,
    CHUNK_SPAN,
    REQUEST_SPAN,
    REQUESTS_MAX,
    Tracing,
    is_sampled,
    make_tracing,
)
from tests.fixtures.lane import REQUESTS, Bench, request, tp

SCORING = ["validate", "preprocess", "predict", "postprocess"]


def traceparent(number: int, *, sampled: bool = True) -> tuple[str, bytes]:
    return "traceparent", f"00-{number:032x}-{number + 1:016x}-{int(sampled):02x}".encode()


def traced(offset: int, number: int, **changes: Any) -> Any:
    record = request(offset, **changes)
    record.headers = (traceparent(number),)
    return record


@pytest.fixture
def exporter(bench: Bench) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    bench.tenant.tracing = Tracing(provider)
    return exporter


def finished(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return int(span.parent.span_id)


async def answered(bench: Bench, *records: Any) -> None:
    """Has partition 0 scored, published, acknowledged and committed."""
    await bench.own(0)
    bench.lane.feed(tp(0), list(records))
    (sent,) = await bench.sent(1)
    sent.acknowledge()
    await bench.until(lambda: bench.lane.partitions[tp(0)].committed == len(records))


async def test_a_request_yields_spans_of_each_step_in_its_own_trace(
    bench: Bench, exporter: InMemorySpanExporter
) -> None:
    await answered(bench, request(0), traced(1, 0xABC))
    spans = exporter.get_finished_spans()
    assert {span.context.trace_id for span in spans if span.context} == {0xABC}
    (of_request,), (batch,) = finished(exporter, REQUEST_SPAN), finished(exporter, BATCH_SPAN)
    assert parent_of(of_request) == 0xABD, "the caller's span"
    assert parent_of(batch) == id_of(of_request)
    assert [span.name for span in spans if span.parent and parent_of(span) == id_of(of_request)] == [
        "receive",
        BATCH_SPAN,
    ]
    steps = sorted((span for span in spans if parent_of(span) == id_of(batch)), key=lambda span: span.start_time or 0)
    assert [step.name for step in steps] == [*SCORING, "respond"]
    times = [time for step in steps for time in (step.start_time or 0, step.end_time or 0)]
    assert times == sorted(times), "one step begins where the one before it ends"
    assert (of_request.end_time or 0) >= times[-1], "a request ends when its result is acknowledged"
    assert of_request.attributes is not None
    assert of_request.attributes["messaging.kafka.offset"] == 1


async def test_requests_of_one_micro_batch_are_linked(bench: Bench, exporter: InMemorySpanExporter) -> None:
    await answered(bench, *[traced(n, 100 + n) for n in range(3)])
    (batch,) = finished(exporter, BATCH_SPAN)
    first, *others = finished(exporter, REQUEST_SPAN)
    assert [link.context.trace_id for link in batch.links] == [101, 102]
    assert parent_of(batch) == id_of(first)
    assert [[link.context.span_id for link in other.links] for other in others] == [[id_of(batch)]] * 2


async def test_results_that_are_not_acknowledged_are_answered_in_spans_of_their_own(
    bench: Bench, exporter: InMemorySpanExporter
) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [traced(0, 7)])
    (sent,) = await bench.sent(1)
    assert not finished(exporter, REQUEST_SPAN)
    sent.fail(KafkaTimeoutError())
    await bench.until(lambda: finished(exporter, REQUEST_SPAN))
    await bench.until(lambda: not bench.paused)
    (respond,) = finished(exporter, "respond")
    assert [event.name for event in respond.events] == ["dropped"]


async def test_a_failure_has_its_error_code(bench: Bench, exporter: InMemorySpanExporter) -> None:
    await answered(bench, traced(0, 7, model_id="nothing"))
    (span,) = finished(exporter, REQUEST_SPAN)
    assert (span.status.is_ok, span.status.description) == (False, "model_not_found")


async def test_requests_that_are_not_sampled_yield_no_spans(bench: Bench, exporter: InMemorySpanExporter) -> None:
    unsampled, other = request(0), request(1)
    unsampled.headers = (traceparent(5, sampled=False),)
    other.headers = (("correlation-id", b"x"),)
    await answered(bench, unsampled, other, request(2))
    assert exporter.get_finished_spans() == ()


async def test_http_requests_are_traced(bench: Bench, exporter: InMemorySpanExporter) -> None:
    asked = request(0)
    assert asked.value is not None
    direct = bench.tenant.direct.ask(asked.value, (traceparent(9),), 1_000)
    bench.lane.wake(REQUESTS)
    await direct.answer
    await bench.until(lambda: finished(exporter, REQUEST_SPAN))
    (span,) = finished(exporter, REQUEST_SPAN)
    assert span.attributes == {"inferd.direct": True}


async def test_the_spans_of_one_micro_batch_are_bounded(bench: Bench, exporter: InMemorySpanExporter) -> None:
    await answered(bench, *[traced(n, 100 + n) for n in range(REQUESTS_MAX + 5)])
    assert len(finished(exporter, REQUEST_SPAN)) == REQUESTS_MAX


async def test_a_fault_of_tracing_does_not_affect_requests(
    bench: Bench, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing_module, "_attributes", lambda *_: 1 / 0)
    await bench.own(0)
    bench.lane.feed(tp(0), [traced(0, 7)])
    await bench.sent(1)
    assert ["error" in result for result in bench.results()] == [False]
    assert finished(exporter, REQUEST_SPAN) == []


@given(st.binary(max_size=80))
@example(b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-zz")
@example(b"00-" + b"1" * 32 + b"-" + b"2" * 16)
@example(b"")
def test_an_invalid_traceparent_is_not_sampled(value: bytes) -> None:
    assert not is_sampled(value)


@pytest.mark.parametrize(("flags", "sampled"), [(b"01", True), (b"00", False), (b"03", True), (b"02", False)])
def test_the_flag_of_a_traceparent(flags: bytes, *, sampled: bool) -> None:
    assert is_sampled(b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-" + flags) is sampled


# How it is switched on


def test_without_an_endpoint_opentelemetry_is_not_imported() -> None:
    code = "import sys, inferd.streams.app; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_without_the_extra_an_endpoint_is_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ServerError, match=r"pip install 'inferd\[otel\]'"):
        make_tracing(StreamSettings(KafkaConnection(), "w1", tmp_path, otel_endpoint="http://127.0.0.1:4318"))


def test_with_both_spans_are_named_for_the_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "scoring")
    tracing = make_tracing(StreamSettings(KafkaConnection(), "w1", tmp_path, otel_endpoint="http://127.0.0.1:1"))
    assert tracing is not None
    resource = tracing._provider.resource.attributes
    assert (resource["service.name"], resource["service.instance.id"]) == ("scoring", "w1")
    tracing.close()
    assert make_tracing(StreamSettings(KafkaConnection(), "w1", tmp_path)) is None


# Jobs

START, END = 10.0, 10.5


@pytest.fixture
def tracing(bench: Bench, exporter: InMemorySpanExporter) -> Tracing:
    assert bench.tenant.tracing is not None
    return bench.tenant.tracing


def step_spans(tracing: Tracing, *records: Any, **more: Any) -> dict[int, Any]:
    return tracing.step_spans(CHUNK_SPAN, "chunks", [(3, records)], "process", START, END, **more)


def test_records_of_jobs_wait_and_take_part_in_a_step(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    assert step_spans(tracing, request(0), traced(1, 7), traced(2, 8)) == {}
    wholes = finished(exporter, CHUNK_SPAN)
    assert [parent_of(whole) for whole in wholes] == [8, 9], "each in the trace of its own caller"
    for whole in wholes:
        queue, process = [span for span in exporter.get_finished_spans() if parent_of(span) == id_of(whole)]
        assert (queue.name, process.name) == ("queue", "process")
        assert queue.end_time == process.start_time
        assert (process.end_time or 0) - (process.start_time or 0) == pytest.approx((END - START) * 1e9, rel=0.01)
        assert process.end_time == whole.end_time


def test_with_a_publishing_step_spans_end_when_it_is_acknowledged(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    spans = step_spans(tracing, traced(1, 7), traced(2, 8), last="store")
    assert finished(exporter, CHUNK_SPAN) == []
    spans[3].acked()
    assert len(finished(exporter, "store")) == len(finished(exporter, CHUNK_SPAN)) == 2


def test_dropped_spans_have_an_event(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    step_spans(tracing, traced(1, 7), last="store")[3].dropped()
    (store,) = finished(exporter, "store")
    assert [event.name for event in store.events] == ["dropped"]


def test_a_step_is_a_child_of_the_caller_of_now(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    tracing.step("retrieve", START)
    before = CALLER.set((traceparent(7),))
    tracing.step("retrieve", START)
    CALLER.reset(before)
    (span,) = exporter.get_finished_spans()
    assert parent_of(span) == 8

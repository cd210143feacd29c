"""Traces of a real worker, as OpenTelemetry's collector gets them: every step of a request and of a job."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgpack
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from inferd.schemas.jobs.job import TERMINAL
from tests.fixtures.http_client import ask
from tests.fixtures.routes import ForeignTopics, feature_options, order, routes_command
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, until

CALLER: dict[str, Any] = {"Traceparent": f"00-{0xABC:032x}-{0xDEF:016x}-01"}


class Collector(ThreadingHTTPServer):
    """Receives spans over HTTP and stores them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []

    def names(self, trace: int) -> list[str]:
        return [span.name for span in self.spans if int.from_bytes(span.trace_id) == trace]

    def children_of(self, name: str) -> list[str]:
        parents = {span.span_id for span in self.spans if span.name == name}
        return sorted({span.name for span in self.spans if span.parent_span_id in parents})


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.spans += [span for of in sent.resource_spans for scope in of.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_step_is_in_the_caller_s_trace(
    collector: Collector,
    cluster: Cluster,
    model: TrainedModel,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    cluster.deploy(model)
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    others = ForeignTopics(cluster)
    source, sink = others.create("orders", 1), others.create("scored", 1)
    worker = start_worker(cluster, otel_endpoint=endpoint, routes_sources=source, routes_sinks=sink)
    worker.wait_ready()
    row = [0.5] * model.n_features

    job = {"job_id": "traced", "model_id": "demo", "input_batch": [row] * 20, "chunk_rows": 10}
    assert (
        ask(worker, "POST", "/jobs", json.dumps(job).encode(), Content_Type="application/json", **CALLER).status == 202
    )
    until(lambda: ask(worker, "GET", "/jobs/traced").json()["status"] in TERMINAL, 30, "the end of the job")
    results = ask(worker, "GET", "/jobs/traced/results", **CALLER)
    assert len(results.body.splitlines()) == 20
    job_steps = ["inferd.job_message", "inferd.job_chunk", "inferd.job_chunk", "retrieve", "retrieve"]
    until(lambda: holds(collector.names(0xABC), job_steps), 20, "the spans of the job")
    assert collector.children_of("inferd.job_message") == ["chunk", "queue"]
    assert collector.children_of("inferd.job_chunk") == ["process", "queue", "store"]

    producer = cluster.producer()
    headers: Any = [("traceparent", f"00-{0x123:032x}-{0x456:016x}-01".encode())]
    value = msgpack.packb({"model_id": "demo", "input_data": row})
    producer.produce(cluster.topics.name("requests"), value, b"k", partition=0, headers=headers)
    assert producer.flush(20) == 0
    until(lambda: holds(collector.names(0x123), ["inferd.request", "respond"]), 20, "the spans of the request")
    steps = ("validate", "preprocess", "predict", "postprocess", "respond")
    assert set(collector.children_of("inferd.micro_batch")) >= set(steps)

    options = ["--format", "json", "--model", "demo", *feature_options(), "--start", "earliest"]
    routes_command(cluster, "create", "orders", "--from", source, "--to", sink, *options)
    producer.produce(source, order(1), headers=[("traceparent", f"00-{0x789:032x}-{0xAB:016x}-01".encode())])
    assert producer.flush(20) == 0
    (scored,) = others.read(sink, 1)
    assert [name for name, _ in scored.headers() or ()] == ["traceparent"]
    until(lambda: holds(collector.names(0x789), ["inferd.route_record", *steps]), 20, "the spans of the record")
    assert worker.stop() == 0


def holds(names: Sequence[str], wanted: Sequence[str]) -> bool:
    return all(names.count(name) >= wanted.count(name) for name in wanted)

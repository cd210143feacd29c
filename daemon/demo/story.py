"""The steps of the demo, from start to end."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferd.client import Client
from inferd.daemon.broker import EmbeddedKafka, EmbeddedKafkaSettings
from inferd.daemon.cluster import reach
from inferd.daemon.demo import outcome, rollouts
from inferd.daemon.demo.flights import FlightSet, load_flights
from inferd.daemon.demo.job import check_job, run_job
from inferd.daemon.demo.narration import Narrator
from inferd.daemon.demo.quality import Latency
from inferd.daemon.demo.raw_kafka import delete_topics, record_counts, send_garbage
from inferd.daemon.demo.ticket_router import route_tickets
from inferd.daemon.demo.traffic import (
    Burst,
    bad_requests,
    burst,
    send_bad_request,
    steady,
)
from inferd.daemon.demo.training import TREES, TrainedModel, train
from inferd.daemon.demo.worker_process import WorkerProcess
from inferd.daemon.settings import Settings
from inferd.daemon.supervision import terminable
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import ServerError
from inferd.schemas.models import Manifest
from inferd.schemas.requests import Prediction
from inferd.schemas.topics import DEFAULT_TENANT, TenantTopics
from inferd.streams.inference import manifest_of

MODEL = "flight-late"
TENANT = DEFAULT_TENANT
AUC_MIN = 0.8
REACH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of the command."""

    flights: int | None
    """Number of held-out flights to stream; None: all."""
    latency_s: float
    """Duration of the latency measurement."""
    rate: float
    """Requests per second of the latency measurement."""
    rollouts: bool = False
    """Whether two more versions are rolled out."""


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo: its output, options, topics and worker."""

    narrator: Narrator
    options: DemoOptions
    connection: KafkaConnection
    topics: TenantTopics
    worker: WorkerProcess
    folder: Path
    """Removed at the end, also if the demo is interrupted."""

    def client(self) -> Client:
        """A new client for the demo's tenant."""
        return Client(self.connection, namespace=self.topics.namespace, tenant=self.topics.tenant)


def run_demo(settings: Settings, options: DemoOptions, narrator: Narrator | None = None) -> bool:
    """Runs the demo and cleans up; returns whether all checks passed."""
    narrator = narrator or Narrator()
    narrator.title("Will this flight arrive more than 15 minutes late?", "Real flights, scored through Apache Kafka")
    started = time.monotonic()
    with ExitStack() as running:
        running.enter_context(terminable())
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="inferd-demo-")))
        connection = _given_kafka(settings) if settings.broker else _start_kafka(narrator, running, folder)
        topics = TenantTopics(f"demo-{secrets.token_hex(4)}", TENANT)
        if settings.broker:
            # Registered before the worker starts, so that it runs after the worker has stopped.
            running.callback(lambda: asyncio.run(delete_topics(connection, topics)))
        worker = _start_worker(narrator, running, connection, topics, folder, options)
        _run(Demo(narrator, options, connection, topics, worker, folder))
        with narrator.step("stop", "stopping the worker and the broker") as step:
            worker.stop()
            running.close()
            step.say(
                "stopped the worker, deleted its topics" if settings.broker else "stopped the worker and the broker"
            )
    narrator.check("the worker stopped gracefully, with exit code 0", worker.exit_code == 0)
    passed = narrator.write_checks()
    narrator.text(f"\n{'Done' if passed else 'FAILED'} in {time.monotonic() - started:.0f} s.")
    return passed


def _given_kafka(settings: Settings) -> KafkaConnection:
    connection = settings.connection()
    asyncio.run(reach(connection, REACH_TIMEOUT_S))
    return connection


def _start_kafka(narrator: Narrator, running: ExitStack, folder: Path) -> KafkaConnection:
    with narrator.step("broker", "starting Apache Kafka") as step:
        kafka = EmbeddedKafka(EmbeddedKafkaSettings(data_dir=folder / "kafka", port=0), report=narrator.progress)
        running.enter_context(kafka)
        step.say(f"Apache Kafka {kafka.version} on {kafka.bootstrap_servers}, for this demo only")
    return KafkaConnection(kafka.bootstrap_servers)


def _start_worker(
    narrator: Narrator,
    running: ExitStack,
    connection: KafkaConnection,
    topics: TenantTopics,
    folder: Path,
    options: DemoOptions,
) -> WorkerProcess:
    environment = {
        "INFERD_BROKER": connection.bootstrap_servers,
        "INFERD_NAMESPACE": topics.namespace,
        "INFERD_TENANTS": topics.tenant,
        "INFERD_GROUP_ID": topics.namespace,
        "INFERD_LOG_FORMAT": "json",
        "INFERD_HTTP_HOST": "127.0.0.1",
        "INFERD_HTTP_PORT": "0",
        "INFERD_DATA_DIR": str(folder / "worker"),
        **(rollouts.ENVIRONMENT if options.rollouts else {}),
    }
    with narrator.step("worker", "starting a worker") as step:
        worker = running.enter_context(WorkerProcess(environment, folder / "worker.log"))
        step.say(f"a separate process, status page on {worker.url}/")
    return worker


def _run(demo: Demo) -> None:
    with demo.narrator.step("data", "reading flights") as step:
        flights = load_flights()
        step.say(f"{len(flights.train) + len(flights.held_out):,} flights from New York in 2013, with the weather")
    with demo.narrator.step("train", "training LightGBM") as step:
        model = train(flights.train)
        step.say(f"LightGBM with {TREES} trees, on the {len(flights.train):,} flights of January to October")
    try:
        held_out = flights.held_out.head(demo.options.flights)
        asyncio.run(_serve(demo, model, held_out, flights.train))
    except ServerError:
        # If the worker has exited, its error is the cause.
        demo.worker.check()
        raise


async def _serve(demo: Demo, model: TrainedModel, flights: FlightSet, train_set: FlightSet) -> None:
    async with demo.client() as client:
        manifest = await _deploy(demo, client, model)
        if demo.options.rollouts:
            await rollouts.set_baseline(client, manifest, model, train_set)
        rows = flights.rows()
        results = await _stream(demo, client, rows)
        with demo.narrator.step("job", "the same flights as one Parquet file") as step:
            job = await run_job(client, manifest, flights, demo.folder, step)
        latency = await _measure_latency(demo, client, rows)
        with demo.narrator.step("reject", "sending bad requests") as step:
            names = list(flights.features.columns)
            rejections = [await send_bad_request(client, bad) for bad in bad_requests(MODEL, names, rows[0])]
            rejections.append(await send_garbage(demo.connection, demo.topics))
            step.say(f"{len(rejections)} bad requests, each with a typed error as its result")
        outcome.show_one_request(demo.narrator, names, rows[0], results.results[0])
        _check_predictions(demo, model, flights, results)
        check_job(demo.narrator, job, model, flights)
        outcome.show_speed(demo.narrator, results, latency, demo.options.rate)
        outcome.show_rejections(demo.narrator, rejections)
        await route_tickets(demo.narrator, client)
        if demo.options.rollouts:
            await rollouts.roll_out(demo.narrator, client, MODEL, train_set, flights)
        status = await asyncio.to_thread(demo.worker.settled_status)
        outcome.show_status(demo.narrator, demo.worker.url, status)
        counts = await record_counts(demo.connection, demo.topics, ("requests", "results", "dead-letters"))
        outcome.check_counts(demo.narrator, counts, status)


async def _deploy(demo: Demo, client: Client, model: TrainedModel) -> Manifest:
    with demo.narrator.step("deploy", "writing the model to the topics models and model-artifacts") as step:
        manifest = await client.deploy_model(model.text, manifest_of(model.text, MODEL, version=1))
        step.say(
            f"{MODEL}:{manifest.version}, {len(manifest.features)} features, {manifest.size / 1_000:.0f} kB,"
            f" sha256 {manifest.sha256[:12]}…, as records on Kafka"
        )
    return manifest


async def _stream(demo: Demo, client: Client, rows: list[list[object]]) -> Burst:
    with demo.narrator.step("stream", f"{len(rows):,} requests of one flight each") as step:
        # The client retries this request until the worker serves the model.
        await client.predict(MODEL, rows[0])
        results = await burst(client, MODEL, rows)
        step.say(f"{len(rows):,} requests of one flight each, in order of departure: {len(results.results):,} results")
    return results


async def _measure_latency(demo: Demo, client: Client, rows: list[list[object]]) -> Latency:
    options = demo.options
    count = int(options.rate * options.latency_s)
    with demo.narrator.step("measure", "latency of a steady stream") as step:
        chosen = [rows[number % len(rows)] for number in range(count)]
        latency = Latency.of(await steady(client, MODEL, chosen, options.rate))
        step.say(f"{count:,} requests at a constant rate of {options.rate:,.0f} per second")
    return latency


def _check_predictions(demo: Demo, model: TrainedModel, flights: FlightSet, results: Burst) -> None:
    """Compares the results with the true outcomes, and with LightGBM itself."""
    narrator = demo.narrator
    predictions = [result for result in results.results if isinstance(result, Prediction)]
    narrator.check(
        f"every flight has a prediction: {len(predictions):,} of {len(flights):,}", len(predictions) == len(flights)
    )
    if len(predictions) != len(flights):
        return
    scores = np.array([prediction.outputs["prediction"] for prediction in predictions])
    same = scores == model.predict(flights)
    outcome.show_flights(narrator, flights, scores)
    area = outcome.show_quality(narrator, flights, scores)
    narrator.check(f"AUC {area:.4f} is above {AUC_MIN}", area > AUC_MIN)
    narrator.check(
        f"results equal LightGBM's own Booster.predict bit for bit: {int(same.sum()):,} of {len(same):,}",
        bool(same.all()),
    )

"""The demo from beginning to end."""

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
from inferd.daemon.demo import outcome
from inferd.daemon.demo.flights import FlightSet, load_flights
from inferd.daemon.demo.job import check_job, run_job
from inferd.daemon.demo.narration import Narrator
from inferd.daemon.demo.quality import Latency
from inferd.daemon.demo.raw_kafka import delete_topics, garbage_refused, record_counts
from inferd.daemon.demo.traffic import (
    Burst,
    bad_requests,
    burst,
    refused,
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
    """How much of it is shown."""

    flights: int | None
    """So many of the held-out flights are streamed; all of them where it is None."""
    latency_s: float
    rate: float
    """Requests a second while latency is measured."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The parts that the demo uses."""

    narrator: Narrator
    options: DemoOptions
    connection: KafkaConnection
    topics: TenantTopics
    worker: WorkerProcess

    def client(self) -> Client:
        """A new client of the demo's tenant."""
        return Client(self.connection, namespace=self.topics.namespace, tenant=self.topics.tenant)


def run_demo(settings: Settings, options: DemoOptions, narrator: Narrator | None = None) -> bool:
    """Runs the demo on standard output and cleans up; whether every check passed."""
    narrator = narrator or Narrator()
    narrator.title("Will this flight arrive more than 15 minutes late?", "Real flights, through a real Apache Kafka")
    started = time.monotonic()
    with ExitStack() as running:
        running.enter_context(terminable())
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="inferd-demo-")))
        connection = _given_kafka(settings) if settings.broker else _start_kafka(narrator, running, folder)
        topics = TenantTopics(f"demo-{secrets.token_hex(4)}", TENANT)
        if settings.broker:
            # Before the worker starts, so that it is done after the worker has stopped.
            running.callback(lambda: asyncio.run(delete_topics(connection, topics)))
        worker = _start_worker(narrator, running, connection, topics, folder)
        _play(Scene(narrator, options, connection, topics, worker))
        with narrator.step("stop", "the worker, then the broker") as step:
            worker.stop()
            running.close()
            step.say("the worker and its topics" if settings.broker else "the worker, then the broker")
    narrator.check("the worker stopped in order, with exit code 0", worker.exit_code == 0)
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
        step.say(f"Apache Kafka {kafka.version} on {kafka.bootstrap_servers}, for as long as this takes")
    return KafkaConnection(kafka.bootstrap_servers)


def _start_worker(
    narrator: Narrator, running: ExitStack, connection: KafkaConnection, topics: TenantTopics, folder: Path
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
    }
    with narrator.step("worker", "starting a worker") as step:
        worker = running.enter_context(WorkerProcess(environment, folder / "worker.log"))
        step.say(f"a process of its own, status page on {worker.url}/")
    return worker


def _play(scene: Scene) -> None:
    with scene.narrator.step("data", "reading flights") as step:
        flights = load_flights()
        step.say(f"{len(flights.train) + len(flights.held_out):,} flights that left New York in 2013, with the weather")
    with scene.narrator.step("train", "training LightGBM") as step:
        model = train(flights.train)
        step.say(f"LightGBM, {TREES} trees, on the {len(flights.train):,} flights of January to October")
    try:
        asyncio.run(_serve(scene, model, flights.held_out.head(scene.options.flights)))
    except ServerError:
        # Whatever was missed, a worker that is gone is why.
        scene.worker.check()
        raise


async def _serve(scene: Scene, model: TrainedModel, flights: FlightSet) -> None:
    async with scene.client() as client:
        manifest = await _deploy(scene, client, model)
        rows = flights.rows()
        answers = await _stream(scene, client, rows)
        with scene.narrator.step("job", "the same flights as one Parquet file") as step:
            job = await run_job(client, manifest, flights, step)
        latency = await _measure_latency(scene, client, rows)
        with scene.narrator.step("refuse", "sending bad requests") as step:
            names = list(flights.features.columns)
            refusals = [await refused(client, bad) for bad in bad_requests(MODEL, names, rows[0])]
            refusals.append(await garbage_refused(scene.connection, scene.topics))
            step.say(f"{len(refusals)} bad requests, each answered with a typed error")
        outcome.show_one_request(scene.narrator, names, rows[0], answers.results[0])
        _judge(scene, model, flights, answers)
        check_job(scene.narrator, job, model, flights)
        outcome.show_speed(scene.narrator, answers, latency, scene.options.rate)
        outcome.show_refusals(scene.narrator, refusals)
        status = await asyncio.to_thread(scene.worker.settled_status)
        outcome.show_status(scene.narrator, scene.worker.url, status)
        counts = await record_counts(scene.connection, scene.topics, ("requests", "results", "dead-letters"))
        outcome.check_counts(scene.narrator, counts, status)


async def _deploy(scene: Scene, client: Client, model: TrainedModel) -> Manifest:
    with scene.narrator.step("deploy", "onto the topics models and model-artifacts") as step:
        manifest = await client.deploy_model(model.text, manifest_of(model.text, MODEL, version=1))
        step.say(
            f"{MODEL}:{manifest.version}, {len(manifest.features)} features, {manifest.size / 1_000:.0f} kB,"
            f" sha256 {manifest.sha256[:12]}…, as records on Kafka"
        )
    return manifest


async def _stream(scene: Scene, client: Client, rows: list[list[object]]) -> Burst:
    with scene.narrator.step("stream", f"{len(rows):,} requests of one flight each") as step:
        # The first one waits until the worker serves the model.
        await client.predict(MODEL, rows[0])
        answers = await burst(client, MODEL, rows)
        step.say(f"{len(rows):,} requests of one flight each, in order of departure: {len(answers.results):,} results")
    return answers


async def _measure_latency(scene: Scene, client: Client, rows: list[list[object]]) -> Latency:
    options = scene.options
    count = int(options.rate * options.latency_s)
    with scene.narrator.step("measure", "latency of a steady stream") as step:
        chosen = [rows[number % len(rows)] for number in range(count)]
        latency = Latency.of(await steady(client, MODEL, chosen, options.rate))
        step.say(f"{count:,} requests at a steady {options.rate:,.0f} a second")
    return latency


def _judge(scene: Scene, model: TrainedModel, flights: FlightSet, answers: Burst) -> None:
    """Compares the results with the truth, and with LightGBM itself."""
    narrator = scene.narrator
    predictions = [result for result in answers.results if isinstance(result, Prediction)]
    narrator.check(
        f"every flight has its prediction: {len(predictions):,} of {len(flights):,}", len(predictions) == len(flights)
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

"""Topics get partitions while workers answer: by the command, and by hand. Jobs and labels of before are found, also if
workers are killed while they move."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from functools import partial
from itertools import count
from typing import Any

import msgpack
import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from inferd import SyncClient
from inferd.schemas.jobs import encode_close, encode_open, encode_rows
from inferd.schemas.labels import Label
from inferd.schemas.monitoring import decode_window, merged
from inferd.streams.kafka.changelogs import TableName, changelog_name
from inferd.streams.kafka.partitioner import partition_of_key
from tests.fixtures.handover_kills import POINTS, kill_in_handover
from tests.fixtures.workers import (
    PARTITIONS,
    Cluster,
    Load,
    StartWorker,
    TrainedModel,
    Worker,
    until,
    wait_for_partitions,
)

COMMAND = (sys.executable, "-c", "from inferd.daemon.cli import main; main()")
GROWN = 2 * PARTITIONS
NEW_REQUESTS, FIRST_NEW = 40, 1_000_000
"""Requests to the new partitions, and the number in the id of the first."""
JOBS, REQUESTS = 6, 100


def grow(cluster: Cluster) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
    environment |= {"INFERD_BROKER": cluster.bootstrap, "INFERD_NAMESPACE": cluster.namespace}
    command = [*COMMAND, "topics", "grow", "--partitions", str(GROWN)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def grow_by_hand(cluster: Cluster, *topics: str) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    for topic in topics or [cluster.topics.name("requests")]:
        admin.create_partitions([NewPartitions(topic, GROWN)])[topic].result(30)


def send_to_new_partitions(cluster: Cluster) -> None:
    producer = cluster.producer(**{"topic.metadata.refresh.interval.ms": 200, "message.timeout.ms": 60_000})
    wait_for_partitions(producer, cluster.topics.name("requests"), GROWN)
    for n in range(NEW_REQUESTS):
        body = {"id": f"r{FIRST_NEW + n}", "model_id": "demo", "input_data": [0.0] * 10}
        partition = PARTITIONS + n % (GROWN - PARTITIONS)
        producer.produce(cluster.topics.name("requests"), msgpack.packb(body), partition=partition)
    assert producer.flush(60) == 0


@pytest.mark.parametrize(("guarantee", "by_hand"), [("exactly_once", False), ("at_least_once", True)])
def test_partitions_are_added_under_load_and_nothing_is_lost_or_twice(
    kafka: str, namespace: str, model: TrainedModel, start_worker: StartWorker, guarantee: str, by_hand: bool
) -> None:
    cluster = Cluster(kafka, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    workers = [start_worker(cluster, processing_guarantee=guarantee) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    load = Load(cluster, model)
    load.start(per_second=200)
    until(lambda: load.n > 200, 30, "load")
    if by_hand:
        grow_by_hand(cluster)
        send_to_new_partitions(cluster)
        topic = cluster.topics.name("requests")

        def said() -> bool:
            answers: list[tuple[int, Any]] = [worker.get("/readyz") for worker in workers]
            return any(status == 503 and topic in str(answer) for status, answer in answers)

        until(said, 30, "the partitions that are not served are named on /readyz")
    grown = grow(cluster).splitlines()[1:]
    assert {line.split()[1] for line in grown} == {str(GROWN)}, grown
    if not by_hand:
        send_to_new_partitions(cluster)
    ids = [FIRST_NEW + n for n in range(NEW_REQUESTS)]

    def answered() -> list[int]:
        numbers = (int(msgpack.unpackb(record.value())["id"][1:]) for record in cluster.read_all("results"))
        return sorted(number for number in numbers if number >= FIRST_NEW)

    until(lambda: len(answered()) >= NEW_REQUESTS, 90, "requests in new partitions are answered without a restart")
    load.stop()
    until(lambda: all(worker.get("/status")[1]["lag"] == 0 for worker in workers), 60, "everything is committed")
    assert set(answered()) == set(ids)
    ledger = load.ledger()
    assert ledger.lost == []
    if guarantee == "exactly_once":
        assert answered() == ids
        assert ledger.repeated == 0
    for worker in workers:
        until(lambda worker=worker: worker.get("/readyz")[0] == 200, 30, "ready")  # type: ignore[misc]


def send(cluster: Cluster, job_id: str, *messages: bytes) -> None:
    """As a program with librdkafka does it: by the current number of partitions."""
    producer = cluster.producer(partitioner="murmur2_random")
    for message in messages:
        producer.produce(cluster.topics.name("jobs"), message, job_id.encode())
    assert producer.flush(30) == 0


def is_grown(workers: list[Worker], stream: str) -> bool:
    owned = [each for worker in workers for each in worker.get("/status")[1]["partitions"]]
    return {each["partition"] for each in owned if each["topic"].endswith(f".{stream}")} == {*range(GROWN)}


@pytest.mark.timeout(300)
def test_jobs_and_labels_of_before_are_found(  # noqa: C901, PLR0915  (one story)
    kafka: str, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    """Some topics get partitions by hand, the others by the command. Jobs are open, and predictions wait for labels."""
    cluster = Cluster(kafka, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    workers = [start_worker(cluster, labels_window_s=3_600) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    load = Load(cluster, model)
    load.send(REQUESTS)
    assert not load.ledger().lost
    rows = np.random.default_rng(5).normal(size=(50, model.n_features)).tolist()
    bad = [["no number", *rows[0][1:]], *rows[1:]]
    expected = model.booster.predict(rows).tolist()
    with SyncClient(kafka, namespace=namespace) as client:
        for n in range(JOBS):
            client.submit_job("demo", bad if n % 2 else rows, job_id=f"old-{n}", chunk_rows=10)
        until(lambda: all(client.job_status(f"old-{n}").ended for n in range(JOBS)), 60, "the jobs have ended")
        for n in range(JOBS):
            send(cluster, f"open-{n}", encode_open("demo", chunk_rows=10), encode_rows(0, rows))
        until(lambda: all(client.job_status(f"open-{n}").processed == 50 for n in range(JOBS)), 60, "the jobs are open")
        grow_by_hand(cluster, *(cluster.topics.name(stream) for stream in ("jobs", "job-results", "to-label")))
        grow(cluster)
        until(lambda: is_grown(workers, "jobs") and is_grown(workers, "labels"), 60, "the partitions are taken up")

        def results() -> int:
            return len([r for r in cluster.read_all("job-results") if r.key().startswith(b"old-")])

        with_copies = results()
        for n in range(JOBS):
            found = [row.outputs.get("prediction") for row in client.job_results(f"old-{n}")]
            assert found == [None if n % 2 and not row else expected[row] for row in range(50)]
            # The same content under the same id is the same job.
            client.submit_job("demo", bad if n % 2 else rows, job_id=f"old-{n}", chunk_rows=10)
        assert {client.job_status(f"old-{n}").status for n in range(0, JOBS, 2)} == {"completed"}
        assert results() == with_copies, "nothing was scored again"
        for n in range(1, JOBS, 2):
            client.retry_job(f"old-{n}")
        for n in range(JOBS):
            send(cluster, f"open-{n}", encode_rows(1, rows), encode_close(2))
            client.submit_job("demo", rows, job_id=f"new-{n}")

        def ended(name: str) -> bool:
            return all(client.job_status(f"{name}-{n}").ended for n in range(JOBS))

        until(lambda: all(map(ended, ("old", "open", "new"))), 60, "all jobs have ended")
        for n in range(JOBS):
            found = [row.outputs.get("prediction") for row in client.job_results(f"open-{n}")]
            assert found == expected * 2
            found = [row.outputs.get("prediction") for row in client.job_results(f"old-{n}")]
            assert found == [None if n % 2 and not row else expected[row] for row in range(50)]
            assert client.job_status(f"new-{n}").succeeded == 50
        assert {client.job_status(f"old-{n}").attempt for n in range(1, JOBS, 2)} == {1}
        assert len(client.list_jobs()) == 3 * JOBS
        client.send_labels(Label(f"r{n}", n % 2) for n in range(REQUESTS))

        def labelled() -> int:
            windows = merged([decode_window(record.value()) for record in cluster.read_all("model-stats")])
            return windows.quality.rows if windows is not None and windows.quality is not None else 0

        until(lambda: labelled() == REQUESTS, 60, "labels are joined with predictions of before")
    contradictory = start_worker(cluster, topic_partitions=GROWN, labels_window_s=3_600)
    assert contradictory.process.wait(60) == 2
    assert f"set INFERD_TOPIC_PARTITIONS={PARTITIONS}" in contradictory.text()
    for worker in workers:
        until(lambda worker=worker: worker.get("/readyz")[0] == 200, 60, "ready")  # type: ignore[misc]
        assert worker.stop() == 0


JOBS_A_PARTITION = 2
"""Open jobs whose states move to each new partition."""
OPEN_ROWS = 20
KILLS = [*(("jobs", point) for point in POINTS), ("labels", "state_committed"), ("labels", "offset_produced")]


def ids_of_new_partitions() -> list[str]:
    found = defaultdict[int, list[str]](list)
    for n in count():
        job_id = f"moved-{n}"
        of = found[partition_of_key(job_id.encode(), GROWN)]
        if len(of) < JOBS_A_PARTITION:
            of.append(job_id)
        if sum(map(len, found.values())) == JOBS_A_PARTITION * GROWN:
            return [job_id for number in range(PARTITIONS, GROWN) for job_id in found[number]]
    raise AssertionError


def states(cluster: Cluster, table: TableName) -> dict[bytes, list[int]]:
    """By id, the partitions of a changelog that have a state of it."""
    live = dict[tuple[int, bytes], bytes | None]()
    for record in cluster.read_topic(changelog_name(cluster.namespace, "default", table)):
        live[record.partition(), record.key()] = record.value()
    found = defaultdict[bytes, list[int]](list)
    for (number, key), value in live.items():
        if value is not None:
            found[key].append(number)
    return found


@pytest.mark.timeout(300)
def test_workers_that_are_killed_at_any_step_of_a_handover_leave_each_state_in_one_place(  # noqa: C901  (one story)
    kafka: str, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    """One worker lives and owns older partitions; another one, and each that takes its place, is killed."""
    cluster = Cluster(kafka, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    shared = {"labels_window_s": 3_600, "processing_guarantee": "exactly_once", "heartbeat_interval_s": 0.5}

    def killed(table: str, point: str) -> Worker:
        return start_worker(
            cluster, instance_id="killed", session_timeout_s=20, patch=partial(kill_in_handover, table, point), **shared
        )

    workers = [start_worker(cluster, **shared), killed(*KILLS[0])]
    for worker in workers:
        worker.wait_ready()
    load = Load(cluster, model)
    load.send(REQUESTS)
    assert not load.ledger().lost
    rows = np.random.default_rng(5).normal(size=(OPEN_ROWS, model.n_features)).tolist()
    expected, job_ids = model.booster.predict(rows).tolist(), ids_of_new_partitions()
    with SyncClient(kafka, namespace=namespace) as client:
        for job_id in job_ids:
            send(cluster, job_id, encode_open("demo", chunk_rows=10), encode_rows(0, rows))
        until(lambda: all(client.job_status(each).processed == OPEN_ROWS for each in job_ids), 60, "the jobs are open")
        grow(cluster)
        for place, (table, point) in enumerate(KILLS):
            if place:
                workers[1] = killed(table, point)
            assert workers[1].process.wait(60) == -signal.SIGKILL, f"killed at {point} of {table}"
            for of in ("jobs", "labels"):
                assert max(map(len, states(cluster, of).values())) == 1, f"{of} after {point} of {table}"
        workers[1] = start_worker(cluster, instance_id="killed", session_timeout_s=20, **shared)
        until(lambda: is_grown(workers, "jobs") and is_grown(workers, "labels"), 60, "the partitions are taken up")
        for job_id in job_ids:
            send(cluster, job_id, encode_rows(1, rows), encode_close(2))
        until(lambda: all(client.job_status(each).ended for each in job_ids), 60, "all jobs have ended")
        for job_id in job_ids:
            found = [row.outputs.get("prediction") for row in client.job_results(job_id)]
            assert found == expected * 2
        client.send_labels(Label(f"r{n}", n % 2) for n in range(REQUESTS))

        def labelled() -> int:
            windows = merged([decode_window(record.value()) for record in cluster.read_all("model-stats")])
            return windows.quality.rows if windows is not None and windows.quality is not None else 0

        until(lambda: labelled() >= REQUESTS, 60, "labels are joined with predictions of before")
        assert labelled() == REQUESTS
    chunks = Counter((record.key(), record.value()) for record in cluster.read_all("job-results"))
    assert len(chunks) == len(job_ids) * 2 * OPEN_ROWS // 10
    assert set(chunks.values()) == {1}, "each chunk has one result"
    homes = states(cluster, "jobs")
    assert {key.decode() for key in homes} == {*job_ids}
    assert homes == {key: [partition_of_key(key, GROWN)] for key in homes}
    for worker in workers:
        until(lambda worker=worker: worker.get("/readyz")[0] == 200, 60, "ready")  # type: ignore[misc]
        assert worker.stop() == 0

"""Jobs over HTTP, asked of two real workers: whichever owns a job, both answer the same."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from aiokafka.partitioner import murmur2

from schemas.jobs import TERMINAL
from tests.fixtures.http_client import Answer, ask, write_tokens
from tests.fixtures.jobs import rows_of
from tests.fixtures.workers import PARTITIONS, Cluster, TrainedModel, Worker, until

pytestmark = pytest.mark.timeout(120)

JSON, NDJSON = "application/json", "application/x-ndjson"
ALONE: dict[str, Any] = {"inferd_forwarded": "1"}
"""Asks a worker for what it knows by itself."""


@dataclass(frozen=True)
class Pair:
    """Two workers that own some partitions of jobs each, and a model that both serve."""

    owned: dict[Worker, frozenset[int]]
    model: TrainedModel

    def owner(self, job_id: str) -> Worker:
        number = (murmur2(job_id.encode()) & 0x7FFFFFFF) % PARTITIONS
        return next(worker for worker, numbers in self.owned.items() if number in numbers)

    def other(self, job_id: str) -> Worker:
        return next(worker for worker in self.owned if worker is not self.owner(job_id))

    def submit(self, worker: Worker, job_id: str, batch: list[Any], **fields: Any) -> Answer:
        body = {"job_id": job_id, "model_id": "demo", "input_batch": batch, **fields}
        return ask(worker, "POST", "/jobs", json.dumps(body).encode(), Content_Type=JSON)

    def ended(self, job_id: str, attempt: int = 0) -> Any:
        """The status of a job that has ended, as the worker tells it that does not own it."""

        def status() -> Any:
            said = ask(self.other(job_id), "GET", f"/jobs/{job_id}").json()
            return said if said["status"] in TERMINAL and said.get("attempt", 0) >= attempt else None

        return until(status, 30, f"job {job_id} ended")


@pytest.fixture(scope="module")
def pair(kafka: str, model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    place = Cluster(kafka, f"http-jobs-{uuid.uuid4().hex[:8]}")
    other = Cluster(kafka, place.namespace, "other")
    for cluster in (place, other):
        cluster.create_topics()
        cluster.deploy(model)
    directory = tmp_path_factory.mktemp("workers")
    tokens = write_tokens(directory)
    workers = []
    for name in ("w1", "w2"):
        (directory / name).mkdir()
        settings: dict[str, Any] = {"tenants": "default,other", "http_tokens_file": tokens}
        workers.append(Worker(kafka, place.namespace, directory / name, name, **settings))
    try:
        for worker in workers:
            worker.wait_ready()
        owned: dict[Worker, frozenset[int]] = until(lambda: owned_by(workers), 40, "each owns some partitions")
        yield Pair(owned, model)
    finally:
        for worker in workers:
            worker.kill()


def owned_by(workers: list[Worker]) -> dict[Worker, frozenset[int]] | None:
    """By worker, once all partitions have one and each worker lists the jobs of all."""
    answers = {worker: ask(worker, "GET", "/jobs", **ALONE) for worker in workers}
    told = {worker: answer.headers.get("inferd-job-partitions", "") for worker, answer in answers.items()}
    owned = {worker: frozenset(map(int, numbers.split(","))) for worker, numbers in told.items() if numbers}
    whole = len(owned) == len(workers) and sum(map(len, owned.values())) == PARTITIONS
    return owned if whole and all(ask(worker, "GET", "/jobs").status == 200 for worker in workers) else None


def id_of(pair: Pair, owner: Worker, name: str) -> str:
    """A job id that belongs to a worker."""
    return next(job_id for n in range(1_000) if pair.owner(job_id := f"{name}-{n}") is owner)


@pytest.fixture(params=[0, 1], ids=["w1", "w2"])
def new_id(request: pytest.FixtureRequest, pair: Pair) -> Callable[[str], str]:
    """Makes ids of jobs that belong to the one worker, and to the other."""
    worker = list(pair.owned)[request.param]
    return lambda name: id_of(pair, worker, name)


def same(pair: Pair, job_id: str, method: str, path: str, **headers: Any) -> Answer:
    """The answer of the worker that does not own the job, which is the owner's, too."""
    theirs = ask(pair.other(job_id), method, path, **headers)
    own = ask(pair.owner(job_id), method, path, **headers)
    assert (theirs.status, theirs.body) == (own.status, own.body)
    assert theirs.headers["Content-Type"] == own.headers["Content-Type"]
    return theirs


def test_both_workers_answer_alike(pair: Pair, new_id: Callable[[str], str]) -> None:
    job_id, rows = new_id("alike"), rows_of(300, 10)
    opened = pair.submit(pair.other(job_id), job_id, rows.tolist(), labels={"a": "b"})
    assert (opened.status, opened.json()["job_id"]) == (202, job_id), opened.body
    assert pair.ended(job_id)["status"] == "completed"
    status = same(pair, job_id, "GET", f"/jobs/{job_id}").json()
    assert (status["input_count"], status["succeeded"], status["labels"]) == (300, 300, {"a": "b"})
    results = same(pair, job_id, "GET", f"/jobs/{job_id}/results")
    lines = [json.loads(line) for line in results.body.splitlines()]
    assert [line["row"] for line in lines] == list(range(300))
    assert np.array_equal([line["prediction"] for line in lines], pair.model.booster.predict(rows))
    assert same(pair, job_id, "GET", f"/jobs/{job_id}/results?from_row=298").body == b"".join(
        results.body.splitlines(keepends=True)[298:]
    )
    assert ask(pair.other(job_id), "GET", f"/jobs/{job_id}", **ALONE).code == "unavailable"


def test_every_job_is_listed_by_every_worker(pair: Pair) -> None:
    ids = sorted(id_of(pair, worker, f"list-{n}") for worker in pair.owned for n in range(3))
    for job_id in ids:
        assert pair.submit(next(iter(pair.owned)), job_id, [[0.0] * 10]).status == 202
    for job_id in ids:
        pair.ended(job_id)
    for worker in pair.owned:
        listed = [job["job_id"] for job in ask(worker, "GET", "/jobs?limit=1000").json()["jobs"]]
        assert listed == sorted(listed)
        assert [job_id for job_id in listed if job_id.startswith("list-")] == ids
        page = ask(worker, "GET", f"/jobs?limit=2&status=completed&after={ids[0]}").json()["jobs"]
        assert [job["job_id"] for job in page] == ids[1:3]

"""Jobs over HTTP with two real workers: both give the same response, whichever owns the job."""

from __future__ import annotations

import csv
import io
import json
import ssl
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka.partitioner import murmur2
from pyarrow import parquet

from inferd.schemas.jobs.job import TERMINAL
from tests.fixtures.certificates import Authority
from tests.fixtures.http_client import TOKENS, Answer, ask, write_forwarding_secret, write_tokens
from tests.fixtures.jobs import rows_of
from tests.fixtures.workers import PARTITIONS, Cluster, TrainedModel, Worker, until

JSON, NDJSON = "application/json", "application/x-ndjson"
ALONE: dict[str, Any] = {"inferd_forwarded": "1"}
"""Requests a worker's own answer, without forwarding."""


@dataclass(frozen=True)
class Pair:
    """Two workers that each own some partitions of jobs, and a model that both serve."""

    owned: dict[Worker, frozenset[int]]
    model: TrainedModel
    cafile: Path

    def owner(self, job_id: str) -> Worker:
        number = (murmur2(job_id.encode()) & 0x7FFFFFFF) % PARTITIONS
        return next(worker for worker, numbers in self.owned.items() if number in numbers)

    def other(self, job_id: str) -> Worker:
        return next(worker for worker in self.owned if worker is not self.owner(job_id))

    def submit(self, worker: Worker, job_id: str, batch: list[Any], **fields: Any) -> Answer:
        body = {"job_id": job_id, "model_id": "demo", "input_batch": batch, **fields}
        return ask(worker, "POST", "/jobs", json.dumps(body).encode(), Content_Type=JSON)

    def upload(self, worker: Worker, job_id: str, lines: bytes, **query: Any) -> Answer:
        asked = "&".join(f"{name}={value}" for name, value in {"model": "demo", "job_id": job_id, **query}.items())
        return ask(worker, "POST", f"/jobs?{asked}", pieces(lines), Content_Type=NDJSON)

    def ended(self, job_id: str, attempt: int = 0) -> Any:
        """The status of a job that has ended, from a worker that does not own it."""

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
    tokens, secret = write_tokens(directory), write_forwarding_secret(directory)
    authority = Authority(directory)
    tls = authority.issue("worker")
    workers = []
    for name in ("w1", "w2"):
        (directory / name).mkdir()
        settings: dict[str, Any] = {"tenants": "default,other", "http_tokens_file": tokens}
        settings["http_forwarding_secret_file"] = secret
        settings |= {"https_port": 0, "https_certfile": tls.cert, "https_keyfile": tls.key}
        settings["https_cafile"] = authority.cert
        workers.append(Worker(kafka, place.namespace, directory / name, name, **settings))
    try:
        for worker in workers:
            worker.wait_ready()
        owned: dict[Worker, frozenset[int]] = until(lambda: owned_by(workers), 40, "each owns some partitions")
        yield Pair(owned, model, authority.cert)
    finally:
        for worker in workers:
            worker.kill()


def owned_by(workers: list[Worker]) -> dict[Worker, frozenset[int]] | None:
    """By worker, once every partition has an owner and each worker lists all jobs."""
    answers = {worker: ask(worker, "GET", "/jobs", **ALONE) for worker in workers}
    headers = {worker: answer.headers.get("inferd-job-partitions", "") for worker, answer in answers.items()}
    owned = {worker: frozenset(map(int, numbers.split(","))) for worker, numbers in headers.items() if numbers}
    whole = len(owned) == len(workers) and sum(map(len, owned.values())) == PARTITIONS
    return owned if whole and all(ask(worker, "GET", "/jobs").status == 200 for worker in workers) else None


def pieces(data: bytes) -> Iterator[bytes]:
    """A body of unknown length, which is sent in chunks."""
    return (data[start : start + 50_000] for start in range(0, len(data), 50_000))


def ndjson(rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def id_of(pair: Pair, owner: Worker, name: str) -> str:
    """A job id that belongs to a worker."""
    return next(job_id for n in range(1_000) if pair.owner(job_id := f"{name}-{n}") is owner)


@pytest.fixture(params=[0, 1], ids=["w1", "w2"])
def new_id(request: pytest.FixtureRequest, pair: Pair) -> Callable[[str], str]:
    """Makes ids of jobs that belong to the one worker, and to the other."""
    worker = list(pair.owned)[request.param]
    return lambda name: id_of(pair, worker, name)


def same(pair: Pair, job_id: str, method: str, path: str, **headers: Any) -> Answer:
    """The response of the worker that does not own the job; it equals the owner's."""
    theirs = ask(pair.other(job_id), method, path, **headers)
    own = ask(pair.owner(job_id), method, path, **headers)
    assert (theirs.status, theirs.body) == (own.status, own.body)
    assert theirs.headers["Content-Type"] == own.headers["Content-Type"]
    return theirs


def test_both_workers_give_the_same_response(pair: Pair, new_id: Callable[[str], str]) -> None:
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


def test_workers_advertise_their_port_with_tls(pair: Pair) -> None:
    """So the other tests of this file forward over it: a worker proves its secret only for the URL it advertises."""
    for worker in pair.owned:
        url = next(line["tls_url"] for line in map(json.loads, worker.text().splitlines()) if "tls_url" in line)
        context = ssl.create_default_context(cafile=str(pair.cafile))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        with urllib.request.urlopen(f"{url}/livez", timeout=30, context=context) as answer:
            assert answer.status == 200


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


def test_rows_are_sent_as_ndjson_and_results_are_read_in_three_formats(pair: Pair) -> None:
    """20,000 rows, two of them poison, sent to the worker that does not own the job."""
    job_id, rows, poison = id_of(pair, next(iter(pair.owned)), "upload"), rows_of(20_000, 10), {7, 19_999}
    good = [row for row in range(len(rows)) if row not in poison]
    lines = ndjson(["x", *values[1:]] if row in poison else values for row, values in enumerate(rows.tolist()))
    opened = pair.upload(pair.other(job_id), job_id, lines, chunk_rows=512)
    assert (opened.status, opened.json()["input_count"]) == (202, 20_000), opened.body
    status = pair.ended(job_id)
    assert (status["status"], status["succeeded"], status["failed"]) == ("completed_with_errors", 19_998, 2)
    again = pair.upload(pair.owner(job_id), job_id, lines, chunk_rows=512)
    assert (again.status, again.json()) == (202, status)
    expected = pair.model.booster.predict(rows)[good]
    for columns in (columns_of_ndjson, columns_of_csv, columns_of_parquet):
        numbers, predictions, codes = columns(pair, job_id)
        assert numbers == list(range(20_000))
        assert np.array_equal(np.array(predictions, float)[good], expected)
        assert {row: code for row, code in enumerate(codes) if code} == dict.fromkeys(poison, "invalid_value")
    few = same(pair, job_id, "GET", f"/jobs/{job_id}/results?from_row=19998", Accept="text/csv").body.splitlines()
    assert (len(few), few[1].split(b",")[0]) == (3, b"19998")
    refused = same(pair, job_id, "GET", f"/jobs/{job_id}/results", Accept="image/png")
    assert (refused.status, refused.code) == (406, "not_acceptable")


Columns = tuple[list[int], list[Any], list[str | None]]


def columns_of_ndjson(pair: Pair, job_id: str) -> Columns:
    lines = [json.loads(line) for line in same(pair, job_id, "GET", f"/jobs/{job_id}/results").body.splitlines()]
    codes = [line.get("error", {}).get("code") for line in lines]
    return [line["row"] for line in lines], [line.get("prediction") for line in lines], codes


def columns_of_csv(pair: Pair, job_id: str) -> Columns:
    text = same(pair, job_id, "GET", f"/jobs/{job_id}/results", Accept="text/csv").body.decode()
    lines = list(csv.DictReader(io.StringIO(text)))
    predictions = [line["prediction"] or None for line in lines]
    return [int(line["row"]) for line in lines], predictions, [line["error_code"] or None for line in lines]


def columns_of_parquet(pair: Pair, job_id: str) -> Columns:
    answer = same(pair, job_id, "GET", f"/jobs/{job_id}/results", Accept="application/vnd.apache.parquet")
    table = parquet.read_table(io.BytesIO(answer.body)).to_pydict()
    return table["row"], table["prediction"], table["error_code"]


def test_an_invalid_line_cancels_the_job(pair: Pair, new_id: Callable[[str], str]) -> None:
    job_id = new_id("malformed")
    answer = pair.upload(pair.other(job_id), job_id, b"[1]\n" * 5_000 + b"[1\n" + b"[1]\n" * 5_000)
    assert (answer.status, answer.code) == (422, "invalid_value")
    assert "line 5001" in answer.json()["error"]["message"]
    assert pair.ended(job_id)["status"] == "cancelled"


def test_other_content_under_the_same_id_is_a_conflict(pair: Pair, new_id: Callable[[str], str]) -> None:
    job_id, rows = new_id("conflict"), rows_of(10, 10).tolist()
    assert pair.upload(pair.other(job_id), job_id, ndjson(rows)).status == 202
    pair.ended(job_id)
    for worker in pair.owned:
        other_rows = pair.upload(worker, job_id, ndjson(rows[::-1]))
        assert (other_rows.status, other_rows.code) == (409, "chunk_conflict"), other_rows.body
        other_opening = pair.upload(worker, job_id, ndjson(rows), chunk_rows=5)
        assert (other_opening.status, other_opening.code) == (409, "job_conflict"), other_opening.body
        other_job = pair.submit(worker, job_id, rows)
        assert (other_job.status, other_job.code) == (409, "job_conflict"), other_job.body
    assert pair.ended(job_id)["status"] == "completed"


def test_cancel_and_retry(pair: Pair, new_id: Callable[[str], str]) -> None:
    job_id = new_id("retry")
    pair.submit(pair.other(job_id), job_id, [["x"] * 10, [0.0] * 10])
    assert pair.ended(job_id)["failed"] == 1
    retried = ask(pair.other(job_id), "POST", f"/jobs/{job_id}/retry")
    assert retried.status == 202, retried.body
    assert pair.ended(job_id, attempt=1)["failed"] == 1
    closed = same(pair, job_id, "POST", f"/jobs/{job_id}/cancel")
    assert (closed.status, closed.code) == (409, "job_closed")


def test_a_job_can_be_cancelled_while_its_rows_come(pair: Pair, new_id: Callable[[str], str]) -> None:
    job_id, gate, answers = new_id("cancel"), threading.Event(), list[Answer]()

    def lines() -> Iterator[bytes]:
        yield ndjson(rows_of(5_000, 10).tolist())
        gate.wait(30)
        yield ndjson(rows_of(5_000, 10).tolist())

    def upload() -> None:
        path = f"/jobs?model=demo&job_id={job_id}"
        answers.append(ask(pair.other(job_id), "POST", path, lines(), Content_Type=NDJSON))

    sending = threading.Thread(target=upload)
    sending.start()
    until(lambda: ask(pair.owner(job_id), "GET", f"/jobs/{job_id}").status == 200, 20, "the job is open")
    assert ask(pair.other(job_id), "POST", f"/jobs/{job_id}/cancel").status == 202
    gate.set()
    sending.join(30)
    assert [(answer.status, answer.code) for answer in answers] == [(409, "job_closed")]
    assert pair.ended(job_id)["status"] == "cancelled"


def test_both_workers_report_a_missing_job(pair: Pair, new_id: Callable[[str], str]) -> None:
    nobody, theirs = new_id("nobody"), new_id("theirs")
    for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("POST", "/retry")):
        answer = same(pair, nobody, method, f"/jobs/{nobody}{path}")
        assert (answer.status, answer.code) == (404, "job_not_found")
    other = {"Authorization": f"Bearer {TOKENS['other']}"}
    body = json.dumps({"job_id": theirs, "model_id": "demo", "input_batch": [[0.0] * 10]}).encode()
    assert ask(pair.other(theirs), "POST", "/jobs", body, Content_Type=JSON, **other).status == 202
    assert same(pair, theirs, "GET", f"/jobs/{theirs}").code == "job_not_found"
    for worker in pair.owned:
        assert ask(worker, "GET", f"/jobs/{theirs}", None, **other).status == 200
        assert theirs not in [job["job_id"] for job in ask(worker, "GET", "/jobs?limit=1000").json()["jobs"]]
    wrong = ask(pair.other(theirs), "GET", f"/jobs/{theirs}", Authorization="Bearer wrong")
    assert (wrong.status, wrong.code) == (401, "unauthorized")

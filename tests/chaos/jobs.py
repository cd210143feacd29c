"""Jobs that are open while a fault happens, and the account of their rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from inferd import SyncClient
from inferd.schemas.codecs import MSGPACK
from inferd.schemas.jobs import (
    BarrierResult,
    JobStatus,
    decode_chunk_result,
    decode_outcome,
    encode_close,
    encode_open,
    encode_rows,
)
from tests.chaos.kinds import N_FEATURES
from tests.fixtures.workers import Cluster, TrainedModel, until

MODEL = "batch"
"""The model of jobs, whose versions no fault changes."""
JOBS = 6
"""Opened at once for each tenant."""
MESSAGE_ROWS, CHUNK_ROWS = 20, 10
"""Each job has two messages, one before the fault and one after it."""
SCORED_WITHIN_S = 60.0


class Job(NamedTuple):
    """A job of a tenant."""

    tenant: str
    job_id: str


class JobRows:
    """The rows of jobs that were sent, and those in the results."""

    def __init__(self, expected: Sequence[float]) -> None:
        """`expected`: the prediction of each row of a message; messages are equal."""
        self.sent = Counter[Job]()
        """Rows of each job."""
        self._expected = expected
        self._seen: defaultdict[Job, Counter[int]] = defaultdict(Counter)
        self._values: dict[tuple[Job, int], bytes] = {}
        """By chunk, the bytes of its result."""
        self._wrong = Counter[str]()

    def result(self, job: Job, value: bytes) -> None:
        """A committed result of a chunk."""
        found = decode_chunk_result(value, MSGPACK)
        if self._values.setdefault((job, found.chunk), value) != value:
            self._wrong[f"chunk {found.chunk} of {job.job_id} has results with other bytes"] += 1
        for row, prediction in enumerate(found.outputs["prediction"], found.first_row):
            self._seen[job][row] += 1
            if row >= self.sent[job] or prediction != self._expected[row % len(self._expected)]:
                self._wrong[f"row {row} of {job.job_id}: {prediction}"] += 1

    @property
    def lost(self) -> list[str]:
        """Rows that no result has."""
        return [f"row {n} of {job}" for job, rows in self.sent.items() for n in range(rows) if not self._seen[job][n]]

    @property
    def repeated(self) -> list[str]:
        """Rows that several results have."""
        return [f"row {row} of {job}" for job, seen in self._seen.items() for row, times in seen.items() if times > 1]

    @property
    def wrong(self) -> list[str]:
        """Rows with another prediction, or that were never sent, and chunks with different results."""
        return list(self._wrong)


class Jobs:
    """Opens jobs in every tenant, ends them later, and reads their results."""

    def __init__(self, clusters: Sequence[Cluster], model: TrainedModel) -> None:
        self._clusters, self._model = clusters, model
        self._rows = np.random.default_rng(11).normal(size=(MESSAGE_ROWS, N_FEATURES)).tolist()
        self.account = JobRows(model.booster.predict(self._rows).tolist())
        self._rounds = 0

    def deploy(self) -> None:
        """The model of jobs, in every tenant."""
        for cluster in self._clusters:
            cluster.deploy(self._model, MODEL)

    def open(self) -> list[Job]:
        """New jobs, which have scored their first message."""
        self._rounds += 1
        opened = [Job(c.topics.tenant, f"open-{self._rounds}-{n}") for c in self._clusters for n in range(JOBS)]
        for job in opened:
            self._send(job, encode_open(MODEL, chunk_rows=CHUNK_ROWS), encode_rows(0, self._rows))
        self._wait(opened, lambda status: status.processed >= MESSAGE_ROWS, SCORED_WITHIN_S, "jobs are open")
        return opened

    def end(self, jobs: Sequence[Job], within_s: float = SCORED_WITHIN_S) -> None:
        """Sends the last rows of jobs, and waits until they have ended."""
        for job in jobs:
            self._send(job, encode_rows(1, self._rows), encode_close(2))
        self._wait(jobs, lambda status: status.ended, within_s, "jobs that were open have ended")

    def read(self) -> None:
        """Accounts for all results; called once, when no more come."""
        for cluster in self._clusters if self.account.sent else ():
            for record in cluster.read_all("job-results"):
                if not isinstance(decode_outcome(record.value(), MSGPACK), BarrierResult):
                    self.account.result(Job(cluster.topics.tenant, record.key().decode()), record.value())

    def _send(self, job: Job, *messages: bytes) -> None:
        """Messages of which one has rows."""
        cluster = self._cluster(job)
        producer = cluster.producer(partitioner="murmur2_random", log_level=0)
        for message in messages:
            producer.produce(cluster.topics.name("jobs"), message, job.job_id.encode())
        self.account.sent[job] += MESSAGE_ROWS
        assert producer.flush(60) == 0, f"messages of {job} are not acknowledged"

    def _wait(self, jobs: Sequence[Job], holds: Callable[[JobStatus], bool], within_s: float, what: str) -> None:
        for cluster in self._clusters:
            tenant = cluster.topics.tenant
            with SyncClient(cluster.bootstrap, namespace=cluster.namespace, tenant=tenant) as client:
                wanted = {job.job_id for job in jobs if job.tenant == tenant}
                until(
                    partial(lambda c, ids: ids <= {s.job_id for s in c.list_jobs() if holds(s)}, client, wanted),
                    within_s,
                    f"{what}: of tenant {tenant}",
                )

    def _cluster(self, job: Job) -> Cluster:
        return next(cluster for cluster in self._clusters if cluster.topics.tenant == job.tenant)

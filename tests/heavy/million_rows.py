"""A job of a million rows on two workers, one of which is killed every few seconds, and a broker that is killed as
well.

`make jobs-million` runs it; tests/delivery/test_jobs.py has a smaller version.
"""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

from inferd.daemon.broker import EmbeddedKafka
from tests.delivery.test_jobs import assert_whole
from tests.fixtures.jobs import JobOnTopics, rows_of
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel

pytestmark = pytest.mark.timeout(900)
ROWS = int(os.environ.get("JOBS_ROWS", "1000000"))
SEED = 11


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_every_row_counts_once_whichever_process_is_killed(
    guarantee: str, spare_broker: EmbeddedKafka, namespace: str, model: TrainedModel, start_worker: StartWorker
) -> None:
    rng = random.Random(SEED)
    cluster = Cluster(spare_broker.bootstrap_servers, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    workers = [start_worker(cluster, processing_guarantee=guarantee) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    poison = frozenset(rng.sample(range(ROWS), 20))
    job = JobOnTopics(cluster, model, "million", rows_of(ROWS, 10), per_message=2_000, poison=poison)
    sending = threading.Thread(target=_send, args=(job, _disturbed(job.messages, rng)), daemon=True)
    sending.start()
    started, kills, broker_kills = time.monotonic(), 0, 0
    while not _ended(job):
        time.sleep(rng.uniform(2, 4))  # the load continues; this is the interval of the fault
        if time.monotonic() - started > 8 and not broker_kills:
            spare_broker.kill()
            spare_broker.start()
            broker_kills = 1
        elif time.monotonic() - started < 300:
            workers.pop(0).kill()
            workers.append(start_worker(cluster, processing_guarantee=guarantee))
            kills += 1
    sending.join(60)
    status = job.wait_ended(60)
    took_s = (status["finished_at"] - status["started_at"]) / 1_000
    print(f"{guarantee}: {ROWS:,} rows in {took_s:.0f} s, {kills} workers and {broker_kills} brokers killed")
    assert_whole(job, status, job.ledger())


def _send(job: JobOnTopics, seqs: list[int]) -> None:
    job.open(chunk_rows=500)
    job.send_rows(seqs)
    job.close()


def _disturbed(messages: int, rng: random.Random) -> list[int]:
    """Sends every message; some twice, and some out of order."""
    seqs = [*range(messages), *rng.sample(range(messages), messages // 20)]
    for at in range(0, len(seqs) - 10, 10):
        part = seqs[at : at + 10]
        rng.shuffle(part)
        seqs[at : at + 10] = part
    return seqs


def _ended(job: JobOnTopics) -> bool:
    statuses = job.statuses()
    return bool(statuses) and statuses[-1]["status"] not in ("queued", "running")

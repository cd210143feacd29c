"""Batch jobs with a real Kafka: one outcome per row and one terminal status, whichever process is killed and whatever
the order of messages."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.fixtures.jobs import JobLedger, JobOnTopics, Status, rows_of
from tests.fixtures.workers import Cluster, Load, StartWorker, TrainedModel

both_guarantees = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


def assert_whole(job: JobOnTopics, status: Status, ledger: JobLedger) -> None:
    """Checks that every row has exactly one outcome, and the right one."""
    n = len(job.rows)
    good = [row for row in range(n) if row not in job.poison]
    assert (status["input_count"], status["processed"], status["failed"]) == (n, n, len(job.poison))
    assert [ledger.outcomes[row] for row in range(n)] == [1] * n
    assert set(ledger.errors) == set(job.poison)
    expected = job.model.booster.predict(job.rows)
    assert np.array_equal(ledger.predictions[good], expected[good])
    assert ledger.different_repeats == 0
    # Under at_least_once too: who owns jobs has transactions.
    assert len(ledger.terminal) == 1


@both_guarantees
def test_a_job_has_one_outcome_per_row(
    guarantee: str, cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    worker = start_worker(cluster, processing_guarantee=guarantee)
    job = JobOnTopics(cluster, model, "whole", rows_of(20_000, 10), poison=frozenset({3, 19_999}))
    job.open()
    job.send_rows()
    job.close()
    status = job.wait_ended(60)
    assert status["status"] == "completed_with_errors"
    ledger = job.ledger()
    assert_whole(job, status, ledger)
    assert set(ledger.errors.values()) == {"invalid_value"}
    assert worker.stop() == 0


def test_messages_may_be_repeated_and_in_any_order(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    start_worker(cluster)
    job = JobOnTopics(cluster, model, "shuffled", rows_of(10_000, 10), per_message=500)
    seqs = [*range(job.messages), 3, 7]
    random.Random(5).shuffle(seqs)
    job.send_rows(seqs[:10])
    job.close()
    job.open(chunk_rows=300)
    job.send_rows(seqs[10:])
    job.flush()
    status = job.wait_ended(60)
    assert status["status"] == "completed"
    assert_whole(job, status, job.ledger())


def test_a_model_may_be_deployed_just_before_its_job_is_opened(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model, "another")
    start_worker(cluster).wait_ready()
    job = JobOnTopics(cluster, model, "early", rows_of(2_000, 10))
    cluster.deploy(model)
    job.open()
    job.send_rows()
    job.close()
    status = job.wait_ended(60)
    assert status["status"] == "completed", status
    assert_whole(job, status, job.ledger())


@both_guarantees
def test_a_job_outlives_the_workers_that_are_killed(
    guarantee: str, cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    workers = [start_worker(cluster, processing_guarantee=guarantee) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    job = JobOnTopics(cluster, model, "killed", rows_of(60_000, 10), poison=frozenset({30_000}))
    job.open(chunk_rows=100)
    for start in range(0, job.messages, 20):
        job.send_rows(range(start, min(start + 20, job.messages)))
        job.flush()
        workers.pop(0).kill()
        workers.append(start_worker(cluster, processing_guarantee=guarantee))
    job.close()
    status = job.wait_ended(120)
    assert_whole(job, status, job.ledger())


def test_a_job_has_no_results_after_its_status_is_cancelled(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    start_worker(cluster).wait_ready()
    job = JobOnTopics(cluster, model, "cancelled", rows_of(50_000, 10))
    job.open(chunk_rows=50)
    job.send_rows(range(25))
    job.cancel()
    job.send_rows(range(25, 50))
    job.close()
    status = job.wait_ended(60)
    assert status["status"] == "cancelled"
    before = sum(job.ledger().outcomes.values())
    other = JobOnTopics(cluster, model, "after", rows_of(1_000, 10))
    other.open()
    other.send_rows()
    other.close()
    assert other.wait_ended(60)["status"] == "completed"
    assert sum(job.ledger().outcomes.values()) == before
    assert len(job.ledger().terminal) == 1


def test_a_retry_scores_only_the_failed_rows(cluster: Cluster, model: TrainedModel, start_worker: StartWorker) -> None:
    cluster.deploy(model)
    start_worker(cluster)
    job = JobOnTopics(cluster, model, "retried", rows_of(5_000, 10), poison=frozenset({0, 2_500}))
    job.open()
    job.send_rows()
    job.close()
    assert job.wait_ended(60)["status"] == "completed_with_errors"
    job.retry()
    status = job.wait_ended(60, times=2)
    assert (status["status"], status["attempt"]) == ("completed_with_errors", 1)
    ledger = job.ledger()
    ledger.terminal = ledger.terminal[-1:]
    assert_whole(job, status, ledger)


def test_rejected_messages_of_a_job_are_dead_letters(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    start_worker(cluster)
    job = JobOnTopics(cluster, model, "strict", rows_of(100, 10), per_message=100)
    job.open()
    job.send(b"\xc1")
    job.open(chunk_rows=7)
    job.send_rows()
    job.close()
    assert job.wait_ended(60)["status"] == "completed"
    job.cancel()
    letters = cluster.read("dead-letters", lambda records: len(records) >= 3, 30)
    codes = [dict(letter.headers())["inferd-error-code"] for letter in letters]
    assert codes == [b"malformed", b"job_conflict", b"job_closed"]


def test_requests_are_answered_while_a_job_runs(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    cluster.deploy(model)
    start_worker(cluster, jobs_share=0.3).wait_ready()
    job = JobOnTopics(cluster, model, "beside", rows_of(100_000, 10))
    job.open()
    job.send_rows()
    load = Load(cluster, model)
    load.start(per_second=200)
    job.close()
    status = job.wait_ended(120)
    load.stop()
    assert_whole(job, status, job.ledger())
    ledger = load.ledger()
    assert (ledger.lost, ledger.wrong, ledger.out_of_order) == ([], 0, 0)

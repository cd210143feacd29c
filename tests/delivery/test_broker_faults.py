"""A broker that dies, stops or freezes, as users see it: readiness, status, log, and recovery."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from inferd.daemon.broker import EmbeddedKafka
from tests.fixtures.workers import Cluster, Load, StartWorker, TrainedModel, Worker, until

pytestmark = pytest.mark.timeout(300)

PER_SECOND = 500
REPORTED_WITHIN_S = 12.0
"""Reported after 6 s without an answer; the rest is allowed for a busy machine."""
OUTAGE_S = 10.0
RECOVERED_WITHIN_S = 60.0
LINES_MAX = 40
"""Lines of log over an outage and the recovery from it, while the clients retry thousands of times."""


class Outage:
    """A way to make the broker unavailable, and to restore it."""

    def __init__(self, broker: EmbeddedKafka, begin: Callable[[], Any], end: Callable[[], Any]) -> None:
        self.broker, self.begin, self.end = broker, begin, end


def outage_of(broker: EmbeddedKafka, how: str) -> Outage:
    pid = broker.pid
    assert pid is not None
    if how == "freeze":
        return Outage(broker, lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT))
    return Outage(broker, getattr(broker, how), broker.start)


# Not every combination: each takes half a minute, and `make chaos` covers all.
@pytest.mark.parametrize(
    ("how", "guarantee"),
    [("kill", "at_least_once"), ("stop", "exactly_once"), ("freeze", "at_least_once")],
)
def test_an_outage_is_logged_once_and_recovery_is_automatic(
    how: str,
    guarantee: str,
    spare_broker: EmbeddedKafka,
    namespace: str,
    model: TrainedModel,
    start_worker: StartWorker,
) -> None:
    outage = outage_of(spare_broker, how)
    cluster = Cluster(outage.broker.bootstrap_servers, namespace)
    cluster.create_topics()
    cluster.deploy(model)
    worker = start_worker(cluster, processing_guarantee=guarantee)
    worker.wait_ready()
    load = Load(cluster, model)
    load.start(PER_SECOND)
    until(lambda: done(worker) > PER_SECOND, 40, "work before the outage")
    lines_before = len(log_of(worker))
    began_at = time.monotonic()
    outage.begin()
    assert_outage_is_reported(worker)
    until(lambda: time.monotonic() > began_at + OUTAGE_S, OUTAGE_S + 5, "the outage to last")
    assert worker.get("/livez")[0] == 200, "an unavailable broker is no reason to restart the worker"
    outage.end()
    worker.wait_ready(RECOVERED_WITHIN_S)
    until(lambda: "worker_ready" in events_of(worker)[lines_before:], 10, "the log to say that it is over")
    until(lambda: is_healthy(worker), RECOVERED_WITHIN_S, "the worker to be ready, without a fault")
    load.stop()
    assert_nothing_lost(load, guarantee)
    assert worker.stop() == 0
    assert_outage_is_logged_once(log_of(worker)[lines_before:])


def is_healthy(worker: Worker) -> bool:
    """A broker that has just returned may have partitions without a leader for a moment."""
    ready, status = worker.get("/readyz"), worker.get("/status")
    return ready == (200, {"status": "healthy"}) and status[1]["last_error"] is None


def assert_outage_is_reported(worker: Worker) -> None:
    """`/readyz` and `/status` name the broker while it is unavailable."""
    until(lambda: worker.get("/readyz")[0] == 503, REPORTED_WITHIN_S, "unready without a broker")
    reasons = worker.get("/readyz")[1]["reasons"]
    assert any("broker" in reason for reason in reasons), reasons
    status = worker.get("/status")[1]
    assert status["ready"] is False
    assert status["last_error"]
    assert status["unready"]


def assert_nothing_lost(load: Load, guarantee: str) -> None:
    ledger = load.ledger(90)
    assert (ledger.lost, ledger.wrong, ledger.different_repeats) == ([], 0, 0)
    assert ledger.repeated == 0 or guarantee == "at_least_once"


def assert_outage_is_logged_once(lines: list[dict[str, Any]]) -> None:
    """The log describes the outage in few lines, none of them an error, and does not repeat a line."""
    text = json.dumps(lines, indent=0)
    events = [line["event"] for line in lines]
    assert len(lines) <= LINES_MAX, text
    unready = [line for line in lines if line["event"] == "worker_unready"]
    # Results that expired just before the end may be a fault of their own, in the moment after it.
    away = [line for line in unready if any(reason.startswith("the broker has not") for reason in line["reasons"])]
    assert len(away) <= 1, text
    # The outage outlasts the session, so a rebalance follows. On a slow machine it is long enough to be logged too.
    assert 1 <= len(unready) <= 2, text
    assert "worker_ready" in events[events.index("worker_unready") :], text
    assert not [line for line in lines if line["level"] in {"error", "critical"}], text
    # A rebalance has several phases, each logged at level info.
    warnings = [line["event"] for line in lines if line["level"] == "warning" and line["event"] != "repeated"]
    assert all(warnings.count(event) <= 5 for event in warnings), text
    assert not any("exception" in line for line in lines), text


def events_of(worker: Worker) -> list[str]:
    return [line["event"] for line in log_of(worker)]


def log_of(worker: Worker) -> list[dict[str, Any]]:
    """The log of a worker, one item per line."""
    return [json.loads(line) for line in worker.text().splitlines() if line.startswith("{")]


def done(worker: Worker) -> int:
    """Requests that a worker has answered."""
    status = worker.get("/status")[1]
    return sum(tenant["results"] for tenant in status["tenants"]) if status else 0

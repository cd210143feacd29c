"""The latency of one tenant while other tenants have problems, as a multiple of its latency alone.

`python -m bench.tenants`: one worker serves four tenants. The requests of `healthy` arrive at a fixed rate, alternately
while the others are silent and while they are active: `missing` requests a model that does not exist, the user code of
`slow` sleeps in each call, and `huge` submits one job after the other. The same is measured with the others in a second
worker: what they cost there is the machine's and the broker's, and no worker could avoid it. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median

import msgpack
import numpy as np
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.lab import Lab, open_lab
from bench.latency import Load
from bench.layouts import FEATURES, MODEL_ID
from bench.machine import CpuLedger
from bench.measures import Quantiles, latency_quantiles, paired_ratios
from bench.peers.catalog import INFERD, peers_named
from bench.peers.inferd_worker import running_worker
from bench.slow_code import CALL_S, SLOW_TENANT
from inferd import SyncClient
from inferd.schemas.errors import JobClosedError

HEALTHY, MISSING, HUGE = "healthy", "missing", "huge"
TENANTS = (HEALTHY, MISSING, SLOW_TENANT, HUGE)
RATES = {MISSING: 500.0, SLOW_TENANT: 2 / CALL_S}
"""Requests a second of tenants in trouble: `slow` gets twice as many as it can answer."""
ARRANGEMENTS: dict[str, Sequence[Sequence[str]]] = {
    "one worker": (TENANTS,),
    "two workers": ((HEALTHY,), tuple(tenant for tenant in TENANTS if tenant != HEALTHY)),
}
"""Tenants of each worker; the first one serves `healthy`."""
ALONE, BESIDE = "alone", "beside the others"
SETTLE_S = 2.0
TARGET = 1.2
FLUSH_TIMEOUT_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 a measurement is void."""
    parser = argparse.ArgumentParser(prog="python -m bench.tenants", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second of the healthy tenant")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each measurement takes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--job-rows", type=int, default=200_000, help="rows of each job of the tenant with jobs")
    parser.add_argument("--broker", metavar="HOST:PORT", help="a running Kafka; default: an embedded one")
    options = parser.parse_args(arguments)
    console, ledger = Console(), CpuLedger()
    figures: dict[str, list[Quantiles]] = {}
    try:
        for workers, served in ARRANGEMENTS.items():
            with open_lab(options.broker) as lab:
                figures |= {f"{what}, {workers}": each for what, each in _measure(lab, options, served).items()}
    except BenchError as error:
        console.print(f"bench: {error.message}", markup=False)
        return 1
    _show(console, figures, options.rate)
    console.print(f"others' load: {ledger.verdict()}")
    return 0


def _measure(lab: Lab, options: argparse.Namespace, served: Sequence[Sequence[str]]) -> dict[str, list[Quantiles]]:
    """Latencies of the healthy tenant, alone and beside the others, repeat by repeat; `served`: tenants by worker."""
    for tenant in TENANTS:
        lab.prepare_tenant(tenant, with_inferd=True)
    figures: dict[str, list[Quantiles]] = {ALONE: [], BESIDE: []}
    with ExitStack() as workers:
        task, *_ = tasks = [lab.task(tenants[0], "tenants") for tenants in served]
        process, *_ = [
            workers.enter_context(running_worker(task, _settings(tenants)))
            for task, tenants in zip(tasks, served, strict=True)
        ]
        (peer,) = peers_named(INFERD)
        for repeat in range(options.repeats):
            load = Load(lab, peer, process, task, repeat)
            load.prime()
            figures[ALONE].append(_latencies(load, options, "alone"))
            with _trouble(lab, options.job_rows):
                figures[BESIDE].append(_latencies(load, options, "beside"))
    return figures


def _settings(tenants: Sequence[str]) -> dict[str, str]:
    return {
        "INFERD_TENANTS": ",".join(tenants),
        "INFERD_REALTIME_PREDICTOR": "bench.slow_code.SlowForOne",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }


def _latencies(load: Load, options: argparse.Namespace, what: str) -> Quantiles:
    settled = int(options.rate * SETTLE_S)
    exchange = load.offer(settled + int(options.rate * options.seconds), options.rate, what)
    return latency_quantiles((exchange.received - exchange.scheduled)[settled:] * 1e3)


@contextmanager
def _trouble(lab: Lab, job_rows: int) -> Iterator[None]:
    """The other tenants at work."""
    over = threading.Event()
    threads = [
        *(_started(_send_requests, lab, tenant, rate, over) for tenant, rate in RATES.items()),
        _started(_run_jobs, lab, job_rows, over),
    ]
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _started(work: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def _send_requests(lab: Lab, tenant: str, rate: float, over: threading.Event) -> None:
    task = lab.task(tenant, "trouble")
    producer = Producer({"bootstrap.servers": task.bootstrap_servers})
    model_id = "absent" if tenant == MISSING else MODEL_ID
    value = msgpack.packb({"model_id": model_id, "input_data": [0.0] * FEATURES})
    number = 0
    while not over.wait(1 / rate):
        producer.produce(task.requests, value, b"%d" % number)
        producer.poll(0)
        number += 1
    producer.flush(FLUSH_TIMEOUT_S)


def _run_jobs(lab: Lab, job_rows: int, over: threading.Event) -> None:
    rows = np.random.default_rng(7).normal(size=(job_rows, FEATURES))
    task = lab.task(HUGE, "trouble")
    with SyncClient(task.bootstrap_servers, namespace=task.namespace, tenant=HUGE) as client:
        while not over.is_set():
            job_id = client.submit_job(MODEL_ID, rows)
            for _ in client.watch_job(job_id):
                if over.is_set():
                    with suppress(JobClosedError):
                        client.cancel_job(job_id)
                    break


def _show(console: Console, figures: dict[str, list[Quantiles]], rate: float) -> None:
    table = Table(title=f"The healthy tenant at {rate:g} requests/s: median over repeats, ms", title_justify="left")
    for heading in ("", "p50", "p99", "greatest"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, repeats in figures.items():
        columns = ([each.p50 for each in repeats], [each.p99 for each in repeats], [each.max for each in repeats])
        table.add_row(name, *(f"{median(column):.1f}" for column in columns))
    console.print(table)
    for workers in ARRANGEMENTS:
        beside, alone = ([each.p99 for each in figures[f"{what}, {workers}"]] for what in (BESIDE, ALONE))
        ratios = paired_ratios(beside, alone)
        target = f", target {TARGET:g}" if workers == next(iter(ARRANGEMENTS)) else ""
        console.print(
            f"p99 beside / alone, {workers}: {ratios.median:.2f} ({ratios.low:.2f}-{ratios.high:.2f}){target}"
        )


if __name__ == "__main__":
    sys.exit(main())

"""The CPU cost of a route, beside loops and frameworks that do the same with the same libraries.

`python -m bench.routes`: records with 30 features in an inner record, in JSON and in Avro, are scored into another
topic, as they are plus a field. Each peer drains the same backlog; the measure is the CPU time of its process for a
record, which other processes of the machine disturb less than its speed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import psutil
from confluent_kafka import Producer
from numpy.typing import NDArray
from rich.console import Console

from bench.cluster import Offsets, count_between
from bench.errors import BenchError
from bench.lab import Lab, open_lab
from bench.layouts import FEATURES, MODEL_ID
from bench.machine import CpuLedger
from bench.peers.catalog import PEERS, Peer, command_of
from bench.peers.inferd_worker import CLI, environment, running_worker
from bench.peers.routed import AVRO_SCHEMA, FIELD, FIELD_NAMES, encoder, reader
from bench.peers.task import PeerTask, RecordFormat
from bench.processes import PeerProcess, running
from bench.requests import PARTITIONS

TENANT = "routes"
NAMES = ("librdkafka", "bytewax", "quix", "inferd-eos", "inferd")
FORMATS: tuple[RecordFormat, ...] = ("json", "avro")
POLL_S = 0.05
DRAIN_TIMEOUT_S = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; exit code 0, or 1 if a measurement is invalid."""
    parser = argparse.ArgumentParser(prog="python -m bench.routes", description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--format", action="append", choices=FORMATS, help="only this one; may be repeated")
    parser.add_argument("--broker", metavar="HOST:PORT", help="a running Kafka; default: an embedded one")
    options = parser.parse_args(arguments)
    console, ledger = Console(), CpuLedger()
    peers = [peer for peer in PEERS if peer.name in NAMES and peer.installed]
    try:
        with open_lab(options.broker) as lab:
            for record_format in options.format or FORMATS:
                _show(console, record_format, _measure(lab, peers, record_format, options, console))
    except BenchError as error:
        console.print(f"bench: {error.message}", markup=False)
        return 1
    console.print(f"load of other processes: {ledger.verdict()}")
    return 0


def _measure(
    lab: Lab, peers: Sequence[Peer], record_format: RecordFormat, options: argparse.Namespace, console: Console
) -> dict[str, list[float]]:
    """Microseconds of CPU for a record, by the title of a peer and repeat."""
    count, repeats = options.records, options.repeats
    lab.prepare_tenant(TENANT, with_inferd=True)
    rows = np.random.default_rng(5).normal(size=(count, FEATURES))
    source = f"{lab.namespace}-x.orders-{record_format}"
    _append(lab, source, record_format, rows)
    expected = lab.model.predict(rows)
    figures: dict[str, list[float]] = {peer.title: [] for peer in peers}
    for repeat in range(repeats):
        for peer in peers:
            task = _task(lab, source, f"{peer.name}-{record_format}-{repeat}", record_format)
            used_s = _drain(lab, peer, task, count)
            _verify(lab, task, record_format, expected)
            figures[peer.title].append(used_s / count * 1e6)
            last = f"{figures[peer.title][-1]:.2f} µs CPU per record"
            console.print(f"  {record_format} {repeat + 1}/{repeats} {peer.title}: {last}")
    return figures


def _task(lab: Lab, source: str, group: str, record_format: RecordFormat) -> PeerTask:
    """The task of a peer, with a sink of its own."""
    task = lab.task(TENANT, group)
    sink = f"{lab.namespace}-x.{group}"
    lab.cluster.ensure_topics(source, sink)
    return msgspec.structs.replace(task, source=source, sink=sink, record_format=record_format)


def _append(lab: Lab, source: str, record_format: RecordFormat, rows: NDArray[np.float64]) -> None:
    lab.cluster.ensure_topics(source, f"{source}-unused")
    producer = Producer({"bootstrap.servers": lab.cluster.bootstrap_servers, "linger.ms": 20})
    encode = encoder(record_format)
    for number, row in enumerate(rows.tolist()):
        value = {"id": number, "note": "an order", "order": dict(zip(FIELD_NAMES, row, strict=True)), "paid": True}
        while True:
            try:
                producer.produce(source, encode(value), b"%d" % number, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise BenchError("the backlog was not delivered")


def _drain(lab: Lab, peer: Peer, task: PeerTask, count: int) -> float:
    """Seconds of CPU from the first result to the last, for all records."""
    with _running(peer, task) as process:
        of_process = psutil.Process(process.pid)
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        begin: Offsets = (0,) * PARTITIONS
        while not (warm := count_between(begin, lab.cluster.ends(task.results))):
            _check(process, deadline)
        before = _cpu_s(of_process)
        while (done := count_between(begin, lab.cluster.ends(task.results))) < count:
            _check(process, deadline)
        used_s = _cpu_s(of_process) - before
    return used_s * count / (min(done, count) - warm)


def _check(process: PeerProcess, deadline: float) -> None:
    process.check_alive()
    if time.monotonic() > deadline:
        raise BenchError(f"{process.name} has not drained the backlog within {DRAIN_TIMEOUT_S:.0f} s")
    time.sleep(POLL_S)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _running(peer: Peer, task: PeerTask) -> Iterator[PeerProcess]:
    if peer.module is not None:
        task = msgspec.structs.replace(task, predict_threads=1)
        with running(peer.name, command_of(peer, task), {"OMP_NUM_THREADS": "1"}, Path(task.work_dir)) as process:
            yield process
        return
    settings = {"INFERD_ROUTES_SOURCES": task.requests, "INFERD_ROUTES_SINKS": task.results, **peer.settings}
    with running_worker(task, settings) as process:
        _command(task, "create", "bench", "--from", task.requests, "--to", task.results, "--model", MODEL_ID,
                 "--field", FIELD, "--start", "earliest", *_format_options(task), *_feature_options())  # fmt: skip
        try:
            yield process
        finally:
            _command(task, "remove", "bench")


def _format_options(task: PeerTask) -> Iterator[str]:
    yield from ("--format", str(task.record_format))
    if task.record_format == "avro":
        path = Path(task.work_dir) / "record.avsc"
        path.write_text(json.dumps(AVRO_SCHEMA))
        yield from ("--schema", str(path))


def _feature_options() -> Iterator[str]:
    for number, name in enumerate(FIELD_NAMES):
        yield from ("--feature", f"Column_{number}=order.{name}")


def _command(task: PeerTask, *arguments: str) -> None:
    place = {**os.environ, **environment(task)}
    command = [*CLI, "routes", *arguments, "--tenant", task.tenant]
    done = subprocess.run(command, check=False, env=place, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise BenchError(f"inferd routes {arguments[0]} exited with {done.returncode}: {done.stderr[-2_000:]}")


def _verify(lab: Lab, task: PeerTask, record_format: RecordFormat, expected: NDArray[np.float64]) -> None:
    """Raises `BenchError` unless every record has one result with the right prediction."""
    read = reader(record_format)
    found = dict(
        read(each.value)
        for each in lab.cluster.read(task.results, (0,) * PARTITIONS, lab.cluster.ends(task.results))
    )  # fmt: skip
    wrong = [n for n, prediction in enumerate(expected.tolist()) if n not in found or not found[n](prediction)]
    if wrong:
        raise BenchError(f"{len(wrong)} records have no result or a wrong one, the first is {wrong[0]}")


def _show(console: Console, record_format: RecordFormat, figures: dict[str, list[float]]) -> None:
    ours = figures.get("inferd worker")
    console.print(
        f"{record_format}: µs of CPU per record of a route: median (range) over repeats, and in relation to inferd"
    )
    for title, values in figures.items():
        ratio = f"{median(values) / median(ours):.2f}" if ours else "-"
        console.print(f"  {title}: {median(values):.2f} ({min(values):.2f} - {max(values):.2f}), {ratio}x")


if __name__ == "__main__":
    raise SystemExit(main())

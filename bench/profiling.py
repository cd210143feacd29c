"""CPU profile of inferd while it processes a backlog."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.lab import Lab
from bench.peers import inferd_worker
from bench.processes import cpu_s
from bench.sampler import Frame, StackCount, read_samples
from bench.throughput import await_results

TENANT = "profile"
FUNCTIONS_SHOWN = 30
OWN_PACKAGES = ("inferd.",)
WRITE_TIMEOUT_S = 30.0
POLL_S = 0.05


def profile_worker(lab: Lab, count: int, console: Console) -> None:
    """Processes `count` requests with a sampled worker, and prints its time by module and function."""
    lab.prepare_tenant(TENANT, with_inferd=True)
    task = lab.task(TENANT, "sampled")
    requests, _ = lab.requests(count, "profile-")
    lab.cluster.append(task.requests, requests)
    path = lab.work_dir / "samples.json"
    interpreter, script = inferd_worker.CLI
    command = (interpreter, "-m", "bench.sampler", str(path), script, "worker")
    begin = lab.cluster.ends(task.results)
    with inferd_worker.running_worker(task, command=command) as process:
        used_s, begin_s = cpu_s(process.pid), time.monotonic()
        os.kill(process.pid, signal.SIGUSR1)
        await_results(lab.cluster, process, task.results, begin, count)
        used_s, took_s = cpu_s(process.pid) - used_s, time.monotonic() - begin_s
        os.kill(process.pid, signal.SIGUSR2)
        _await_file(path)
    samples = read_samples(path)
    console.print(
        f"{count:,} requests in {took_s:.1f} s: {used_s / count * 1e6:.1f} µs CPU per message,"
        f" {used_s / took_s:.0%} of a core busy, {sum(each.count for each in samples):,} samples"
    )
    for table in tables(samples):
        console.print(table)


def tables(samples: Sequence[StackCount]) -> list[Table]:
    """Own time by module and by line; cumulative time by function of inferd."""
    own = Counter[str]()
    for each in samples:
        for name in {_function(frame) for frame in each.stack if _module(frame).startswith(OWN_PACKAGES)}:
            own[name] += each.count
    return [
        _table("By module, own time", _count(samples, _module)),
        _table("By function and line, own time", _count(samples, _place)),
        _table("By function of inferd, cumulative", own, sum(each.count for each in samples)),
    ]


def _count(samples: Iterable[StackCount], name_of: Callable[[Frame], str]) -> Counter[str]:
    counts = Counter[str]()
    for each in samples:
        if each.stack:
            counts[name_of(each.stack[0])] += each.count
    return counts


def _table(title: str, counts: Counter[str], total: int | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("share", justify="right")
    table.add_column("")
    total = total or max(1, counts.total())
    for name, count in counts.most_common(FUNCTIONS_SHOWN):
        table.add_row(f"{count / total:.1%}", name)
    return table


def _module(frame: Frame) -> str:
    """The module of a frame, from its path: `lightgbm.basic`, `inferd.streams.lane.lane`, `asyncio.events`."""
    parts = Path(frame.file).with_suffix("").parts
    for mark in ("site-packages", "lib", *(package.rstrip(".") for package in OWN_PACKAGES)):
        if mark in parts:
            start = len(parts) - 1 - parts[::-1].index(mark)
            start += mark in ("site-packages", "lib")
            parts = parts[start:]
            break
    return ".".join(part for part in parts if not part.startswith("python3"))


def _function(frame: Frame) -> str:
    return f"{_module(frame)}.{frame.function}"


def _place(frame: Frame) -> str:
    return f"{_function(frame)}:{frame.line}"


def _await_file(path: Path) -> None:
    deadline = time.monotonic() + WRITE_TIMEOUT_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise BenchError(f"the worker wrote no samples within {WRITE_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)

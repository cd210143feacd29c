"""What shadow versions cost the answers: latencies of requests without one, and with one that is good, raises,
blocks in a call, or loops in Python.

`python -m bench.shadow`: one worker with default settings; the kinds of shadow take turns at a fixed rate. For each the
p50 and p99 from the scheduled time of a request to the receipt of its result, medians over the turns, and the ratio of
each turn's p99 to that without a shadow. Every answer is verified.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.lab import Lab, open_lab
from bench.latency import Load
from bench.layouts import MODEL_ID
from bench.machine import CpuLedger
from bench.measures import latency_quantiles
from bench.peers import inferd_worker
from bench.peers.catalog import INFERD, PEERS
from bench.peers.task import PeerTask
from bench.shadowed_worker import HANGING, RAISING
from inferd import Client
from inferd.schemas.models import AliasTarget
from inferd.schemas.topics import TenantTopics
from inferd.streams.inference import manifest_of

TENANT, GOOD = "shadow", 2
KINDS = ("none", "good", "raising", "blocking", "looping")
SETTLE_S = 2.0
WARM_UP_S = 10.0


@dataclass(frozen=True, slots=True)
class Turn:
    """Milliseconds."""

    p50: float
    p99: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 1 if a measurement is invalid."""
    parser = argparse.ArgumentParser(prog="python -m bench.shadow", description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rate", type=float, default=500.0, help="requests per second")
    parser.add_argument("--span", type=float, default=15.0, help="seconds of each measurement")
    parser.add_argument("--kinds", default=",".join(KINDS), help="the kinds of shadow, none included")
    parser.add_argument("--broker")
    options = parser.parse_args(arguments)
    console, ledger = Console(), CpuLedger()
    try:
        with open_lab(options.broker) as lab:
            console.print(table_of(measure(lab, options, console), options))
    except BenchError as error:
        console.print(f"bench: {error.message}", markup=False)
        return 1
    console.print(f"others' load: {ledger.verdict()}")
    return 0


def measure(lab: Lab, options: argparse.Namespace, console: Console) -> dict[str, list[Turn]]:
    """The turns of each kind of shadow."""
    lab.prepare_tenant(TENANT, with_inferd=True)
    task = lab.task(TENANT, "shadow")
    asyncio.run(deploy(task, HANGING + 2 * options.turns))
    lab.cluster.commit_ends(task.group, task.requests)
    command = (sys.executable, "-m", "bench.shadowed_worker", "worker")
    (peer,) = (peer for peer in PEERS if peer.name == INFERD)
    results = TenantTopics(task.namespace, TENANT).name("shadow-results")
    kinds = options.kinds.split(",")
    found: dict[str, list[Turn]] = {kind: [] for kind in kinds}
    with inferd_worker.running_worker(task, command=command) as process:
        load = Load(lab, peer, process, task, 0)
        load.offer(int(options.rate * WARM_UP_S), options.rate, "warm-up")
        for turn in range(options.turns):
            for kind in (*kinds[turn % len(kinds) :], *kinds[: turn % len(kinds)]):
                asyncio.run(point(task, kind, turn))
                written = sum(lab.cluster.ends(results))
                exchange = load.offer(int(options.rate * options.span), options.rate, f"{kind}{turn}")
                settled = slice(int(options.rate * SETTLE_S), None)
                quantiles = latency_quantiles((exchange.received - exchange.scheduled)[settled] * 1e3)
                found[kind].append(Turn(quantiles.p50, quantiles.p99))
                console.print(
                    f"{turn + 1}/{options.turns} {kind}: p50 {quantiles.p50:.1f}, p99 {quantiles.p99:.1f} ms,"
                    f" {sum(lab.cluster.ends(results)) - written:,} shadow results"
                )
    return found


async def deploy(task: PeerTask, last: int) -> None:
    """Versions 2 to `last` of the model, with the content of version 1."""
    async with _client(task) as client:
        models = await client.models()
        (first,) = models.versions_of(MODEL_ID)
        with open(task.model_path, "rb") as file:  # noqa: ASYNC230, PTH123  (nothing else runs)
            content = file.read()
        for version in range(GOOD, last + 1):
            manifest = msgspec.structs.replace(manifest_of(content, MODEL_ID, version), features=first.features)
            await client.deploy_model(content, manifest)
        await client.set_alias(MODEL_ID, "champion", 1)


async def point(task: PeerTask, kind: str, turn: int) -> None:
    """Gives the alias the kind of shadow. Each version that hangs is used once: after that it is known."""
    first = HANGING + 2 * turn
    shadow = {"none": None, "good": [GOOD], "raising": [RAISING], "blocking": [first], "looping": [first + 1]}[kind]
    async with _client(task) as client:
        await client.set_alias(MODEL_ID, "champion", AliasTarget(1, shadow=shadow))


def _client(task: PeerTask) -> Client:
    return Client(task.bootstrap_servers, namespace=task.namespace, tenant=task.tenant)


def table_of(found: dict[str, list[Turn]], options: argparse.Namespace) -> Table:
    """One line for each kind of shadow."""
    table = Table("shadow version", "p50 (ms)", "p99 (ms)", "p99 / none", title=f"{options.rate:,.0f} requests/s")
    for kind, turns in found.items():
        ratio = np.median([turn.p99 / none.p99 for turn, none in zip(turns, found["none"], strict=True)])
        p50, p99 = (np.median([getattr(turn, name) for turn in turns]) for name in ("p50", "p99"))
        table.add_row(kind, f"{p50:.1f}", f"{p99:.1f}", f"{ratio:.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main())

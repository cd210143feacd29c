"""`python -m bench [all|throughput|latency|profile|show]`."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.errors import BenchError
from bench.lab import Lab, open_lab
from bench.latency import measure_latencies
from bench.layouts import DEFAULT as DEFAULT_LAYOUT
from bench.layouts import LAYOUTS
from bench.machine import CpuLedger, machine_facts, versions_in
from bench.model import DEFAULT_SIZE, SIZES
from bench.peers.catalog import FRAMEWORKS, PEERS, Peer, peers_named
from bench.plan import DEFAULT, QUICK, Plan
from bench.profiling import profile_worker
from bench.report import Report, from_json, show, to_json
from bench.requests import PARTITIONS
from bench.throughput import measure_backlogs

SETTINGS = {
    "everywhere": "one process, acks=all, commit after acknowledgement, idempotent producer (Faust cannot)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; exit code 0, 1 if a measurement is invalid, 2 for wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.what == "show" and (options.json is None or not options.json.is_file()):
        parser.error("show needs --json FILE with the results of an earlier run")
    say = Console(stderr=True, highlight=False)
    try:
        if options.what == "show":
            show(from_json(options.json.read_bytes()), _console())
            return 0
        with open_lab(options.broker, options.layout, options.model) as lab:
            say.print(f"broker: {lab.cluster.description}")
            if options.what == "profile":
                profile_worker(lab, options.messages, _console())
            else:
                _measure(lab, options, say)
    except BenchError as error:
        say.print(f"bench: {error.message}", markup=False)
        return 1
    return 0


def _measure(lab: Lab, options: argparse.Namespace, say: Console) -> None:
    plan, peers = _plan(options), installed_peers(options.peers, say)
    started_at, begin_s = datetime.datetime.now(datetime.UTC), time.monotonic()
    machine, ledger = machine_facts(), CpuLedger()

    def report_line(line: str) -> None:
        say.print(f"[{time.monotonic() - begin_s:4.0f} s] {line}", markup=False, soft_wrap=True)

    backlogs = measure_backlogs(lab, peers, plan.backlog, report_line) if options.what != "latency" else []
    steady = peers if options.peers else tuple(peer for peer in peers if peer.kind != "framework")
    latencies, sustained = (
        measure_latencies(lab, steady, plan.latency, report_line) if options.what != "throughput" else ([], [])
    )
    report = Report(
        started_at=started_at.isoformat(timespec="seconds"),
        duration_s=round(time.monotonic() - begin_s, 1),
        broker=lab.cluster.description,
        machine={**machine, "frameworks": versions_in(FRAMEWORKS), "others' load": ledger.verdict()},
        settings={
            "requests": f"{LAYOUTS[options.layout].title}; all different; {PARTITIONS} partitions",
            "model": f"LightGBM, {SIZES[options.model].trees} trees x {SIZES[options.model].leaves} leaves, one thread",
            **SETTINGS,
        },
        plan=plan,
        backlogs=backlogs,
        latencies=latencies,
        sustained=sustained,
    )
    show(report, _console())
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_bytes(to_json(report))


def installed_peers(given: tuple[Peer, ...] | None, say: Console) -> tuple[Peer, ...]:
    """The given peers, or else all that are installed; raises BenchError for a given one that is not."""
    missing = [peer for peer in given or PEERS if not peer.installed]
    if missing:
        titles = f"{', '.join(peer.title for peer in missing)}: not installed (`make bench` installs them)"
        if given:
            raise BenchError(titles)
        say.print(f"without {titles}", markup=False)
    return tuple(peer for peer in given or PEERS if peer.installed)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140)


def _plan(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else DEFAULT
    backlog, latency = plan.backlog, plan.latency
    if options.repeats:
        backlog = dataclasses.replace(backlog, repeats=options.repeats)
        latency = dataclasses.replace(latency, repeats=options.repeats)
    if options.count:
        backlog = dataclasses.replace(backlog, count=options.count, warm=options.count // 5)
    if options.rates:
        latency = dataclasses.replace(latency, rates=options.rates, slow_rates=options.rates[:1])
    return Plan(backlog, latency)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare inferd with hand-written loops, frameworks and simple Faust agents, in turn in one run.",
        epilog="example: python -m bench throughput --quick --peers aiokafka,inferd --json bench/results/today.json",
    )
    parser.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=("all", "throughput", "latency", "profile", "show"),
        help="what to measure (default: throughput and latency); profile shows inferd's CPU profile,"
        " show prints the tables of --json FILE",
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats: about two minutes")
    parser.add_argument("--broker", metavar="HOST:PORT", help="a running Kafka; default: an embedded one, started here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all measurements to this file")
    parser.add_argument("--layout", choices=LAYOUTS, default=DEFAULT_LAYOUT, help="of requests and results")
    parser.add_argument("--model", choices=SIZES, default=DEFAULT_SIZE, help="trees x leaves of the model")
    parser.add_argument("--count", type=_positive, help="requests of a backlog; a fifth of them is warm-up")
    parser.add_argument("--repeats", type=_positive, help="measurements per peer")
    parser.add_argument("--rates", type=_rates, metavar="N,N,…", help="offered rates of the latency measurement")
    parser.add_argument("--messages", type=_positive, default=600_000, help="backlog of `profile` (default: 600,000)")
    parser.add_argument(
        "--peers",
        type=_peers,
        metavar="NAME,NAME,…",
        help=f"of {', '.join(peer.name for peer in PEERS)} (default: all, for latency without the frameworks)",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 1 or more")
    return int(text)


def _rates(text: str) -> tuple[int, ...]:
    return tuple(_positive(each) for each in text.split(","))


def _peers(text: str) -> tuple[Peer, ...]:
    try:
        return peers_named(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error

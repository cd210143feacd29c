"""The report of a run, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec
from rich.console import Console, Group
from rich.table import Table

from bench.latency import LatencyMeasure, SustainedMeasure
from bench.measures import Spread, paired_ratios, spread
from bench.peers.catalog import EXACTLY_ONCE, INFERD, PEERS, Peer
from bench.plan import Plan
from bench.throughput import BacklogMeasure

Measure = TypeVar("Measure", BacklogMeasure, LatencyMeasure)
Figures = dict[int, float]
"""By repeat."""
LOOPS = {peer.name for peer in PEERS if peer.kind == "loop"}
BEST_LOOP = "the better loop by hand"
SMALL_RATIO = 0.05
SHORT = {INFERD: "inferd", EXACTLY_ONCE: "exactly_once"}


class Report(msgspec.Struct, frozen=True):
    """All measurements of a run."""

    started_at: str
    duration_s: float
    broker: str
    machine: dict[str, str]
    settings: dict[str, str]
    plan: Plan
    backlogs: list[BacklogMeasure]
    latencies: list[LatencyMeasure]
    sustained: list[SustainedMeasure]


def to_json(report: Report) -> bytes:
    """The report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2)


def from_json(content: bytes) -> Report:
    """Decodes a report written by `to_json`."""
    return msgspec.json.decode(content, type=Report)


def show(report: Report, console: Console) -> None:
    """Prints the tables of a report."""
    facts = Table("", "", title="Machine and settings", show_header=False)
    for name, fact in {"broker": report.broker, **report.machine, **report.settings}.items():
        facts.add_row(name, fact)
    tables = [facts]
    if report.backlogs:
        tables += [throughput_table(report.backlogs), comparison_table(report.backlogs)]
    if report.latencies:
        tables += [latency_table(report.latencies), latency_ratio_table(report.latencies)]
    if report.sustained:
        tables.append(sustained_table(report.sustained))
    console.print(Group(*tables))


def throughput_table(measures: Sequence[BacklogMeasure]) -> Table:
    """Throughput, CPU and memory of each peer."""
    table = Table(title="A backlog of single-row requests: median (range) over repeats", title_justify="left")
    for header in ("", "messages/s", "CPU µs per message", "of a core", "memory MB"):
        table.add_column(header, justify="left" if not header else "right")
    for peer in _measured(measures):
        mine = _of(peer.name, measures)
        table.add_row(
            peer.title,
            _shown(spread([each.messages_per_s for each in mine]), ",.0f"),
            _shown(spread([each.cpu_us_per_message for each in mine]), ".1f"),
            f"{spread([each.cpu_us_per_message * each.messages_per_s / 1e6 for each in mine]).median:.0%}",
            f"{max(each.peak_memory_mb for each in mine):.0f}",
        )
    return table


def comparison_table(measures: Sequence[BacklogMeasure]) -> Table:
    """inferd, with each guarantee, beside the best loop by hand of each repeat and beside each peer."""
    rates = _by_peer(measures, lambda each: each.messages_per_s)
    costs = _by_peer(measures, lambda each: each.cpu_us_per_message)
    others = [(peer.name, peer.title) for peer in _measured(measures) if peer.name != EXACTLY_ONCE]
    if loops := LOOPS & rates.keys():
        rates[BEST_LOOP] = _best([rates[name] for name in loops], max)
        costs[BEST_LOOP] = _best([costs[name] for name in loops], min)
        others.insert(0, (BEST_LOOP, BEST_LOOP))
    ours = {name: short for name, short in SHORT.items() if name in rates}
    table = Table(title="Ratios within a repeat: median (range)", title_justify="left")
    for header in ("", *(f"{short}{what} / this" for short in ours.values() for what in ("", "'s CPU"))):
        table.add_column(header, justify="left" if not header else "right")
    for name, title in others:
        cells = [
            "" if our == name else _ratio(figures[our], figures[name]) for our in ours for figures in (rates, costs)
        ]
        if any(cells):
            table.add_row(title, *cells)
    return table


def latency_table(measures: Sequence[LatencyMeasure]) -> Table:
    """Latency quantiles of each peer at each rate."""
    table = Table(
        title="Open-loop latency in ms from the scheduled send: median (range) over repeats", title_justify="left"
    )
    for header in ("rate", "", "p50", "p99", "p99.9", "max", "CPU µs per message"):
        table.add_column(header, justify="left" if not header else "right")
    for rate in _rates_of(measures):
        for peer in _measured(measures):
            if mine := [each for each in _of(peer.name, measures) if each.rate == rate]:
                quantiles = [each.quantiles for each in mine]
                table.add_row(
                    f"{rate:,.0f}/s",
                    peer.title,
                    _shown(spread([each.p50 for each in quantiles]), ".1f"),
                    _shown(spread([each.p99 for each in quantiles]), ".1f"),
                    _shown(spread([each.p999 for each in quantiles]), ".1f"),
                    f"{max(each.max for each in quantiles):.1f}",
                    f"{spread([each.cpu_us_per_message for each in mine]).median:.0f}",
                )
        table.add_section()
    return table


def latency_ratio_table(measures: Sequence[LatencyMeasure]) -> Table:
    """Ratio of inferd's latency to that of the best hand-written loop in the same repeat."""
    table = Table(title="inferd's latency / the better loop's in the same repeat", title_justify="left")
    for header in ("rate", "p50", "p99"):
        table.add_column(header, justify="right")
    for rate in _rates_of(measures):
        ratios = [_to_best_loop(measures, rate, quantile) for quantile in ("p50", "p99")]
        if all(ratios):
            table.add_row(f"{rate:,.0f}/s", *(_shown(ratio, ".2f") for ratio in ratios if ratio))
    return table


def sustained_table(measures: Sequence[SustainedMeasure]) -> Table:
    """The sustained rates."""
    table = Table(title="Highest rate with constant lag and all results received", title_justify="left")
    table.add_column("")
    table.add_column("messages/s", justify="right")
    for peer in PEERS:
        for each in measures:
            if each.peer == peer.name:
                note = " or more: the generator could not offer more" if each.limited_by_generator else ""
                table.add_row(peer.title, f"{each.rate:,.0f}{note}" if each.rate else f"none{note}")
    return table


def _to_best_loop(measures: Sequence[LatencyMeasure], rate: float, quantile: str) -> Spread | None:
    ours = {each.repeat: each for each in measures if each.peer == INFERD and each.rate == rate}
    best: Figures = {}
    for each in measures:
        if each.peer in LOOPS and each.rate == rate:
            value = getattr(each.quantiles, quantile)
            best[each.repeat] = min(value, best.get(each.repeat, value))
    repeats = sorted(ours.keys() & best.keys())
    if not repeats:
        return None
    return paired_ratios([getattr(ours[n].quantiles, quantile) for n in repeats], [best[n] for n in repeats])


def _measured(measures: Iterable[BacklogMeasure | LatencyMeasure]) -> list[Peer]:
    names = {each.peer for each in measures}
    return [peer for peer in PEERS if peer.name in names]


def _of(name: str, measures: Sequence[Measure]) -> list[Measure]:
    return sorted((each for each in measures if each.peer == name), key=lambda each: each.repeat)


def _rates_of(measures: Sequence[LatencyMeasure]) -> list[float]:
    return sorted({each.rate for each in measures})


def _by_peer(measures: Sequence[BacklogMeasure], figure: Callable[[BacklogMeasure], float]) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    for each in measures:
        found.setdefault(each.peer, {})[each.repeat] = figure(each)
    return found


def _best(peers: Sequence[Figures], better: Callable[[list[float]], float]) -> Figures:
    repeats = sorted(set().union(*peers))
    return {repeat: better([each[repeat] for each in peers if repeat in each]) for repeat in repeats}


def _ratio(ours: Figures, theirs: Figures) -> str:
    repeats = sorted(ours.keys() & theirs.keys())
    if not repeats:
        return ""
    ratios = paired_ratios([ours[each] for each in repeats], [theirs[each] for each in repeats])
    return _shown(ratios, ".2f" if ratios.median >= SMALL_RATIO else ".4f")


def _shown(values: Spread, form: str) -> str:
    median, low, high = (format(value, form) for value in values)
    return median if low == high else f"{median} ({low}-{high})"

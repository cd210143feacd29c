"""Tables and JSON of a run, from made-up measures."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from bench.latency import LatencyMeasure, SustainedMeasure
from bench.measures import Quantiles
from bench.plan import QUICK
from bench.report import Report, comparison_table, from_json, show, to_json
from bench.throughput import BacklogMeasure


def backlog(peer: str, repeat: int, rate: float) -> BacklogMeasure:
    return BacklogMeasure(peer, repeat, 1_000, 1_000 / rate, rate, 1e6 / rate, 200.0)


def latency(peer: str, repeat: int, p50: float) -> LatencyMeasure:
    return LatencyMeasure(peer, repeat, 200, Quantiles(p50, 2 * p50, 3 * p50, 4 * p50, 800), 20.0, 0.1)


@pytest.fixture
def report() -> Report:
    return Report(
        started_at="2024-02-29T12:00:00+00:00",
        duration_s=100.0,
        broker="a broker",
        machine={"processor": "a processor"},
        settings={"requests": "some"},
        plan=QUICK,
        backlogs=[
            *(backlog("aiokafka", repeat, rate) for repeat, rate in enumerate([50_000, 40_000, 20_000])),
            *(backlog("inferd", repeat, rate) for repeat, rate in enumerate([60_000, 60_000, 20_000])),
        ],
        latencies=[
            *(latency("librdkafka", repeat, p50) for repeat, p50 in enumerate([2.0, 1.0])),
            *(latency("aiokafka", repeat, p50) for repeat, p50 in enumerate([1.0, 4.0])),
            # Neither of these is a loop by hand.
            *(latency("inferd-eos", repeat, 0.1) for repeat in range(2)),
            *(latency("bytewax", repeat, 0.1) for repeat in range(2)),
            *(latency("inferd", repeat, p50) for repeat, p50 in enumerate([1.5, 1.5])),
        ],
        sustained=[SustainedMeasure("inferd", 40_000, False)],
    )


def text_of(report: Report) -> str:
    shown = io.StringIO()
    show(report, Console(file=shown, width=160))
    return shown.getvalue()


def test_the_tables_show_medians_ranges_and_paired_ratios(report: Report) -> None:
    text = text_of(report)
    assert "40,000 (20,000-50,000)" in text
    # 60/50, 60/40 and 20/20, repeat by repeat: not 60,000 / 40,000.
    assert "1.20 (1.00-1.50)" in text
    assert "a broker" in text


def test_throughput_is_compared_with_the_better_loop_of_each_repeat_and_with_each_framework() -> None:
    measures = [
        *(backlog("librdkafka", repeat, rate) for repeat, rate in enumerate([40_000, 30_000, 60_000])),
        *(backlog("aiokafka", repeat, rate) for repeat, rate in enumerate([50_000, 20_000, 30_000])),
        *(backlog("bytewax", repeat, rate) for repeat, rate in enumerate([10_000, 10_000, 20_000])),
        *(backlog("inferd-eos", repeat, rate) for repeat, rate in enumerate([90_000, 81_000, 108_000])),
        *(backlog("inferd", repeat, rate) for repeat, rate in enumerate([100_000, 90_000, 120_000])),
    ]
    shown = io.StringIO()
    Console(file=shown, width=200).print(comparison_table(measures))
    text = shown.getvalue()
    # inferd and its CPU, exactly_once and its CPU. The better loop has 50,000, 30,000 and 60,000.
    best = r"the better loop by hand\W+2\.00 \(2\.00-3\.00\)\W+0\.50 \(0\.33-0\.50\)\W+1\.80 \(1\.80-2\.70\)"
    assert re.search(best, text)
    assert re.search(r"Bytewax, batched by hand\W+9\.00 \(6\.00-10\.00\)\W+0\.11 \(0\.10-0\.17\)", text)
    assert re.search(r"inferd worker\W+0\.90\W+1\.11", text)
    assert "inferd, exactly_once" not in text


def test_a_repeat_that_a_peer_lacks_is_left_out_of_its_ratio() -> None:
    measures = [backlog("quix", 1, 10_000), backlog("inferd", 0, 90_000), backlog("inferd", 1, 20_000)]
    shown = io.StringIO()
    Console(file=shown, width=200).print(comparison_table(measures))
    assert re.search(r"Quix Streams, batching sink\W+2\.00\W+0\.50", shown.getvalue())


def test_latency_is_compared_with_the_better_loop_of_the_same_repeat(report: Report) -> None:
    # The better loop's p50 is 1.0 in both repeats, each time another loop's.
    assert re.search(r"200/s\W+1\.50\W+1\.50\W", text_of(report))


def test_the_json_contains_every_figure(report: Report) -> None:
    value = json.loads(to_json(report))
    assert [each["messages_per_s"] for each in value["backlogs"] if each["peer"] == "inferd"] == [
        60_000,
        60_000,
        20_000,
    ]
    assert value["plan"]["backlog"]["repeats"] == QUICK.backlog.repeats
    assert value["latencies"][0]["quantiles"]["p99"] == 4.0


def test_a_report_is_read_back_as_it_was(report: Report) -> None:
    assert from_json(to_json(report)) == report

"""Open-loop latency at fixed rates, from the scheduled time of each request, and the sustained rate."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import numpy as np

from bench.errors import BenchError
from bench.lab import Lab
from bench.load import READY, LoadTask, Received, Sent
from bench.measures import Floats, Quantiles, is_sustained, latency_quantiles, next_step, scheduled_s
from bench.peers.catalog import Peer, running_peer
from bench.peers.task import PeerTask
from bench.plan import LatencyPlan
from bench.processes import PeerProcess, cpu_s
from bench.verification import verify

TENANT = "latency"
PRIME_COUNT = 100
PRIME_RATE = 200.0
WARM_UP_COUNT = 10_000
WARM_UP_RATE = 3_000.0
SILENCE_S = 15.0
GENERATOR_LATE_MS_MAX = 50.0
SUSTAINED_TRIES = 2


class LatencyMeasure(msgspec.Struct, frozen=True):
    """One peer at one rate; milliseconds from the scheduled send to the receipt of the result."""

    peer: str
    repeat: int
    rate: float
    quantiles: Quantiles
    cpu_us_per_message: float
    generator_late_p99_ms: float


class SustainedMeasure(msgspec.Struct, frozen=True):
    """The highest rate with constant lag; 0 if the lowest one was too high.

    `limited_by_generator`: the next step failed because the generator fell behind its schedule.
    """

    peer: str
    rate: float
    limited_by_generator: bool


@dataclass(frozen=True, slots=True)
class Exchange:
    """Scheduled and received times by request number, in seconds of one clock; all results are verified."""

    scheduled: Floats
    received: Floats
    sent: Sent
    cpu_s: float


def measure_latencies(
    lab: Lab, peers: Sequence[Peer], plan: LatencyPlan, report: Callable[[str], None]
) -> tuple[list[LatencyMeasure], list[SustainedMeasure]]:
    """Measures all peers at all rates, interleaved in repeats; and, in the last repeat, the sustained rate."""
    lab.prepare_tenant(TENANT, with_inferd=any(peer.module is None for peer in peers))
    latencies: list[LatencyMeasure] = []
    sustained: list[SustainedMeasure] = []
    _warm_up(lab, peers[0])
    report(f"latency: {plan.span_s:g} s at each of {', '.join(f'{rate:,}/s' for rate in plan.rates)}")
    for repeat in range(plan.repeats):
        for peer in (*peers[repeat % len(peers) :], *peers[: repeat % len(peers)]):
            task = lab.task(TENANT, f"{peer.name}-{repeat}")
            lab.cluster.commit_ends(task.group, task.requests)
            with running_peer(peer, task) as process:
                load = Load(lab, peer, process, task, repeat)
                load.prime()
                latencies += load.measure_rates(plan)
                report(f"  {repeat + 1}/{plan.repeats} {peer.title}: {_brief(latencies, peer, repeat)}")
                if repeat == plan.repeats - 1 and peer.fast and plan.sustained_steps:
                    sustained.append(load.find_sustained(plan))
                    report(f"    sustained: {sustained[-1].rate:,.0f}/s")
    return latencies, sustained


def _warm_up(lab: Lab, peer: Peer) -> None:
    """An unmeasured run, since a newly started broker is slow."""
    task = lab.task(TENANT, "warm-up")
    lab.cluster.commit_ends(task.group, task.requests)
    with running_peer(peer, task) as process:
        load = Load(lab, peer, process, task, repeat=-1)
        load.prime()
        load.offer(WARM_UP_COUNT, WARM_UP_RATE, "warm-up")


class Load:
    """Load on one running peer."""

    def __init__(self, lab: Lab, peer: Peer, process: PeerProcess, task: PeerTask, repeat: int) -> None:
        self._lab = lab
        self._peer = peer
        self._process = process
        self._task = task
        self._repeat = repeat

    def prime(self) -> None:
        """Waits until the peer has processed requests, so that its start is not measured."""
        self.offer(PRIME_COUNT, PRIME_RATE, "prime")

    def measure_rates(self, plan: LatencyPlan) -> list[LatencyMeasure]:
        rates = plan.rates if self._peer.fast else plan.slow_rates
        return [self._measure(rate, plan) for rate in rates]

    def find_sustained(self, plan: LatencyPlan) -> SustainedMeasure:
        """A bisection over the plan's steps."""
        passed, failed, limited = -1, len(plan.sustained_steps), False
        while (step := next_step(passed, failed)) is not None:
            sustains, late = self._sustains(plan.sustained_steps[step], plan.sustained_span_s)
            if sustains:
                passed = step
            else:
                failed, limited = step, late
        return SustainedMeasure(self._peer.name, plan.sustained_steps[passed] if passed >= 0 else 0, limited)

    def _sustains(self, rate: float, span_s: float) -> tuple[bool, bool]:
        """Whether the lag stays constant in one of a few attempts; and whether the generator fell behind."""
        late = False
        for number in range(SUSTAINED_TRIES):
            exchange = self.offer(int(rate * span_s), rate, f"sustained{number}")
            late = exchange.sent.late_p99_ms > GENERATOR_LATE_MS_MAX
            if not late and is_sustained(exchange.scheduled, exchange.received):
                return True, False
        return False, late

    def _measure(self, rate: float, plan: LatencyPlan) -> LatencyMeasure:
        count = int(rate * (plan.settle_s + plan.span_s))
        exchange = self.offer(count, rate, "rate")
        settled = slice(int(rate * plan.settle_s), None)
        latencies_ms = (exchange.received - exchange.scheduled)[settled] * 1e3
        return LatencyMeasure(
            peer=self._peer.name,
            repeat=self._repeat,
            rate=rate,
            quantiles=latency_quantiles(latencies_ms),
            cpu_us_per_message=exchange.cpu_s / count * 1e6,
            generator_late_p99_ms=exchange.sent.late_p99_ms,
        )

    def offer(self, count: int, rate: float, what: str) -> Exchange:
        """Sends requests at a rate and verifies their results; `what` makes their ids unique."""
        prefix = f"{self._peer.name}-{self._repeat}-{what}-{rate:.0f}-"
        task = LoadTask(
            bootstrap_servers=self._task.bootstrap_servers,
            requests=self._task.requests,
            results=self._task.results,
            begin=self._lab.cluster.ends(self._task.results),
            prefix=prefix,
            count=count,
            rate=rate,
            layout=self._lab.layout,
            silence_s=SILENCE_S,
        )
        requests, expected = self._lab.requests(count, prefix)
        with _started("bench.reader", task) as reader, _started("bench.generator", task) as generator:
            used_s = cpu_s(self._process.pid)
            sent = msgspec.json.decode(_output("bench.generator", generator, b"go\n"), type=Sent)
            received = msgspec.msgpack.decode(_output("bench.reader", reader), type=Received)
            used_s = cpu_s(self._process.pid) - used_s
        self._process.check_alive()
        numbers = verify(received.values, requests, expected, self._lab.model.identity, self._peer.title)
        at_s = np.empty(count)
        at_s[numbers] = received.at_s
        return Exchange(scheduled_s(count, rate, sent.begin_s), at_s, sent, used_s)


@contextmanager
def _started(module: str, task: LoadTask) -> Iterator[subprocess.Popen[bytes]]:
    """A load process that has reported that it is ready."""
    command = [sys.executable, "-m", module, task.to_argument()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline().decode().strip() != READY:
                raise BenchError(f"{module} ended with exit code {process.wait()} before it was ready")
            yield process
        finally:
            process.kill()


def _output(module: str, process: subprocess.Popen[bytes], line: bytes | None = None) -> bytes:
    """What a load process prints until it ends; raises BenchError if it fails, which its standard error explains."""
    output, _ = process.communicate(line)
    if process.returncode:
        raise BenchError(f"{module} ended with exit code {process.returncode}")
    return output


def _brief(latencies: Sequence[LatencyMeasure], peer: Peer, repeat: int) -> str:
    mine = [each for each in latencies if each.peer == peer.name and each.repeat == repeat]
    return ", ".join(
        f"{each.rate:,.0f}/s p50 {each.quantiles.p50:.1f} p99 {each.quantiles.p99:.1f} ms" for each in mine
    )

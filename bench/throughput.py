"""Throughput and CPU cost of each peer with a backlog."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from numpy.typing import NDArray

from bench.cluster import Cluster, Offsets, count_between
from bench.errors import BenchError
from bench.lab import Lab
from bench.measures import cpu_between, timed_span
from bench.peers.catalog import Peer, running_peer
from bench.plan import BacklogPlan
from bench.processes import CpuSampler, PeerProcess, peak_memory_mb
from bench.requests import Requests
from bench.verification import verify

POLL_S = 0.1
DRAIN_TIMEOUT_S = 180.0
COMMIT_TIMEOUT_S = 15.0


class BacklogMeasure(msgspec.Struct, frozen=True):
    """One peer, one backlog."""

    peer: str
    repeat: int
    messages: int
    """In the timed span."""
    duration_s: float
    messages_per_s: float
    cpu_us_per_message: float
    peak_memory_mb: float


def measure_backlogs(
    lab: Lab, peers: Sequence[Peer], plan: BacklogPlan, report: Callable[[str], None]
) -> list[BacklogMeasure]:
    """Measures all peers on the same backlog, interleaved in repeats; the first run is a warm-up."""
    backlogs = _Backlogs(lab, peers, plan)
    peers = tuple(peers)
    report(f"backlogs: {plan.count:,} requests, {plan.slow_count:,} for the naive agent")
    warmer = next((peer for peer in peers if peer.fast), peers[0])
    backlogs.measure(warmer, repeat=-1)
    measures = []
    for repeat in range(plan.repeats):
        for peer in peers[repeat % len(peers) :] + peers[: repeat % len(peers)]:
            measure = backlogs.measure(peer, repeat)
            report(
                f"  {repeat + 1}/{plan.repeats} {peer.title}: {measure.messages_per_s:,.0f}/s,"
                f" {measure.cpu_us_per_message:.1f} µs CPU per message"
            )
            measures.append(measure)
    return measures


class _Backlogs:
    """The long and the short backlog, appended once and processed by one consumer group after another."""

    def __init__(self, lab: Lab, peers: Sequence[Peer], plan: BacklogPlan) -> None:
        self._lab = lab
        self._warm = {True: plan.warm, False: plan.slow_warm}
        counts = {True: plan.count, False: plan.slow_count}
        tenants = {True: "backlog", False: "short"}
        self._tenants = {fast: tenants[fast] for fast in {peer.fast for peer in peers}}
        self._requests: dict[bool, tuple[Requests, NDArray[Any]]] = {}
        for fast, tenant in self._tenants.items():
            with_inferd = any(peer.module is None for peer in peers if peer.fast == fast)
            lab.prepare_tenant(tenant, with_inferd=with_inferd)
            self._requests[fast] = lab.requests(counts[fast], f"{tenant}-")
            lab.cluster.append(lab.task(tenant, "").requests, self._requests[fast][0])

    def measure(self, peer: Peer, repeat: int) -> BacklogMeasure:
        (requests, expected), tenant = self._requests[peer.fast], self._tenants[peer.fast]
        task = self._lab.task(tenant, f"{peer.name}-{repeat}")
        cluster = self._lab.cluster
        begin = cluster.ends(task.results)
        with running_peer(peer, task) as process, CpuSampler(process.pid) as cpu:
            if not peer.transactional:
                await_results(cluster, process, task.results, begin, len(requests))
            # With transactions, offsets are committed together with the results.
            await_commit(
                cluster, process, task.group, task.requests, DRAIN_TIMEOUT_S if peer.transactional else COMMIT_TIMEOUT_S
            )
            memory_mb = peak_memory_mb(process.pid)
        appended = list(cluster.read(task.results, begin, cluster.ends(task.results)))
        verify((each.value for each in appended), requests, expected, self._lab.model.identity, peer.title)
        span = timed_span([each.timestamp_ms for each in appended], self._warm[peer.fast])
        used_s = cpu_between(cpu.samples, span.begin_s, span.end_s)
        return BacklogMeasure(
            peer=peer.name,
            repeat=repeat,
            messages=span.messages,
            duration_s=span.duration_s,
            messages_per_s=span.messages_per_s,
            cpu_us_per_message=used_s / span.messages * 1e6,
            peak_memory_mb=memory_mb,
        )


def await_results(cluster: Cluster, process: PeerProcess, topic: str, begin: Offsets, count: int) -> None:
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while (done := count_between(begin, cluster.ends(topic))) < count:
        process.check_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"{process.name}: {done} of {count} results after {DRAIN_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)


def await_commit(cluster: Cluster, process: PeerProcess, group: str, topic: str, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    wanted = cluster.ends(topic)
    while (committed := cluster.committed(group, topic)) != wanted:
        process.check_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"{process.name}: committed {committed} of {wanted} within {within_s:.0f} s")
        time.sleep(POLL_S)

"""Throughput and CPU cost of each peer with a backlog."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from numpy.typing import NDArray

from bench.cluster import Cluster, Offsets, count_between
from bench.errors import BenchError
from bench.lab import Lab
from bench.measures import cpu_between, timed_span
from bench.peers.catalog import Peer, Progress, running_peer
from bench.peers.task import PeerTask
from bench.plan import BacklogPlan
from bench.processes import CpuSampler, PeerProcess, peak_memory_mb
from bench.recovery_store import stored_offsets
from bench.requests import PARTITIONS, Requests
from bench.verification import verify

POLL_S = 0.1
DRAIN_TIMEOUT_S = 300.0
LIVE_TIMEOUT_S = 120.0
COMMIT_TIMEOUT_S = 60.0
START_TIMEOUT_S = 300.0
PROBE_S = 2.0


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
    """Measures all peers on the same backlog, interleaved in repeats; the first run is a warm-up.

    A run of a peer that commits nothing, and so may lose results, is left out if it is invalid.
    """
    peers = tuple(peers)
    backlogs = _prepare(lab, peers, plan)
    report(f"backlogs: {plan.count:,} requests, {plan.slow_count:,} for slow peers")
    warmer = next((peer for peer in peers if peer.fast), peers[0])
    backlogs[warmer.name].measure(warmer, repeat=-1)
    measures = []
    for repeat in range(plan.repeats):
        for peer in peers[repeat % len(peers) :] + peers[: repeat % len(peers)]:
            try:
                measure = backlogs[peer.name].measure(peer, repeat)
            except BenchError as error:
                if peer.commits:
                    raise
                report(f"  {repeat + 1}/{plan.repeats} {peer.title}: invalid: {error.message}")
                continue
            report(
                f"  {repeat + 1}/{plan.repeats} {peer.title}: {measure.messages_per_s:,.0f}/s,"
                f" {measure.cpu_us_per_message:.1f} µs CPU per message"
            )
            measures.append(measure)
    return measures


def _prepare(lab: Lab, peers: Sequence[Peer], plan: BacklogPlan) -> dict[str, _Backlog]:
    """The backlog of each peer, by its name; peers of one layout and speed share one."""

    def kind(peer: Peer) -> tuple[str, bool]:
        return peer.layout or lab.layout, peer.fast

    backlogs: dict[str, _Backlog] = {}
    for layout, fast in {kind(peer) for peer in peers}:
        alike = [peer for peer in peers if kind(peer) == (layout, fast)]
        backlog = _Backlog.prepare(dataclasses.replace(lab, layout=layout), alike, plan)
        backlogs |= {peer.name: backlog for peer in alike}
    return backlogs


class _Backlog(NamedTuple):
    """Requests in one layout, long or short, for one peer after another."""

    lab: Lab
    tenant: str
    warm: int
    requests: Requests
    expected: NDArray[Any]

    @classmethod
    def prepare(cls, lab: Lab, peers: Sequence[Peer], plan: BacklogPlan) -> _Backlog:
        """The backlog of peers of one layout, appended if they commit offsets."""
        length, many, warm = "long", plan.count, plan.warm
        if not peers[0].fast:
            length, many, warm = "short", plan.slow_count, plan.slow_warm
        tenant = f"{length}-{lab.layout}"
        lab.prepare_tenant(tenant, with_inferd=any(peer.module is None for peer in peers))
        backlog = cls(lab, tenant, warm, *lab.requests(many, f"{length}-"))
        if any(peer.commits for peer in peers):
            backlog.append()
        return backlog

    def append(self) -> None:
        self.lab.cluster.append(self.lab.task(self.tenant, "").requests, self.requests)

    def measure(self, peer: Peer, repeat: int) -> BacklogMeasure:
        task, cluster, title = self.lab.task(self.tenant, f"{peer.name}-{repeat}"), self.lab.cluster, peer.title
        begin = cluster.ends(task.results)
        with running_peer(peer, task) as process, CpuSampler(process.pid) as cpu:
            if not peer.commits:
                await_reading(self.lab, process, task)
                begin = cluster.ends(task.results)
                self.append()
            if not peer.transactional:
                within_s = DRAIN_TIMEOUT_S if peer.commits else LIVE_TIMEOUT_S
                await_results(cluster, process, task.results, begin, len(self.requests), within_s)
            if peer.commits:
                # With transactions, offsets are committed together with the results.
                within_s = DRAIN_TIMEOUT_S if peer.transactional else COMMIT_TIMEOUT_S
                await_commit(cluster, process, task, within_s, peer.progress)
            memory_mb = peak_memory_mb(process.pid)
        appended = list(cluster.read(task.results, begin, cluster.ends(task.results)))
        verify((each.value for each in appended), self.requests, self.expected, self.lab.model.identity, title)
        span = timed_span([each.timestamp_ms for each in appended], self.warm)
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


def await_reading(lab: Lab, process: PeerProcess, task: PeerTask) -> None:
    """Sends a request to each partition, again and again, until those of one attempt have results.

    A peer that commits no offsets starts at the end of the topic, and does not say when it has found it.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    begin = lab.cluster.ends(task.results)
    for attempt in count():
        probes, _ = lab.requests(PARTITIONS, f"{task.group}-{attempt}-")
        lab.cluster.append(task.requests, probes)
        if _has_results(lab.cluster, task.results, begin, probes):
            return
        process.check_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"{process.name} reads nothing within {START_TIMEOUT_S:.0f} s:\n{process.log_tail()}")


def _has_results(cluster: Cluster, topic: str, begin: Offsets, requests: Requests) -> bool:
    """Whether all requests have results within a while."""
    wanted = {requests.request_id(number) for number in range(len(requests))}
    deadline = time.monotonic() + PROBE_S
    while time.monotonic() < deadline:
        found = cluster.read(topic, begin, cluster.ends(topic))
        if wanted <= {requests.layout.read(each.value)["id"] for each in found}:
            return True
        time.sleep(POLL_S)
    return False


def await_results(
    cluster: Cluster, process: PeerProcess, topic: str, begin: Offsets, count: int, within_s: float = DRAIN_TIMEOUT_S
) -> None:
    deadline = time.monotonic() + within_s
    while (done := count_between(begin, cluster.ends(topic))) < count:
        process.check_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"{process.name}: {done} of {count} results after {within_s:.0f} s")
        time.sleep(POLL_S)


def await_commit(
    cluster: Cluster, process: PeerProcess, task: PeerTask, within_s: float, progress: Progress = "group"
) -> None:
    """Waits until the offsets that the peer keeps are the ends of the requests."""
    deadline = time.monotonic() + within_s
    wanted = cluster.ends(task.requests)
    while (committed := _committed(cluster, task, progress)) != wanted:
        process.check_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"{process.name}: committed {committed} of {wanted} within {within_s:.0f} s")
        time.sleep(POLL_S)


def _committed(cluster: Cluster, task: PeerTask, progress: Progress) -> Offsets:
    if progress == "recovery store":
        return stored_offsets(Path(task.recovery_store), task.requests)
    return cluster.committed(task.group, task.requests)

"""The list of peers, and how to start each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.layouts import OPEN_INFERENCE
from bench.peers import inferd_worker
from bench.peers.task import PeerTask
from bench.processes import PeerProcess, running

LOOP, INFERD = "librdkafka", "inferd"


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to measure. `module` None is inferd itself."""

    name: str
    title: str
    module: str | None
    fast: bool = True
    """Whether it gets the long backlog and the high rates."""
    predict_threads: int = 1
    """0 is LightGBM's default."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of inferd that differ from the defaults."""
    layout: str | None = None
    """A name of `LAYOUTS`, if it always has the same one."""
    commits: bool = True
    """Whether it commits offsets; if not, it reads only what is appended while it runs."""

    @property
    def transactional(self) -> bool:
        """Whether its results are in transactions, whose markers use offsets, too."""
        return self.settings.get("INFERD_PROCESSING_GUARANTEE") == "exactly_once"


PEERS = (
    Peer(LOOP, "librdkafka loop", "bench.peers.librdkafka_loop"),
    Peer("aiokafka", "aiokafka loop, pipelined", "bench.peers.aiokafka_loop"),
    Peer("faust", "Faust agent, naive", "bench.peers.faust_agent", fast=False, predict_threads=0),
    Peer("faust-tuned", "Faust agent, one thread", "bench.peers.faust_agent", fast=False),
    Peer(
        "inferd-eos",
        "inferd, exactly_once",
        None,
        settings={"INFERD_PROCESSING_GUARANTEE": "exactly_once"},
    ),
    Peer(INFERD, "inferd worker", None),
)
"""Those of `python -m bench`."""
JSON_LOOP, JSON_INFERD, MLSERVER = "librdkafka-v2", "inferd-json", "mlserver"
FORMAT_PEERS = (
    *(peer for peer in PEERS if peer.name in (LOOP, INFERD)),
    Peer(JSON_LOOP, "librdkafka loop, V2 JSON", "bench.peers.librdkafka_loop", layout=OPEN_INFERENCE),
    Peer(JSON_INFERD, "inferd worker, JSON", None, layout="list-json"),
    Peer(MLSERVER, "MLServer, V2 JSON", "bench.peers.mlserver", fast=False, layout=OPEN_INFERENCE, commits=False),
)
"""Those of `python -m bench.models`."""


def peers_named(names: str) -> tuple[Peer, ...]:
    """The peers of a comma-separated list, in the order of `PEERS`; raises ValueError for an unknown name."""
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    if unknown := wanted - {peer.name for peer in PEERS}:
        raise ValueError(f"unknown peer {min(unknown)!r}: choose from {', '.join(peer.name for peer in PEERS)}")
    return tuple(peer for peer in PEERS if peer.name in wanted)


@contextmanager
def running_peer(peer: Peer, task: PeerTask) -> Iterator[PeerProcess]:
    """The running process of a peer; inferd's once it is ready and serves the model."""
    work_dir = Path(task.work_dir)
    if peer.module is None:
        with inferd_worker.running_worker(task, peer.settings) as process:
            yield process
        return
    task = msgspec.structs.replace(task, predict_threads=peer.predict_threads)
    command = [sys.executable, "-m", peer.module, task.to_argument()]
    threads = {"OMP_NUM_THREADS": str(peer.predict_threads)} if peer.predict_threads else {}
    with running(peer.name, command, threads, work_dir) as process:
        yield process

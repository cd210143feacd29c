"""The list of peers, and how to start each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from bench.errors import BenchError
from bench.layouts import OPEN_INFERENCE
from bench.peers import inferd_worker
from bench.peers.task import PeerTask
from bench.processes import PeerProcess, running

LOOP, INFERD, EXACTLY_ONCE = "librdkafka", "inferd", "inferd-eos"
FRAMEWORKS = Path(__file__).parents[2] / ".venv-frameworks"
"""The frameworks have an environment of their own, which `make bench` installs."""
Kind = Literal["loop", "framework", "agent", "inferd", "server"]
Progress = Literal["group", "recovery store", "none"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to measure. `module` None is inferd itself."""

    name: str
    title: str
    module: str | None
    kind: Kind
    """`loop` is written by hand; `agent` takes one record at a time."""
    fast: bool = True
    """Whether it gets the long backlog and the high rates."""
    predict_threads: int = 1
    """0 is LightGBM's default."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of inferd that differ from the defaults."""
    layout: str | None = None
    """A name of `LAYOUTS`, if it always has the same one."""
    progress: Progress = "group"
    """Where its offsets are: committed to its consumer group, in a recovery store of Bytewax, or nowhere."""
    package: str | None = None
    """The package that it imports from the environment of the frameworks; None: from that of inferd."""

    @property
    def commits(self) -> bool:
        """Whether it keeps its offsets; if not, it reads only what is appended while it runs."""
        return self.progress != "none"

    @property
    def installed(self) -> bool:
        return self.package is None or any(FRAMEWORKS.glob(f"lib/python*/site-packages/{self.package}"))

    @property
    def transactional(self) -> bool:
        """Whether its results are in transactions, whose markers use offsets, too."""
        return self.settings.get("INFERD_PROCESSING_GUARANTEE") == "exactly_once"


PEERS = (
    Peer(LOOP, "librdkafka loop", "bench.peers.librdkafka_loop", "loop"),
    Peer("aiokafka", "aiokafka loop, pipelined", "bench.peers.aiokafka_loop", "loop"),
    Peer(
        "bytewax",
        "Bytewax, batched by hand",
        "bench.peers.bytewax_flow",
        "framework",
        progress="recovery store",
        package="bytewax",
    ),
    Peer("quix", "Quix Streams, batching sink", "bench.peers.quix_app", "framework", package="quixstreams"),
    Peer("faststream", "FastStream, batch subscriber", "bench.peers.faststream_app", "framework", package="faststream"),
    Peer("faust", "Faust agent, naive", "bench.peers.faust_agent", "agent", fast=False, predict_threads=0),
    Peer("faust-tuned", "Faust agent, one thread", "bench.peers.faust_agent", "agent", fast=False),
    Peer(
        EXACTLY_ONCE,
        "inferd, exactly_once",
        None,
        "inferd",
        settings={"INFERD_PROCESSING_GUARANTEE": "exactly_once"},
    ),
    Peer(INFERD, "inferd worker", None, "inferd"),
)
"""Those of `python -m bench`."""
JSON_LOOP, JSON_INFERD, MLSERVER = "librdkafka-v2", "inferd-json", "mlserver"
FORMAT_PEERS = (
    *(peer for peer in PEERS if peer.name in (LOOP, INFERD)),
    Peer(JSON_LOOP, "librdkafka loop, V2 JSON", "bench.peers.librdkafka_loop", "loop", layout=OPEN_INFERENCE),
    Peer(JSON_INFERD, "inferd worker, JSON", None, "inferd", layout="list-json"),
    Peer(
        MLSERVER,
        "MLServer, V2 JSON",
        "bench.peers.mlserver",
        "server",
        fast=False,
        layout=OPEN_INFERENCE,
        progress="none",
    ),
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
    """The running process of a peer; inferd's once it is ready and serves the model.

    Raises BenchError if a peer that keeps its offsets does not end cleanly.
    """
    with _started(peer, task) as process:
        yield process
    if peer.commits and process.exit_code != 0:
        raise BenchError(f"{peer.title} ended with exit code {process.exit_code}:\n{process.log_tail()}")


def command_of(peer: Peer, task: PeerTask) -> list[str]:
    """The command of a peer with a module."""
    python = str(FRAMEWORKS / "bin" / "python") if peer.package else sys.executable
    return [python, "-m", str(peer.module), task.to_argument()]


@contextmanager
def _started(peer: Peer, task: PeerTask) -> Iterator[PeerProcess]:
    if peer.module is None:
        with inferd_worker.running_worker(task, peer.settings) as process:
            yield process
        return
    task = msgspec.structs.replace(task, predict_threads=peer.predict_threads)
    threads = {"OMP_NUM_THREADS": str(peer.predict_threads)} if peer.predict_threads else {}
    with running(peer.name, command_of(peer, task), threads, Path(task.work_dir)) as process:
        yield process

"""The task of a peer's process, and its stop signal."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from typing import Literal

import msgspec

from bench.layouts import DEFAULT

RecordFormat = Literal["json", "avro"]


class PeerTask(msgspec.Struct, frozen=True):
    """Topics, model and directory of a peer; the argument of its process, as JSON."""

    bootstrap_servers: str
    namespace: str
    tenant: str
    group: str
    model_path: str
    model_id: str
    version: int
    digest: str
    work_dir: str
    library: str = "lightgbm"
    """A name of `bench.libraries.LIBRARIES`."""
    layout: str = DEFAULT
    """A name of `bench.layouts.LAYOUTS`."""
    source: str = ""
    """The topic of the requests, if it is not that of the tenant."""
    sink: str = ""
    """The topic of the results, if it is not that of the tenant."""
    record_format: RecordFormat | None = None
    """If the requests are records of a route, their format."""
    predict_threads: int = 1
    """Threads of `Booster.predict`; 0 is LightGBM's default."""

    @property
    def requests(self) -> str:
        """Topic of the requests."""
        return self.source or f"{self.namespace}.{self.tenant}.requests"

    @property
    def results(self) -> str:
        """Topic of the results."""
        return self.sink or f"{self.namespace}.{self.tenant}.results"

    @property
    def recovery_store(self) -> str:
        """The directory where Bytewax keeps its offsets."""
        return f"{self.work_dir}/bytewax-{self.group}"

    def to_argument(self) -> str:
        return msgspec.json.encode(self).decode()


def task_of_arguments() -> PeerTask:
    """The task that this process was started with."""
    return msgspec.json.decode(sys.argv[1], type=PeerTask)


def stop_signal() -> threading.Event:
    """Set once SIGTERM or SIGINT arrives."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def collect_garbage_rarely() -> None:
    """Reduces garbage collection, which would cost a fifth of a loop's throughput."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)

"""Facts about the machine: hardware, versions, and the load of other processes."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import distributions, version
from pathlib import Path

import psutil

from bench.processes import cpu_s

DISTURBED_SHARE = 0.02
PACKAGES = ("lightgbm", "numpy", "msgpack", "msgspec", "aiokafka", "faust-streaming", "confluent-kafka", "uvloop")

FRAMEWORKS = ("bytewax", "quixstreams", "faststream", "aiokafka", "confluent-kafka")


def machine_facts() -> dict[str, str]:
    """Processor, memory, kernel, versions and the load before the run, by name."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "load before": f"{os.getloadavg()[0]:.2f} (1 min)",
    }


def versions_in(environment: Path, names: Sequence[str] = FRAMEWORKS) -> str:
    """The versions of packages in another environment; empty if it is not installed."""
    folders = [str(folder) for folder in environment.glob("lib/python*/site-packages")]
    found = {each.name: each.version for name in names for each in distributions(name=name, path=folders)}
    return ", ".join(f"{name} {version}" for name, version in found.items())


class CpuLedger:
    """Attributes the machine's CPU time to this run (and its children) or to other processes."""

    def __init__(self) -> None:
        self._busy_s, self._ours_s, self._begin_s = _busy_s(), _ours_s(), time.monotonic()

    def others_share(self) -> float:
        """The share of CPU time used by processes outside of this run."""
        busy_s, ours_s = _busy_s() - self._busy_s, _ours_s() - self._ours_s
        return max(0.0, busy_s - ours_s) / ((time.monotonic() - self._begin_s) * (os.cpu_count() or 1))

    def verdict(self) -> str:
        """A text with the share and its assessment."""
        share = self.others_share()
        judgement = "the figures are disturbed" if share > DISTURBED_SHARE else "undisturbed"
        return f"{share:.1%} of the machine's CPU time during the run: {judgement}"


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _ours_s() -> float:
    """CPU time of this process and of its children, finished and running."""
    ended = os.times()
    living = psutil.Process().children(recursive=True)
    return ended.user + ended.system + ended.children_user + ended.children_system + sum(cpu_s(c.pid) for c in living)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()

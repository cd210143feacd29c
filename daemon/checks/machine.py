"""Checks of this machine: settings, certificates, disk, memory, files of the embedded broker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from inferd.daemon.broker.errors import BrokerError
from inferd.daemon.broker.jars import read_lock
from inferd.daemon.broker.jvm import find_java
from inferd.daemon.certificates import expiries
from inferd.daemon.checks import Check
from inferd.daemon.settings import Settings, SettingsError, check_worker, worker_warnings
from inferd.streams.inference import kernels_fault

if TYPE_CHECKING:
    from inferd.streams.inference import FormatReport

GIB = 1_024**3
DISK_BYTES_MIN, DISK_BYTES_GOOD = GIB // 2, 2 * GIB
MEMORY_BYTES_GOOD = GIB // 2
CGROUP_LIMIT, CGROUP_USE = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
CERTIFICATES = tuple(
    f"{owner}_{file}" for owner in ("kafka_ssl", "schema_registry_ssl", "https") for file in ("certfile", "cafile")
)
EXPIRES_SOON = timedelta(days=14)


def check_settings(settings: Settings) -> list[Check]:
    """Whether a worker accepts the settings."""
    try:
        check_worker(settings)
    except SettingsError as error:
        return [Check("settings", "fail", problem, "see docs/settings.md") for problem in error.problems]
    warnings = [Check("settings", "warn", warning, "see docs/settings.md") for warning in worker_warnings(settings)]
    return warnings or [Check("settings", "ok", "a worker accepts them")]


def check_certificates(settings: Settings, now: datetime | None = None) -> list[Check]:
    """Whether certificates of the settings have expired, or will soon.

    A chain is as good as the first one to expire, a file of authorities as the last one: it keeps earlier ones.
    """
    names = [name for name in CERTIFICATES if getattr(settings, name)]
    return [_certificate(settings, name, now or datetime.now(UTC)) for name in names]


def _certificate(settings: Settings, name: str, now: datetime) -> Check:
    path = Path(getattr(settings, name))
    what = f"INFERD_{name.upper()}={path}"
    try:
        choose = max if name.endswith("cafile") else min
        expires = choose(expiries(path), default=None)
    except (OSError, ValueError) as error:
        return Check("certificates", "warn", f"{what} cannot be read: {error}", "expected PEM files")
    if expires is None:
        return Check("certificates", "warn", f"{what} has no certificate", "expected PEM files")
    left = expires - now
    if left < timedelta(0):
        return Check("certificates", "fail", f"{what} expired on {expires:%Y-%m-%d}", "renew it: it is reloaded")
    detail = f"{what} expires in {left.days} days, on {expires:%Y-%m-%d}"
    return (
        Check("certificates", "ok", detail)
        if left >= EXPIRES_SOON
        else Check("certificates", "warn", detail, "renew it")
    )


def check_disk(data_dir: Path) -> list[Check]:
    """Whether the data directory is writable, and how much space is free."""
    there = existing_ancestor(data_dir)
    if not os.access(there, os.W_OK):
        return [Check("disk", "fail", f"{there} is not writable", "choose another INFERD_DATA_DIR")]
    free = shutil.disk_usage(there).free
    detail = f"{free / GIB:.1f} GiB free for {data_dir}"
    if free < DISK_BYTES_MIN:
        return [Check("disk", "fail", detail, "free disk space, or choose another INFERD_DATA_DIR")]
    return [
        Check("disk", "ok", detail)
        if free >= DISK_BYTES_GOOD
        else Check("disk", "warn", detail, "free disk space soon")
    ]


def check_memory(settings: Settings, meminfo: Path = Path("/proc/meminfo")) -> list[Check]:
    """Whether the buffers of a worker fit into the available memory."""
    available = available_bytes(meminfo)
    if available is None:
        return [Check("memory", "skip", "this system does not report available memory")]
    wanted = settings.buffer_bytes_max + settings.in_flight_bytes_max + MEMORY_BYTES_GOOD
    detail = f"{available / GIB:.1f} GiB available, a worker may take {wanted / GIB:.1f} GiB and its models"
    if available < wanted:
        remedy = "provide more memory, or lower INFERD_BUFFER_BYTES_MAX and INFERD_IN_FLIGHT_BYTES_MAX"
        return [Check("memory", "warn", detail, remedy)]
    return [Check("memory", "ok", detail)]


def check_kernels(settings: Settings) -> list[Check]:
    """Whether compiled kernels read rows and score LightGBM models."""
    if settings.kernels == "off":
        return [Check("kernels", "skip", "switched off: INFERD_KERNELS is off, LightGBM's library scores all models")]
    if (fault := kernels_fault()) is not None:
        remedy = (
            "install inferd again, with a C compiler or the package ziglang; results are the same without, but slower"
        )
        return [Check("kernels", "warn", f"LightGBM's library scores all models: {fault}", remedy)]
    return [Check("kernels", "ok", "compiled kernels read rows and score LightGBM models")]


def check_embedded_broker(settings: Settings) -> list[Check]:
    """Whether `inferd up` can start its broker."""
    name = "embedded broker"
    if settings.broker:
        return [Check(name, "skip", "not needed: INFERD_BROKER is set")]
    try:
        _, java = find_java()
    except BrokerError as error:
        return [Check(name, "warn", error.message, "or set INFERD_BROKER to another Kafka")]
    lock = read_lock()
    parts = f"Java {java}, Apache Kafka {lock.version}"
    # A damaged jar is detected and replaced when the broker starts.
    if not any(settings.cache_dir.glob(f"kafka-{lock.version}-*/*.jar")):
        return [Check(name, "warn", f"{parts}: not downloaded yet", "the first start downloads 45 MB")]
    return [Check(name, "ok", parts)]


def check_model_formats() -> list[Check]:
    """The versions of the libraries of model formats. A library that is not installed is not a problem."""
    from inferd.streams.inference import describe_formats

    name, found = "model formats", describe_formats(load=True)
    usable = [each for each in found if each.package is None or each.problem is None]
    broken = [each for each in found if each not in usable]
    return [
        Check(name, "ok", ", ".join(map(_library, usable))),
        *(Check(name, "warn", _problem(each), f"correct or uninstall {each.package}") for each in broken),
    ]


def _library(report: FormatReport) -> str:
    package = f" ({report.package})" if report.package is not None else ""
    return f"{report.name} {report.version or 'not installed'}{package}"


def _problem(report: FormatReport) -> str:
    return f"{report.name!r} of {report.package} cannot be used: {report.problem}"


def existing_ancestor(path: Path) -> Path:
    """`path`, or its nearest ancestor that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists() or parent == parent.parent)


def available_bytes(meminfo: Path) -> int | None:
    """Available memory of the machine or of the container, whichever is less; None if unknown."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        machine = int(lines["MemAvailable"].split()[0]) * 1_024
    except (OSError, KeyError, ValueError):
        return None
    container = _container_bytes({name: _read(path) for name, path in (("max", CGROUP_LIMIT), ("use", CGROUP_USE))})
    return machine if container is None else min(machine, container)


def _container_bytes(texts: Mapping[str, str]) -> int | None:
    if not texts["max"].isdigit() or not texts["use"].isdigit():
        return None
    return max(int(texts["max"]) - int(texts["use"]), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

"""The broker's data directory: its lock, its marker, and Kafka's files.

marker.json   format, Kafka version, cluster id         lock    held while a broker runs
data/         Kafka's log directory                   logs/   Kafka's log, Java's output
server.properties, log4j2.properties   written at each start
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from inferd.daemon.broker.errors import DataDirInUseError, DataDirUnusableError
from inferd.daemon.broker.file_lock import move_fd, try_lock
from inferd.streams.private_directory import private_directory

FORMAT = 1
# A broker whose parent was killed takes a moment to end.
LOCK_WAIT_S = 2.0
FIRST_INHERITED_FD = 10
_OWNER = re.compile(r"process [0-9]+, (?P<address>\S+:[0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Marker:
    """Content of `marker.json`."""

    format: int
    kafka_version: str
    cluster_id: str


def running_broker_address(path: Path) -> str | None:
    """Address (`host:port`) of the broker that runs on the data directory `path`; None if no broker holds its lock."""
    try:
        fd = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        owner = None if try_lock(fd) else _OWNER.fullmatch(os.pread(fd, 200, 0).decode(errors="replace"))
    finally:
        os.close(fd)
    return None if owner is None else owner["address"]


def known_cluster_id(path: Path) -> str | None:
    """The cluster id in the marker of the data directory `path`; None if there is none yet."""
    try:
        return str(json.loads((path / "marker.json").read_text(encoding="utf-8"))["cluster_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class DataDir:
    """A data directory, locked by this process from `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock_fd: int | None = None

    @property
    def kafka_dir(self) -> Path:
        """Kafka's `log.dirs`."""
        return self.path / "data"

    @property
    def logs_dir(self) -> Path:
        """Directory of Kafka's and Java's log files."""
        return self.path / "logs"

    @property
    def output_path(self) -> Path:
        """Standard output and error of Java since the last start."""
        return self.logs_dir / "java.log"

    @property
    def properties_path(self) -> Path:
        """Kafka's server properties."""
        return self.path / "server.properties"

    @property
    def logging_path(self) -> Path:
        """Kafka's logging configuration."""
        return self.path / "log4j2.properties"

    @property
    def lock_fds(self) -> tuple[int, ...]:
        """File descriptors that hold the lock. A process that inherits them holds the lock, too."""
        return () if self._lock_fd is None else (self._lock_fd,)

    def acquire(self, kafka_version: str, cluster_id: str | None = None) -> Marker:
        """Lock the directory for `kafka_version`; create it if it is missing, with this cluster id or a new one.

        Raises DataDirInUseError (a broker uses it) and DataDirUnusableError (not inferd's, other version, damaged).
        """
        self._create()
        self._lock()
        try:
            return self._check_marker(kafka_version, cluster_id)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def is_formatted(self, marker: Marker) -> bool:
        """Whether Kafka's log directory exists. Raises DataDirUnusableError if its cluster id is not the marker's."""
        if not self.kafka_dir.exists():
            return False
        properties = self.kafka_dir / "meta.properties"
        found = _read_properties(properties).get("cluster.id") if properties.is_file() else None
        if found != marker.cluster_id:
            raise DataDirUnusableError(
                f"the broker's data in {self.path} is damaged: {properties} names the cluster {found},"
                f" expected {marker.cluster_id}. Restore it from a copy, or choose another data directory"
                " to start with an empty broker; do not delete this one, it holds the only copy of its records"
            )
        return True

    def begin_format(self) -> Path:
        """Empty directory to format. `finish_format` renames it, so that a crash leaves no half-formatted data."""
        unfinished = self._unfinished_dir
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        return unfinished

    def finish_format(self) -> None:
        """Rename the formatted directory to its final name."""
        self._unfinished_dir.rename(self.kafka_dir)

    def write_owner(self, pid: int, address: str) -> None:
        """Write the owner into the lock file, for `running_broker_address` and the message of DataDirInUseError."""
        self._write_lock_text(f"process {pid}, {address}")

    def _write_lock_text(self, text: str) -> None:
        for fd in self.lock_fds:
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)

    @property
    def _unfinished_dir(self) -> Path:
        return self.path / "data.unfinished"

    @property
    def _marker_path(self) -> Path:
        return self.path / "marker.json"

    def _create(self) -> None:
        try:
            private_directory(self.path)
            entries = {entry.name for entry in self.path.iterdir()}
        except OSError as error:
            raise DataDirUnusableError(
                f"the data directory {self.path} cannot be used: {error.strerror}. Choose another"
            ) from error
        if entries and "marker.json" not in entries and entries != {"lock"}:
            raise DataDirUnusableError(
                f"{self.path} contains files of something else ({min(entries)}, …), not of the embedded broker."
                " Choose an empty or new directory"
            )

    def _lock(self) -> None:
        try:
            opened = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DataDirUnusableError(
                f"the data directory {self.path} cannot be written: {error.strerror}. Choose another"
            ) from error
        # The broker inherits the lock through a shell, which uses the low descriptors itself.
        self._lock_fd = move_fd(opened, least=FIRST_INHERITED_FD)
        deadline = time.monotonic() + LOCK_WAIT_S
        while not try_lock(self._lock_fd):
            if time.monotonic() >= deadline:
                owner = os.pread(self._lock_fd, 200, 0).decode(errors="replace") or "unknown"
                self.release()
                raise DataDirInUseError(
                    f"another broker is running on the data directory {self.path} ({owner})."
                    " Use that one, stop it, or choose another data directory"
                )
            time.sleep(0.05)
        self._write_lock_text("")

    def _check_marker(self, kafka_version: str, cluster_id: str | None) -> Marker:
        found = self._read_marker() if self._marker_path.exists() else None
        if found is None:
            marker = Marker(FORMAT, kafka_version, cluster_id or new_cluster_id())
        else:
            self._check_version(found, kafka_version)
            self._check_cluster(found, cluster_id)
            marker = Marker(FORMAT, kafka_version, found.cluster_id)
        if marker != found:
            self._write_marker(marker)
        return marker

    def _read_marker(self) -> Marker:
        try:
            return Marker(**json.loads(self._marker_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataDirUnusableError(
                f"{self._marker_path} is damaged: {error}."
                " Restore it from a copy, or choose another data directory to start with an empty broker;"
                " do not delete this one, it holds the only copy of its records"
            ) from error

    def _write_marker(self, marker: Marker) -> None:
        unfinished = self._marker_path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(marker), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(self._marker_path)

    def _check_cluster(self, found: Marker, cluster_id: str | None) -> None:
        if cluster_id not in (None, found.cluster_id):
            raise DataDirUnusableError(
                f"the data in {self.path} is of the cluster {found.cluster_id}, and the node before it of {cluster_id}."
                " Choose another data directory to start with an empty cluster"
            )

    def _check_version(self, found: Marker, kafka_version: str) -> None:
        if found.format == FORMAT and _can_read(found.kafka_version, kafka_version):
            return
        raise DataDirUnusableError(
            f"the data in {self.path} was written by Kafka {found.kafka_version} (layout {found.format}),"
            f" and this is Kafka {kafka_version} (layout {FORMAT}), which cannot read it."
            " Use the inferd that wrote it, or choose another data directory to start with an empty broker;"
            " do not delete this one, it holds the only copy of its records"
        )


def _can_read(written_by: str, reader: str) -> bool:
    """Kafka reads data of earlier versions with the same major version; more is not guaranteed."""
    try:
        written, reads = ([int(part) for part in version.split(".")] for version in (written_by, reader))
    except ValueError:
        return False
    return written[0] == reads[0] and written <= reads


def new_cluster_id() -> str:
    """A new id."""
    # Kafka's format: 16 random bytes in URL-safe base64. A leading dash would be parsed as an option.
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()).startswith("-"):
        pass
    return text


def _read_properties(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}

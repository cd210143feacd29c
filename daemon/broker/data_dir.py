"""The broker's data directory: who uses it, whether it is ours, and which version wrote it.

marker.json   format, Kafka's version, cluster id       lock    held while a broker lives
data/         Kafka's own directory of partitions       logs/   Kafka's log, Java's output
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
# A broker whose parent was killed goes at once, but not in no time.
LOCK_WAIT_S = 2.0
FIRST_INHERITED_FD = 10
_OWNER = re.compile(r"process [0-9]+, (?P<address>\S+:[0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Marker:
    """What `marker.json` says."""

    format: int
    kafka_version: str
    cluster_id: str


def living_broker(path: Path) -> str | None:
    """The address of the broker that runs on the data directory `path`; None if none does, whatever was left behind."""
    try:
        fd = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        owner = None if try_lock(fd) else _OWNER.fullmatch(os.pread(fd, 200, 0).decode(errors="replace"))
    finally:
        os.close(fd)
    return None if owner is None else owner["address"]


class DataDir:
    """A data directory that this process holds from `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock_fd: int | None = None

    @property
    def kafka_dir(self) -> Path:
        """Where Kafka keeps its partitions."""
        return self.path / "data"

    @property
    def logs_dir(self) -> Path:
        """Where Kafka and Java write what they have to say."""
        return self.path / "logs"

    @property
    def output_path(self) -> Path:
        """What Java itself printed since the last start."""
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
        """Descriptors that hold the lock: a process that inherits them holds it too."""
        return () if self._lock_fd is None else (self._lock_fd,)

    def acquire(self, kafka_version: str) -> Marker:
        """Lock the directory for `kafka_version`, making it where it is missing.

        Raises DataDirInUseError (a broker lives on it) and DataDirUnusableError (not ours, other version, damaged).
        """
        self._create()
        self._lock()
        try:
            return self._check_marker(kafka_version)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others use the directory."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def is_formatted(self, marker: Marker) -> bool:
        """Whether Kafka's log directory is there. Raises DataDirUnusableError when it is there but not whole."""
        if not self.kafka_dir.exists():
            return False
        properties = self.kafka_dir / "meta.properties"
        found = _read_properties(properties).get("cluster.id") if properties.is_file() else None
        if found != marker.cluster_id:
            raise DataDirUnusableError(
                f"the broker's data in {self.path} is damaged: {properties} names the cluster {found},"
                f" expected {marker.cluster_id}. Restore it from a copy, or choose another data directory"
                " to start with an empty broker; do not delete this one, its records are nowhere else"
            )
        return True

    def begin_format(self) -> Path:
        """An empty directory to format; `finish_format` puts it in place, so that a crash leaves nothing half done."""
        unfinished = self._unfinished_dir
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        return unfinished

    def finish_format(self) -> None:
        """Put what was formatted in place."""
        self._unfinished_dir.rename(self.kafka_dir)

    def note_owner(self, pid: int, address: str) -> None:
        """Write who holds the directory, for `living_broker` and for the message to whoever else wants it."""
        self._write_owner(f"process {pid}, {address}")

    def _write_owner(self, text: str) -> None:
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
                f"{self.path} holds other data ({min(entries)}, …), none of the embedded broker."
                " Choose an empty or new directory as data directory"
            )

    def _lock(self) -> None:
        try:
            opened = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DataDirUnusableError(
                f"the data directory {self.path} cannot be written: {error.strerror}. Choose another"
            ) from error
        # The broker inherits the lock, and the shell between us and it uses the low numbers.
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
        self._write_owner("")

    def _check_marker(self, kafka_version: str) -> Marker:
        found = self._read_marker() if self._marker_path.exists() else None
        if found is None:
            marker = Marker(FORMAT, kafka_version, _new_cluster_id())
        else:
            self._check_version(found, kafka_version)
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
                " do not delete this one, its records are nowhere else"
            ) from error

    def _write_marker(self, marker: Marker) -> None:
        unfinished = self._marker_path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(marker), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(self._marker_path)

    def _check_version(self, found: Marker, kafka_version: str) -> None:
        if found.format == FORMAT and _can_read(found.kafka_version, kafka_version):
            return
        raise DataDirUnusableError(
            f"the data in {self.path} was written by Kafka {found.kafka_version} (layout {found.format}),"
            f" and this is Kafka {kafka_version} (layout {FORMAT}), which cannot read it."
            " Use the inferd that wrote it, or choose another data directory to start with an empty broker;"
            " do not delete this one, its records are nowhere else"
        )


def _can_read(written_by: str, reader: str) -> bool:
    """Kafka reads what an earlier version of the same major number wrote, and promises no more."""
    try:
        written, reads = ([int(part) for part in version.split(".")] for version in (written_by, reader))
    except ValueError:
        return False
    return written[0] == reads[0] and written <= reads


def _new_cluster_id() -> str:
    # Kafka's own form: 16 random bytes in URL-safe base64; one that starts with a dash reads as an option.
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()).startswith("-"):
        pass
    return text


def _read_properties(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}

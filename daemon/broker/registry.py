"""The embedded schema registry: Apicurio Registry, which speaks the API of Confluent's, as a child process."""

from __future__ import annotations

import contextlib
import http.client
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inferd.daemon.broker.errors import BrokerError, BrokerSettingError, PortTakenError
from inferd.daemon.broker.jars import APICURIO, JarLock, ensure_jars, read_lock
from inferd.daemon.broker.jvm import WatchedProcess, find_java
from inferd.daemon.broker.log_excerpt import read_from
from inferd.daemon.broker.probe import free_port, is_port_free
from inferd.daemon.broker.server import EmbeddedServer
from inferd.daemon.broker.settings import default_cache_dir, default_data_dir
from inferd.daemon.loopback import is_loopback
from inferd.streams.private_directory import private_directory

API = "/apis/ccompat/v7"
"""Path of the API that is compatible with Confluent Schema Registry."""
ANSWERS_WITHIN_S = 5.0
RESERVED_CHARACTERS = ";\\\"'"  # they end the path in the address of the database

logger = logging.getLogger(__name__)


def default_registry_dir() -> Path:
    """`$INFERD_DATA_DIR/registry`, else beside the default directory of the broker."""
    return default_data_dir().with_name("registry")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedRegistrySettings:
    """How the embedded registry runs. `port` 0 chooses a free port. Raises BrokerSettingError."""

    data_dir: Path = field(default_factory=default_registry_dir)
    cache_dir: Path = field(default_factory=default_cache_dir)
    host: str = "127.0.0.1"
    port: int = 8081
    heap_mb: int = 256
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if not is_loopback(self.host):
            raise BrokerSettingError(
                f"host = {self.host!r} is not allowed: it must be a loopback address, since the registry has no"
                " authentication"
            )
        path = str(self.data_dir.absolute())
        if not path.isprintable() or any(character in path for character in RESERVED_CHARACTERS):
            raise BrokerSettingError(
                f"data_dir = {path!r} is not allowed: it must be a path without {' '.join(RESERVED_CHARACTERS)} and"
                " control characters"
            )


class EmbeddedRegistry(EmbeddedServer):
    """Start and stop one schema registry; also a context manager. Synchronous, like `EmbeddedKafka`.

    Not thread-safe. A restart keeps the schemas and the port. The registry never outlives this process.
    """

    what, poll_s = "the registry", 0.1

    def __init__(
        self,
        settings: EmbeddedRegistrySettings | None = None,
        report: Callable[[str], None] = logger.info,
        lock: JarLock | None = None,
    ) -> None:
        self.settings = settings or EmbeddedRegistrySettings()
        self._report = report
        self._lock = lock or read_lock(APICURIO)
        self._port = self.settings.port
        super().__init__(self.settings.start_timeout_s, self.settings.stop_timeout_s)

    @property
    def url(self) -> str:
        """Base address of the API, for `INFERD_SCHEMA_REGISTRY_URL`."""
        host = self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}{API}"

    @property
    def version(self) -> str:
        """Version of Apicurio Registry."""
        return self._lock.version

    @property
    def log_path(self) -> Path:
        """What the registry has printed since its last start."""
        return self.settings.data_dir / "registry.log"

    def start(self) -> None:
        """Start the registry and return once it answers. Raises BrokerError."""
        if self.running:
            return
        java, _ = find_java()
        runner = unpacked(self._lock, ensure_jars(self._lock, self.settings.cache_dir, self._report)[0])
        private_directory(self.settings.data_dir)
        if self._port == 0:
            self._port = free_port(self.settings.host)
        elif not is_port_free(self.settings.host, self._port):
            raise self._port_taken()
        self._process = WatchedProcess([str(java), *self._options(), "-jar", str(runner)], self.log_path, ())
        try:
            self._wait_until(self._answers, self._process, self._failed)
        except BaseException:
            self.kill()
            raise

    def _options(self) -> list[str]:
        # Without a delay, so that no schema is lost if the process is killed: its id is in records already.
        database = self.settings.data_dir.absolute() / "schemas"
        return [
            f"-Xmx{self.settings.heap_mb}m",
            "-XX:TieredStopAtLevel=1",  # it starts faster, and has little to do
            f"-Dquarkus.http.host={self.settings.host}",
            f"-Dquarkus.http.port={self._port}",
            f"-Dapicurio.datasource.url=jdbc:h2:file:{database};WRITE_DELAY=0",
            "-Dquarkus.http.access-log.enabled=false",
            "-Dquarkus.log.level=WARN",
        ]

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(self.settings.host, self._port, timeout=ANSWERS_WITHIN_S)
        try:
            connection.request("GET", f"{API}/subjects")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _failed(self, code: int | None) -> BrokerError:
        if code is not None and not is_port_free(self.settings.host, self._port):
            return self._port_taken()
        return self._start_failed(code, read_from(self.log_path, 0))

    def _port_taken(self) -> PortTakenError:
        return PortTakenError(
            f"port {self._port} on {self.settings.host} is in use by another process. Stop it, choose another port with"
            " INFERD_REGISTRY_PORT, or, if it is a schema registry that you want to use, set INFERD_SCHEMA_REGISTRY_URL"
        )


def unpacked(lock: JarLock, archive: Path) -> Path:
    """The jar to run, of the archive's files, which are unpacked beside it once. Safe for several processes at once."""
    directory = archive.with_suffix("")
    if not directory.is_dir():
        staging = Path(tempfile.mkdtemp(prefix="unpack-", dir=archive.parent))
        try:
            with zipfile.ZipFile(archive) as files:
                files.extractall(staging)
            with contextlib.suppress(OSError):  # another process was faster
                staging.rename(directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return directory / f"apicurio-registry-app-{lock.version}-runner.jar"

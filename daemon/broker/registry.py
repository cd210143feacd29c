"""The embedded schema registry: Apicurio Registry, which speaks the API of Confluent's, as a child process."""

from __future__ import annotations

import contextlib
import http.client
import logging
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from inferd.daemon.broker.errors import BrokerError, BrokerSettingError, BrokerStartError, PortTakenError
from inferd.daemon.broker.jars import APICURIO, JarLock, ensure_jars, read_lock
from inferd.daemon.broker.jvm import WatchedProcess, find_java
from inferd.daemon.broker.log_excerpt import likely_cause, log_tail_of, read_from
from inferd.daemon.broker.probe import free_port, is_port_free
from inferd.daemon.broker.settings import default_cache_dir, default_data_dir
from inferd.daemon.loopback import is_loopback
from inferd.streams.private_directory import private_directory

API = "/apis/ccompat/v7"
"""Path of the API that is compatible with Confluent Schema Registry."""
POLL_S = 0.1
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


class EmbeddedRegistry:
    """Start and stop one schema registry; also a context manager. Synchronous, like `EmbeddedKafka`.

    Not thread-safe. A restart keeps the schemas and the port. The registry never outlives this process.
    """

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
        self._process: WatchedProcess | None = None

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

    @property
    def running(self) -> bool:
        """Whether the registry's process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id of the registry; None if it is not running."""
        return self._process.pid if self._process is not None and self.running else None

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
            self._wait_until_answering(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the registry: SIGTERM, then SIGKILL after `stop_timeout_s`."""
        if self._process is not None and self.running:
            self._process.terminate()
            if self._process.wait(self.settings.stop_timeout_s) is None:
                logger.warning("the registry did not stop within %.0f s, killing it", self.settings.stop_timeout_s)
                self._process.kill()
        self._process = None

    def kill(self) -> None:
        """Kill the registry (SIGKILL), as a crash does. The schemas stay."""
        if self._process is not None:
            self._process.kill()
        self._process = None

    def wait(self, timeout_s: float) -> int | None:
        """Exit code if the registry ends within `timeout_s`, else None. Raises BrokerError if it was never started."""
        if self._process is None:
            raise BrokerError("the registry was not started: call start() first")
        return self._process.wait(timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

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

    def _wait_until_answering(self, process: WatchedProcess) -> None:
        deadline = time.monotonic() + self.settings.start_timeout_s
        while not self._answers():
            code = process.poll()
            if code is not None or time.monotonic() >= deadline:
                process.kill()
                raise self._start_failed(code)
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(self.settings.host, self._port, timeout=ANSWERS_WITHIN_S)
        try:
            connection.request("GET", f"{API}/subjects")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _start_failed(self, code: int | None) -> BrokerError:
        output = read_from(self.log_path, 0)
        if code is not None and not is_port_free(self.settings.host, self._port):
            return self._port_taken()
        if code is None:
            what = f"did not answer within {self.settings.start_timeout_s:g} s"
        else:
            what = f"ended with exit code {code} while it was starting"
        return BrokerStartError(
            f"the registry {what}: {likely_cause(output)}; its log is {self.log_path}", log_tail_of(output), code
        )

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

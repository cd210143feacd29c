"""The embedded broker: an Apache Kafka node as a child process."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

from inferd.daemon.broker.data_dir import DataDir, Marker
from inferd.daemon.broker.errors import BrokerStartError, PortTakenError
from inferd.daemon.broker.jars import JarLock, ensure_jars, read_lock
from inferd.daemon.broker.jvm import (
    Java,
    WatchedProcess,
    find_java,
    java_environment,
)
from inferd.daemon.broker.log_excerpt import likely_cause, log_tail_of, read_from
from inferd.daemon.broker.probe import cluster_id_at, free_port, is_port_free
from inferd.daemon.broker.server import EmbeddedServer
from inferd.daemon.broker.server_config import (
    java_options,
    render_logging,
    render_properties,
    server_properties,
)
from inferd.daemon.broker.settings import EmbeddedKafkaSettings
from inferd.daemon.broker.startup_cache import StartupCache

START_TRIES = 3
STARTUP_CACHE_WRITE_S = 60.0
PORT_CLASH = "Address already in use"

logger = logging.getLogger(__name__)


class EmbeddedKafka(EmbeddedServer):
    """Start and stop one Kafka broker; also a context manager. Synchronous: use a thread in async code.

    Not thread-safe. A restart keeps the data and the port. The broker never outlives this process. `report` receives
    one line for each slow step; by default it is logged.
    """

    what, poll_s = "the broker", 0.05

    def __init__(
        self,
        settings: EmbeddedKafkaSettings | None = None,
        report: Callable[[str], None] = logger.info,
        lock: JarLock | None = None,
    ) -> None:
        self.settings = settings or EmbeddedKafkaSettings()
        self._report = report
        self._lock = lock or read_lock()
        self._data_dir = DataDir(self.settings.data_dir)
        self._port = self.settings.port
        super().__init__(self.settings.start_timeout_s, self.settings.stop_timeout_s)
        self._startup_cache: StartupCache | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients, `host:port`."""
        host = self.settings.host
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    @property
    def log_path(self) -> Path:
        """Kafka's own log file."""
        return self._data_dir.logs_dir / "kafka.log"

    @property
    def version(self) -> str:
        """Version of Apache Kafka."""
        return self._lock.version

    def start(self) -> None:
        """Start the broker and return once it answers. Raises BrokerError."""
        if self.running:
            return
        self._reset()
        java, node = self.prepare(), self.settings.node
        marker = self._data_dir.acquire(self.version, None if node is None else node.cluster_id)
        try:
            self._start_on(java, marker)
        except BaseException:
            self.kill()
            raise

    def prepare(self) -> Java:
        """Java with the jars of Kafka, which are downloaded if they are missing. Raises BrokerError."""
        executable, version = find_java()
        return Java(executable, version, ensure_jars(self._lock, self.settings.cache_dir, self._report))

    def _terminate(self, process: WatchedProcess, timeout_s: float) -> bool:
        cache = self._startup_cache
        if cache is not None and cache.is_recording:
            self._report("writing the broker's start-up cache (once, takes a few seconds)")
            timeout_s += STARTUP_CACHE_WRITE_S
        stopped = super()._terminate(process, timeout_s)
        if stopped and cache is not None:
            cache.keep()
        return stopped

    def _start_on(self, java: Java, marker: Marker) -> None:
        self._startup_cache = StartupCache(java) if self.settings.startup_cache else None
        self._data_dir.logs_dir.mkdir(exist_ok=True)
        logging_text = render_logging(self.settings.log_level, self.log_path)
        self._data_dir.logging_path.write_text(logging_text, encoding="utf-8")
        self._choose_port()
        for tries_left in reversed(range(START_TRIES)):
            try:
                if not self._data_dir.is_formatted(marker):
                    self._format(java, marker)
                self._run(java, marker)
                break
            except BrokerStartError as error:
                if not tries_left or not self._is_retryable(error):
                    raise

    def _choose_port(self) -> None:
        if self._port == 0:
            self._port = free_port(self.settings.host)
        elif not is_port_free(self.settings.host, self._port):
            raise self._port_taken()

    def _is_retryable(self, error: BrokerStartError) -> bool:
        if error.is_crash and self._startup_cache is not None and self._startup_cache.remove():
            logger.warning("Java crashed while it was starting: removed the start-up cache, which may be damaged")
            return True
        if PORT_CLASH not in error.message:
            return False
        if not is_port_free(self.settings.host, self._port):
            raise self._port_taken() from error
        return True  # the controller's port was taken; the next try chooses another

    def _port_taken(self) -> PortTakenError:
        return PortTakenError(
            f"port {self._port} on {self.settings.host} is in use by another process."
            " Stop it, choose another port, or, if it is a Kafka that you want to use, set"
            f" INFERD_BROKER={self.bootstrap_servers}"
        )

    def _format(self, java: Java, marker: Marker) -> None:
        config = self._write_server_properties(self._data_dir.begin_format())
        arguments = ["format", "--cluster-id", marker.cluster_id, "--config", str(config)]
        arguments += self._format_options()
        options = self._java_options() + (self._startup_cache.options_to_read() if self._startup_cache else [])
        command = java.command("kafka.tools.StorageTool", arguments, [*options, "-XX:TieredStopAtLevel=1"])
        timeout_s = self.settings.start_timeout_s
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, encoding="utf-8", timeout=timeout_s, env=java_environment()
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerStartError(f"formatting {self._data_dir.path} took longer than {timeout_s:g} s") from error
        if done.returncode != 0:
            output = done.stdout + done.stderr
            raise BrokerStartError(
                f"formatting {self._data_dir.path} failed: {likely_cause(output)}",
                log_tail_of(output),
                done.returncode,
            )
        self._data_dir.finish_format()

    def _format_options(self) -> list[str]:
        """Further arguments of Kafka's storage tool; tests add users."""
        return []

    def _run(self, java: Java, marker: Marker) -> None:
        config = self._write_server_properties(self._data_dir.kafka_dir)
        command = java.command("kafka.Kafka", [str(config)], self._java_options() + self._startup_cache_options())
        log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        self._process = WatchedProcess(command, self._data_dir.output_path, self._data_dir.lock_fds)
        self._data_dir.write_owner(self._process.pid, self.bootstrap_servers)
        self._wait_until(
            lambda: cluster_id_at(self.settings.host, self._port) == marker.cluster_id,
            self._process,
            lambda code: self._start_failed(
                code, read_from(self.log_path, log_start) + read_from(self._data_dir.output_path, 0)
            ),
        )

    def _write_server_properties(self, kafka_dir: Path) -> Path:
        node = self.settings.node
        controller_port = free_port(self.settings.host) if node is None else node.controllers[node.number]
        properties = server_properties(
            self.settings, port=self._port, controller_port=controller_port, kafka_dir=kafka_dir
        )
        path = self._data_dir.properties_path
        path.write_text(render_properties(properties), encoding="utf-8")
        return path

    def _java_options(self) -> list[str]:
        return java_options(self.settings.heap_mb, self._data_dir.logging_path, self._data_dir.logs_dir)

    def _startup_cache_options(self) -> list[str]:
        cache = self._startup_cache
        return [] if cache is None else cache.options_to_read() or cache.options_to_record()

    def _reset(self) -> None:
        if self._startup_cache is not None:
            self._startup_cache.discard()
        self._startup_cache = None
        super()._reset()
        self._data_dir.release()

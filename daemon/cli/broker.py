"""`inferd broker`: runs the embedded Kafka broker in the foreground."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import click

from inferd.daemon.broker import (
    NODES_MAX,
    BrokerError,
    BrokerSettingError,
    BrokerStartError,
    EmbeddedCluster,
    EmbeddedKafka,
    EmbeddedKafkaSettings,
)
from inferd.daemon.cli.output import report
from inferd.daemon.settings import Settings

WATCH_S = 0.5
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _StopRequestedError(BaseException):
    """A stop signal during the start of the broker; not an Exception, so that no `except Exception` swallows it."""


class ForegroundSignals:
    """SIGINT, SIGTERM and SIGHUP interrupt the start of a broker, and stop a running one.

    The handler writes a byte to a pipe. It must not use `threading.Event`: a signal handler can run inside
    `Event.wait`, and `Event.set` would then deadlock on its lock.
    """

    def __init__(self) -> None:
        self._interrupts = True
        self._requested = False
        self._wake_up, self._woken = -1, -1

    def wait(self, timeout_s: float) -> bool:
        """Waits up to `timeout_s` for a stop signal; returns whether one was received."""
        return bool(select.select([self._woken], [], [], timeout_s)[0])

    def defer(self) -> None:
        """From now on signals only end `wait`; they raise nothing."""
        self._interrupts = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles the signals within the block."""
        self._woken, self._wake_up = os.pipe()
        before = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        try:
            yield
        except _StopRequestedError:
            pass
        finally:
            for number, disposition in before.items():
                signal.signal(number, disposition)
            os.close(self._wake_up)
            os.close(self._woken)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        if not self._requested:
            self._requested = True
            os.write(self._wake_up, b"s")
        if self._interrupts:
            self._interrupts = False
            raise _StopRequestedError


@click.command(epilog="Example: inferd broker --port 9092 --data-dir ./kafka-data")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Port for clients; 0 chooses a free one.  [default: INFERD_BROKER_PORT, or 9092]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Directory of its data.  [default: kafka in INFERD_DATA_DIR, or in ~/.local/share/inferd]",
)
@click.option(
    "--heap-mb", type=click.IntRange(128), help="Size of its Java heap.  [default: INFERD_BROKER_HEAP_MB, or 512]"
)
@click.option(
    "--partitions",
    type=click.IntRange(1),
    help="Partitions of topics that are created without a number.  [default: INFERD_TOPIC_PARTITIONS]",
)
@click.option(
    "--nodes", type=click.IntRange(1, NODES_MAX), default=1, show_default=True,
    help="Run a cluster of so many brokers, on this port and those after it; topics get up to three replicas.",
)  # fmt: skip
def broker(
    port: int | None, host: str, data_dir: Path | None, heap_mb: int | None, partitions: int | None, nodes: int
) -> None:
    """Run an Apache Kafka broker on this machine until Ctrl-C. Its data is kept.

    It needs neither Java nor Docker: Java is part of the installation, Kafka (45 MB) is downloaded at the first start.
    """
    flags = {"broker_port": port, "broker_heap_mb": heap_mb, "topic_partitions": partitions}
    settings = Settings.from_environment(
        flags={name: None if value is None else str(value) for name, value in flags.items()}
    )
    kafka_settings = _with_location(settings.embedded_kafka(), host, data_dir)
    signals = ForegroundSignals()
    with signals.handled():
        if nodes == 1:
            run_until_stopped(EmbeddedKafka(kafka_settings, report=report), signals)
        else:
            run_cluster_until_stopped(_cluster(kafka_settings, nodes), signals)
    report("stopped")


def run_until_stopped(kafka: EmbeddedKafka, signals: ForegroundSignals) -> None:
    """Runs the broker until a stop signal. Raises `BrokerError` if it cannot start, or exits unexpectedly."""
    report(f"starting Apache Kafka {kafka.version}")
    with _log_of_failed_start(), kafka:
        signals.defer()
        click.echo(f"listening on {kafka.bootstrap_servers} (process {kafka.pid})")
        click.echo(f"data in {kafka.settings.data_dir}")
        click.echo(f"log in {kafka.log_path}")
        report("press Ctrl-C to stop; the data is kept")
        while not signals.wait(WATCH_S):
            code = kafka.wait(0)
            if code is not None:
                raise BrokerError(f"the broker exited unexpectedly with code {code}; see its log {kafka.log_path}")
        report("stopping")


def run_cluster_until_stopped(cluster: EmbeddedCluster, signals: ForegroundSignals) -> None:
    """Runs the nodes until a stop signal. A node that ends is reported, and the others go on; raises `BrokerError` if
    they cannot start."""
    report(f"starting {len(cluster.nodes)} nodes of Apache Kafka {cluster.version}")
    with _log_of_failed_start(), cluster:
        signals.defer()
        click.echo(f"listening on {cluster.bootstrap_servers}")
        for number, node in enumerate(cluster.nodes, 1):
            click.echo(f"node {number}: {node.bootstrap_servers} (process {node.pid}), log in {node.log_path}")
        click.echo(f"data in {cluster.settings.data_dir}")
        report(f"for three replicas of each topic, set INFERD_TOPIC_REPLICATION={min(3, len(cluster.nodes))}")
        report("press Ctrl-C to stop; the data is kept")
        ended: set[int] = set()
        while not signals.wait(WATCH_S):
            for number, node in enumerate(cluster.nodes, 1):
                if number not in ended and (code := node.wait(0)) is not None:
                    ended.add(number)
                    report(f"node {number} ended with code {code}; its log is {node.log_path}")
        report("stopping")


def _cluster(settings: EmbeddedKafkaSettings, nodes: int) -> EmbeddedCluster:
    try:
        return EmbeddedCluster(settings, nodes, report)
    except BrokerSettingError as error:
        raise click.UsageError(error.message) from error


def _with_location(settings: EmbeddedKafkaSettings, host: str, data_dir: Path | None) -> EmbeddedKafkaSettings:
    try:
        return replace(settings, host=host, data_dir=data_dir or settings.data_dir)
    except BrokerSettingError as error:
        raise click.UsageError(error.message) from error


@contextmanager
def _log_of_failed_start() -> Iterator[None]:
    """Prints the end of the broker's log if it cannot start."""
    try:
        yield
    except BrokerStartError as error:
        for line in error.log_tail.splitlines():
            report(line)
        raise

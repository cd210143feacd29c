"""`inferd broker`: the embedded Kafka in the foreground."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from daemon.broker import BrokerError, BrokerSettingError, BrokerStartError, EmbeddedKafka, EmbeddedKafkaSettings
from daemon.broker.settings import default_data_dir

WATCH_S = 0.5
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_FAILED, EXIT_WRONG_SETTING = 1, 2


class _StopRequestedError(BaseException):
    """A stop signal came while the broker was starting; not an Exception, so that nothing on the way keeps it."""


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP: they interrupt a start, and ask a running broker to stop."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._interrupts = True

    def wait(self, timeout_s: float) -> bool:
        """Whether a stop was asked for, at the latest `timeout_s` from now."""
        return self._requested.wait(timeout_s)

    def let_finish(self) -> None:
        """From here on signals interrupt nothing: they only end `wait`."""
        self._interrupts = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Receive the signals, until the end of the block."""
        before = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        try:
            yield
        except _StopRequestedError:
            pass
        finally:
            for number, disposition in before.items():
                signal.signal(number, disposition)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self._requested.set()
        if self._interrupts:
            self._interrupts = False
            raise _StopRequestedError


@click.command(epilog="Example: inferd broker --port 9092 --data-dir ./kafka-data")
@click.option("--port", type=int, default=9092, show_default=True, help="Port for clients; 0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=default_data_dir,
    show_default="kafka in INFERD_DATA_DIR or ~/.local/share/inferd",
    help="Where topics are kept, across restarts.",
)
@click.option("--heap-mb", type=int, default=512, show_default=True, help="Java heap of the broker.")
@click.option("--partitions", type=int, default=4, show_default=True, help="Partitions of a topic that asks for none.")
def broker(port: int, host: str, data_dir: Path, heap_mb: int, partitions: int) -> None:
    """Run an Apache Kafka broker on this machine, until Ctrl-C.

    It needs no Java and no Docker: Java came with the installation, Kafka (45 MB) comes at the first start.
    """
    signals = StopSignals()
    try:
        settings = EmbeddedKafkaSettings(
            data_dir=data_dir, host=host, port=port, heap_mb=heap_mb, partitions_default=partitions
        )
        with signals.listening():
            run_until_stopped(EmbeddedKafka(settings, report=click.echo), signals)
        click.echo("stopped")
    except BrokerError as error:
        if isinstance(error, BrokerStartError) and error.log_tail:
            click.echo(error.log_tail, err=True)
        click.echo(f"inferd broker: {error.message}", err=True)
        sys.exit(EXIT_WRONG_SETTING if isinstance(error, BrokerSettingError) else EXIT_FAILED)


def run_until_stopped(kafka: EmbeddedKafka, signals: StopSignals) -> None:
    """Run the broker until a stop signal. Raises BrokerError if it cannot start, or ends by itself."""
    click.echo(f"starting Apache Kafka {kafka.version}")
    with kafka:
        signals.let_finish()
        click.echo(f"listening on {kafka.bootstrap_servers} (process {kafka.pid})")
        click.echo(f"data in {kafka.settings.data_dir}")
        click.echo(f"log in {kafka.log_path}")
        click.echo("Ctrl-C stops it; its data stays")
        while not signals.wait(WATCH_S):
            code = kafka.wait(0)
            if code is not None:
                raise BrokerError(f"the broker ended by itself with exit code {code}; its log is {kafka.log_path}")
        click.echo("stopping")


if __name__ == "__main__":
    broker()

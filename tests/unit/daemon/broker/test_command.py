"""`inferd broker`: the settings it passes and the output it writes, with a fake broker."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest
from click.testing import CliRunner, Result

from inferd.daemon.broker import BrokerStartError, EmbeddedKafka, EmbeddedKafkaSettings
from inferd.daemon.cli import main
from inferd.daemon.cli.broker import ForegroundSignals


class Started(Exception):  # noqa: N818  (it ends the command where the broker would start)
    """The broker was started."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[EmbeddedKafkaSettings]:
    """Settings of the brokers that were started."""
    started: list[EmbeddedKafkaSettings] = []

    def start(kafka: EmbeddedKafka) -> None:
        started.append(kafka.settings)
        raise Started

    monkeypatch.setattr(EmbeddedKafka, "start", start)
    return started


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, ["broker", *arguments], env=environ)


def test_flags_override_the_environment(asked: list[EmbeddedKafkaSettings], tmp_path: Path) -> None:
    run("--port", "1", "--data-dir", str(tmp_path), INFERD_BROKER_PORT="2", INFERD_BROKER_HEAP_MB="256")

    (settings,) = asked
    assert (settings.port, settings.heap_mb, settings.data_dir) == (1, 256, tmp_path)


def test_the_environment_sets_directories(asked: list[EmbeddedKafkaSettings]) -> None:
    run(INFERD_DATA_DIR="/d", INFERD_CACHE_DIR="/c", INFERD_TOPIC_PARTITIONS="3")

    (settings,) = asked
    assert (settings.data_dir, settings.cache_dir, settings.partitions_default) == (Path("/d/kafka"), Path("/c"), 3)


def test_a_failed_start_prints_the_log_and_one_error_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(kafka: EmbeddedKafka) -> None:
        raise BrokerStartError("the broker ended", "first\nsecond")

    monkeypatch.setattr(EmbeddedKafka, "start", start)
    result = run()

    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:] == ["first", "second", "inferd: the broker ended"]


def test_help_shows_an_example() -> None:
    assert "Example: inferd broker --port" in run("--help").output


def test_a_signal_at_any_moment_ends_a_wait() -> None:
    moments = 0
    while comes_at(moments):
        moments += 1
    assert moments >= 3


def comes_at(moment: int) -> bool:
    """Whether `wait` executes this many steps; if so, a signal at that step must end this wait or the next one."""
    signals = ForegroundSignals()
    seen = 0
    ended: list[bool] = []

    def interrupt(_frame: FrameType, _event: str, _argument: object) -> object:
        nonlocal seen
        if seen == moment:
            handler = signal.getsignal(signal.SIGTERM)
            assert callable(handler)
            handler(signal.SIGTERM, None)
        seen += 1
        return interrupt

    def wait() -> None:
        sys.settrace(interrupt)  # type: ignore[arg-type]  # a function that returns itself has no finite type
        try:
            ended.append(signals.wait(0.0))
        finally:
            sys.settrace(None)
        ended.append(signals.wait(0.0))

    with signals.handled():
        signals.defer()
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        waiting.join(30)
        assert not waiting.is_alive(), "deadlock between the signal handler and `wait`"
    arrived = seen > moment
    assert ended[-1] == arrived
    return arrived

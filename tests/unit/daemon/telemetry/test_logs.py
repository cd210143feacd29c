"""Logs: format, escaping, libraries, and limits on repeated messages."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from aiokafka.errors import NotEnoughReplicasError, NotLeaderForPartitionError, UnknownMemberIdError
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.printable import printable
from inferd.daemon.settings.settings import LogFormat, LogLevel
from inferd.daemon.telemetry import logs
from inferd.daemon.telemetry.log_repeats import KEYS_MAX, MessageKey, RepeatLimiter

KEY = MessageKey("lane", "warning", "produce_failed", "topic")


class Written:
    """Log output, with a clock controlled by the test."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""
        self.now = 0.0
        self.log_counts: Callable[[], None] = lambda: None

    def configure(self, log_format: LogFormat = "json", level: LogLevel = "info") -> None:
        self.log_counts = logs.configure_logs(log_format, level, "worker-7", clock=lambda: self.now)

    @property
    def text(self) -> str:
        out, err = self._capsys.readouterr()
        assert out == ""
        self._text += err
        return self._text

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    root = logging.getLogger()
    before = root.handlers, root.level
    found = Written(capsys)
    found.configure()
    yield found
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers, root.level = before


def test_an_event_is_one_json_line(written: Written) -> None:
    structlog.get_logger("inferd.streams.lane.lane").info("model_ready", model="churn", version=2)
    (line,) = written.lines
    assert line | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "model_ready",
        "logger": "inferd.streams.lane.lane",
        "worker": "worker-7",
        "model": "churn",
        "version": 2,
    }
    assert line["timestamp"].endswith("Z")


def test_auto_is_json_without_a_terminal(written: Written) -> None:
    written.configure("auto")
    structlog.get_logger().info("x")
    assert written.lines[0]["event"] == "x"


def test_console_lines_are_readable(written: Written) -> None:
    written.configure("console")
    structlog.get_logger("lane").warning("produce_failed", topic="a b")
    assert "produce_failed" in written.text
    assert "topic='a b'" in written.text


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_control_characters_are_escaped(written: Written, log_format: LogFormat) -> None:
    written.configure(log_format)
    evil = "a\x1b[2J\r\nfake\x9b\u202e\u2028"
    structlog.get_logger().warning("refused", reason=evil, more=[evil, {"k": evil}], k={evil: 1})
    assert written.text.count("\n") == 1
    assert written.text.rstrip("\n").isprintable()


def test_long_text_is_truncated(written: Written) -> None:
    structlog.get_logger().info("x", reason="y" * 100_000)
    assert len(written.text) < 3_000


def test_bytes_are_logged_as_their_length(written: Written) -> None:
    structlog.get_logger().info("x", value=b"secret features")
    assert written.lines[0]["value"] == "<15 bytes>"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_show_no_values_of_variables(written: Written, log_format: LogFormat) -> None:
    written.configure(log_format)
    row = ["feature value 4711"]
    try:
        raise ValueError(f"{len(row)} row\x1b[0m")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError: 1 row\\x1b[0m" in written.text.replace("\\\\", "\\")
    assert "Traceback" in written.text
    assert "4711" not in written.text


def test_the_log_level_applies(written: Written) -> None:
    written.configure(level="error")
    structlog.get_logger().warning("hidden")
    logging.getLogger("aiokafka").warning("hidden too")
    structlog.get_logger().error("shown")
    assert [line["event"] for line in written.lines] == ["shown"]


def test_libraries_log_warnings_and_above(written: Written) -> None:
    logging.getLogger("faust.app").info("chatter")
    logging.getLogger("faust.app").warning("trouble with %s", "x")
    assert [(line["logger"], line["event"]) for line in written.lines] == [("faust.app", "trouble with x")]


def test_retried_errors_of_aiokafka_are_not_errors(written: Written) -> None:
    logging.getLogger("aiokafka.consumer").error("Heartbeat failed")
    assert written.lines[0]["level"] == "warning"


def test_retries_of_every_transaction_are_not_logged(written: Written) -> None:
    sender, text = (
        logging.getLogger("aiokafka.producer.sender"),
        "Got error produce response on %s, retrying. Error: %s",
    )
    sender.warning(text, "results-1", NotEnoughReplicasError)
    assert written.lines == []
    sender.warning(text, "results-1", NotLeaderForPartitionError)
    assert "NotLeaderForPartitionError" in written.lines[0]["event"]


def test_failure_of_an_abandoned_request_is_not_an_error(written: Written) -> None:
    text = "Task exception was never retrieved"
    logging.getLogger("asyncio").error(text, exc_info=UnknownMemberIdError("group"))
    assert written.lines == []
    logging.getLogger("asyncio").error(text, exc_info=ZeroDivisionError())
    assert (written.lines[0]["level"], "ZeroDivisionError" in written.lines[0]["exception"]) == ("error", True)


def test_failures_inside_aiokafka_are_one_line(written: Written) -> None:
    def fails_in_aiokafka() -> None:
        exec("raise KeyError('batch')", {"__name__": "aiokafka.producer.message_accumulator"})

    for name, error in (("asyncio", KeyError), ("aiokafka.producer.sender", NotLeaderForPartitionError)):
        try:
            fails_in_aiokafka() if error is KeyError else logging_raises(error)
        except Exception:
            logging.getLogger(name).exception("Exception in callback")
    assert [(line["level"], "exception" in line) for line in written.lines] == [("warning", False)] * 2
    assert "KeyError('batch')" in written.lines[0]["event"]


def logging_raises(error: type[Exception]) -> None:
    raise error


def test_python_warnings_are_logged(written: Written) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in written.lines[0]["event"]


def test_an_unformattable_record_is_harmless(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logging.getLogger("lib").warning("%d", "no number")
    structlog.get_logger().info("after")
    assert [line["event"] for line in written.lines] == ["after"]


@pytest.mark.usefixtures("written")
def test_a_closed_standard_error_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    structlog.get_logger().info("unheard")


def test_repeated_messages_are_logged_once_and_counted(written: Written) -> None:
    for number in range(1_000):
        logging.getLogger("aiokafka").warning("Unable to connect to node %s", number)
    assert [line["event"] for line in written.lines] == ["Unable to connect to node 0"]
    written.now = 29
    written.log_counts()
    assert len(written.lines) == 1
    written.now = 31
    written.log_counts()
    count = written.lines[1]
    assert (count["event"], count["times"], count["within_s"]) == ("repeated", 999, 30)
    assert (count["message"], count["logger"], count["level"]) == (
        "Unable to connect to node 999",
        "aiokafka",
        "warning",
    )


def test_alternating_messages_are_logged_each_time(written: Written) -> None:
    log = structlog.get_logger("inferd.streams.app")
    for phase in ("rebalancing", "running", "running", "rebalancing", "running"):
        log.info("phase", phase=phase)
    assert [line["phase"] for line in written.lines] == ["rebalancing", "running", "rebalancing", "running"]
    written.now = 31
    written.log_counts()
    (count,) = [line for line in written.lines if line["event"] == "repeated"]
    assert (count["message"], count["times"]) == ("phase", 1)


def test_a_flood_of_alternating_messages_is_bounded(written: Written) -> None:
    for number in range(1_000):
        structlog.get_logger("lane").info("phase", phase=number % 2)
    assert len(written.lines) == 20


def test_distinct_messages_are_bounded(written: Written) -> None:
    for number in range(1_000):
        structlog.get_logger("lane").info("refused", offset=number)
    assert len(written.lines) == 20
    written.now = 31
    written.log_counts()
    assert written.lines[20]["times"] == 980
    structlog.get_logger("lane").info("refused", offset=1_001)
    assert written.lines[21]["offset"] == 1_001


def test_commands_log_on_request_and_never_to_standard_output(written: Written) -> None:
    logs.configure_for_command(0)
    structlog.get_logger().error("hidden")
    logging.getLogger("aiokafka").error("hidden")
    assert written.text == ""
    logs.configure_for_command(1)
    structlog.get_logger().info("shown")
    logging.getLogger("aiokafka").info("shown")
    assert written.text.count("shown") == 2


def test_a_quiet_window_resets_the_count() -> None:
    limiter = RepeatLimiter(window_s=30)
    assert limiter.admit(KEY, 0)
    assert limiter.due(31) == []
    assert limiter.admit(KEY, 32)


def test_a_persistent_message_is_counted_in_each_window() -> None:
    limiter = RepeatLimiter(window_s=30)
    admitted = 0
    counted = 0
    for now in range(300):
        admitted += limiter.admit(KEY, now)
        counted += sum(count for key, count in limiter.due(now) if key == KEY)
    assert admitted == 1
    assert counted > 250


def test_the_limiter_is_bounded() -> None:
    limiter = RepeatLimiter()
    for number in range(3 * KEYS_MAX):
        limiter.admit(KEY._replace(event=str(number)), 0)
    assert len(limiter._windows) <= KEYS_MAX


@given(st.text())
def test_printable_escapes_only_what_is_not_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text

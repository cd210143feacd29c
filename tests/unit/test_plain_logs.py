"""A command that runs in a test configures the logs of the process, which must not affect later tests."""

from __future__ import annotations

import logging

import pytest
import structlog

from inferd.daemon.telemetry import configure_for_command


@pytest.fixture(scope="module", autouse=True)
def a_command_ran() -> None:
    configure_for_command(0)


def test_warnings_are_captured(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("inferd").warning("seen")
    assert "seen" in caplog.text


def test_structlog_is_as_imported(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("inferd").warning("seen")
    assert capsys.readouterr().out == ""
    structlog.get_logger().info("seen")
    assert "seen" in capsys.readouterr().out

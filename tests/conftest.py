"""Shared by all tests: the broker's fixtures, the `delivery` mark, deterministic property tests."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from inferd.streams.inference import kernels_fault, use_kernels

pytest_plugins = [
    "tests.fixtures.broker",
    "tests.fixtures.browser",
    "tests.fixtures.lane",
    "tests.fixtures.registry",
    "tests.fixtures.secure_broker",
    "tests.fixtures.workers",
]

settings.register_profile("inferd", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("inferd")

DELIVERY_DIR = Path(__file__).parent / "delivery"
PLAIN = "INFERD_TEST_PLAIN"
"""Set: no test uses compiled kernels."""
REQUIRE_DELIVERY = "INFERD_TEST_REQUIRE_DELIVERY"
delivery_outcomes = Counter[str]()


def pytest_configure() -> None:
    use_kernels(not os.environ.get(PLAIN))


def pytest_report_header() -> str:
    return f"compiled kernels: {kernels_fault() or 'used'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if DELIVERY_DIR in item.path.parents:
            item.add_marker(pytest.mark.delivery)


def pytest_make_parametrize_id(val: object, argname: str) -> None:
    """Rejects parameters with a time stamp: each process of pytest-xdist would collect different test ids."""
    if isinstance(val, bytes) and val.startswith(b"\x1f\x8b") and val[4:8] != bytes(4):
        raise pytest.UsageError(f"{argname}: gzip writes the time of day into its output: compress with mtime=0")


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """Logs as pytest sets them up. A command that ran in this process, in a former test or in a fixture of the module,
    has configured them for itself."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.handlers[:] = [handler for handler in root.handlers if type(handler).__module__.startswith("_pytest.")]
    logging.captureWarnings(False)
    structlog.reset_defaults()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "delivery" in report.keywords and (report.when == "call" or report.outcome != "passed"):
        delivery_outcomes[report.outcome] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where delivery tests are required (CI), a run without them is not a pass."""
    of_several = hasattr(session.config, "workerinput")
    if session.exitstatus == pytest.ExitCode.OK and not of_several and _why_delivery_is_missing():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    why = _why_delivery_is_missing()
    if why:
        terminalreporter.write_line(f"FAILED: {why}, and {REQUIRE_DELIVERY} is set", red=True)


def _why_delivery_is_missing() -> str | None:
    if os.environ.get(REQUIRE_DELIVERY) != "1":
        return None
    if delivery_outcomes["skipped"]:
        return f"{delivery_outcomes['skipped']} delivery tests were skipped"
    return None if delivery_outcomes["passed"] else "no delivery test ran"

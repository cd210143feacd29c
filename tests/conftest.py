"""What every test gets: the broker's fixtures, the `delivery` mark, deterministic property tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.fixtures.broker", "tests.fixtures.lane", "tests.fixtures.workers"]

settings.register_profile("inferd", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("inferd")

DELIVERY_DIR = Path(__file__).parent / "delivery"
REQUIRE_DELIVERY = "INFERD_TEST_REQUIRE_DELIVERY"
delivery_outcomes = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[delivery_outcomes] = Counter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if DELIVERY_DIR in item.path.parents:
            item.add_marker(pytest.mark.delivery)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.get_closest_marker("delivery") and (report.when == "call" or report.outcome != "passed"):
        item.config.stash[delivery_outcomes][report.outcome] += 1
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where delivery tests are required (CI), a run without them is not a pass."""
    if session.exitstatus == pytest.ExitCode.OK and _why_delivery_is_missing(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    why = _why_delivery_is_missing(config)
    if why:
        terminalreporter.write_line(f"FAILED: {why}, and {REQUIRE_DELIVERY} is set", red=True)


def _why_delivery_is_missing(config: pytest.Config) -> str | None:
    if os.environ.get(REQUIRE_DELIVERY) != "1":
        return None
    outcomes = config.stash[delivery_outcomes]
    if outcomes["skipped"]:
        return f"{outcomes['skipped']} delivery tests were skipped"
    return None if outcomes["passed"] else "no delivery test ran"

"""The battery of faults in short, with a seed, and wrong behaviours that it must catch; for more: `make chaos`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.battery import QUICK_SETTINGS, broker, caught, run_bug
from tests.chaos.broker import Kafka
from tests.chaos.experiment import run
from tests.chaos.faults import all_faults
from tests.chaos.report import as_text
from tests.chaos.schedule import alone
from tests.chaos.seeded_bugs import BUGS
from tests.chaos.system import Experiment

SEED = 20_261
FAULTS = {
    "at_least_once": ("kill_after_produce", "lost_commit_reply", "results_refused"),
    "exactly_once": ("zombie", "kill_before_commit", "broker_kill"),
}
BUGS_SHOWN = ("read_uncommitted", "published_twice", "route_swallows_invalid_records")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with broker(tmp_path_factory.mktemp("chaos")) as kafka:
        yield kafka


@pytest.mark.parametrize("guarantee", FAULTS)
def test_faults_leave_the_ledger_whole(guarantee: str, proxied: Kafka, tmp_path: Path) -> None:
    experiment = Experiment(
        guarantee, SEED, "short", per_second=800, brief=True, cached=True, routed=True, settings=QUICK_SETTINGS
    )
    steps = alone([all_faults()[name] for name in FAULTS[guarantee]], SEED, pause_s=0.5)
    outcome = run(proxied, experiment, steps, tmp_path / "workers")
    assert not outcome.violations, as_text(outcome)
    assert len(outcome.injections) == len(FAULTS[guarantee])
    assert outcome.balance.answered > 1_000
    assert outcome.totals["aborted transactions"]


@pytest.mark.parametrize("name", BUGS_SHOWN)
def test_the_battery_catches_a_wrong_behaviour(name: str, proxied: Kafka, tmp_path: Path) -> None:
    outcome = run_bug(proxied, BUGS[name], SEED, tmp_path, print)
    assert caught(outcome), as_text(outcome)
    assert outcome.violations

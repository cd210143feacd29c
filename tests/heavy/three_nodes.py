"""A cluster of three nodes, of which one is killed and one is isolated; for more: `make chaos CHAOS="--nodes 3"`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.battery import QUICK_SETTINGS, broker
from tests.chaos.broker import Kafka
from tests.chaos.experiment import run
from tests.chaos.faults import all_faults
from tests.chaos.report import as_text
from tests.chaos.schedule import in_order
from tests.chaos.system import Experiment

SEED, NODES = 20_262, 3
FAULTS = {"exactly_once": ("node_isolated", "node_kill"), "at_least_once": ("node_isolated",)}

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.0/8 on the loopback interface"),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with broker(tmp_path_factory.mktemp("nodes"), NODES) as kafka:
        yield kafka


@pytest.mark.parametrize("guarantee", FAULTS)
def test_the_ledger_is_whole_after_faults_of_nodes(guarantee: str, cluster: Kafka, tmp_path: Path) -> None:
    experiment = Experiment(guarantee, SEED, "nodes", 1, per_second=200, brief=True, settings=QUICK_SETTINGS)
    steps = in_order([all_faults()[name] for name in FAULTS[guarantee]], SEED, pause_s=0.5)
    outcome = run(cluster, experiment, steps, tmp_path / "workers")
    assert not outcome.violations, as_text(outcome)
    assert len(outcome.injections) == len(FAULTS[guarantee])
    assert outcome.balance.answered > 500
    assert outcome.totals["nodes that were absent"] == len(FAULTS[guarantee])

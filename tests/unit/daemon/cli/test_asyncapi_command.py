"""`inferd asyncapi`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from inferd.daemon.cli import main
from tests.fixtures.asyncapi_rules import faults


@pytest.mark.parametrize("output", ["table", "json"])
def test_it_prints_the_document_without_a_broker(tmp_path: Path, output: str) -> None:
    environment = {"INFERD_DATA_DIR": str(tmp_path), "INFERD_NAMESPACE": "shop", "INFERD_BROKER": "kafka:9092"}
    done = CliRunner().invoke(main, ["asyncapi", "--tenant", "a,b", "--output", output], env=environment)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert faults(found) == []
    assert found["channels"]["requests"]["address"] == "shop.{tenant}.requests"
    assert found["components"]["parameters"]["tenant"]["enum"] == ["a", "b"]
    assert found["servers"]["kafka-0"]["host"] == "kafka:9092"
    assert (len(done.stdout.splitlines()) == 1) is (output == "json")

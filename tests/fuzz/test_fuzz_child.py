"""A process of the fuzzer ends when its time is over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.child import COUNTS

WITHIN_S = 60


@pytest.mark.parametrize("way", ["drawn", "mutated"])
def test_time_ends_it(way: str, tmp_path: Path) -> None:
    options = ["--inputs", f"{10**12}", "--seconds", "3", "--seed", "0", "--directory", str(tmp_path)]
    command = [sys.executable, "-m", "tests.fuzz.child", "request-json", way, *options]
    subprocess.run(command, check=True, timeout=WITHIN_S)
    assert json.loads((tmp_path / COUNTS).read_text())["inputs"] > 0

"""The load processes of the latency measurement."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.errors import BenchError
from bench.latency import _output


def started(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_load_process_that_fails_invalidates_the_measurement() -> None:
    with started("print(input())") as process:
        assert _output("bench.generator", process, b"go\n") == b"go\n"
    with started("input(); raise SystemExit(3)") as process, pytest.raises(BenchError, match=r"bench\.generator .* 3"):
        _output("bench.generator", process, b"go\n")

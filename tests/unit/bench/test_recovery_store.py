"""Offsets in a recovery store of Bytewax."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bench.recovery_store import stored_offsets

TABLES = """
CREATE TABLE fronts (ex_num INTEGER, worker_index INTEGER, worker_frontier INTEGER);
CREATE TABLE snaps (step_id TEXT, state_key TEXT, snap_epoch INTEGER, ser_change BLOB);
INSERT INTO fronts VALUES (0, 0, 7);
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as database:
        database.executescript(TABLES)
        database.executemany(
            "INSERT INTO snaps VALUES ('bench.requests', ?, ?, ?)",
            [
                ("0-requests", 5, pickle.dumps(90)),
                ("0-requests", 6, pickle.dumps(100)),
                ("0-requests", 7, pickle.dumps(110)),  # not complete
                ("1-requests", 6, pickle.dumps(-1_000)),  # the group's: nothing was read
                ("2-others", 6, pickle.dumps(300)),
            ],
        )
        database.commit()
    return tmp_path


def test_the_offset_is_that_of_the_last_complete_epoch(store: Path) -> None:
    assert stored_offsets(store, "requests") == (100, 0, 0, 0)


def test_without_a_store_no_offset_is_known(tmp_path: Path) -> None:
    assert stored_offsets(tmp_path, "requests") == (0, 0, 0, 0)

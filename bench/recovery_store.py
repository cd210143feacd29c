"""The offsets in a recovery store of Bytewax, which keeps them there instead of committing them to Kafka."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

from bench.cluster import Offsets
from bench.requests import PARTITIONS

_LATEST = """
SELECT ser_change FROM snaps WHERE state_key = ? AND snap_epoch < (SELECT MIN(worker_frontier) FROM fronts)
ORDER BY snap_epoch DESC LIMIT 1
"""
"""Of an epoch that is complete, up to the sink: those before the frontier."""


def stored_offsets(directory: Path, topic: str) -> Offsets:
    """The offset from which each partition of `topic` would be read again; 0 if there is none yet."""
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    for path in directory.glob("part-*.sqlite3"):
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store:
            for partition in offsets:
                offsets[partition] = max(offsets[partition], _offset(store, f"{partition}-{topic}"))
    return tuple(offsets.values())


def _offset(store: sqlite3.Connection, key: str) -> int:
    row = store.execute(_LATEST, (key,)).fetchone()
    return max(0, pickle.loads(row[0])) if row else 0  # noqa: S301  (written by a peer of this run)

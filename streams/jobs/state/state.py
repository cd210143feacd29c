"""The state of a job: one frozen value without its rows.

Messages and chunks are read-only numpy records of a few bytes each; copy them before changing one. `first_row`, `rows`,
`seq` and `start` of a chunk are derived from the messages and are not encoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.jobs import (
    TERMINAL,
    JobError,
    Missing,
    Phase,
)
from inferd.schemas.requests import DEFAULT_OUTPUTS, Output

Records = NDArray[np.void]

MESSAGE = np.dtype([("offset", "<i8"), ("rows", "<i4"), ("digest", "<u8")])
"""By `seq`; `offset`: its place (`places.py`) in `jobs`, -1 for a message that has not arrived."""
CHUNK = np.dtype(
    [
        ("first_row", "<i8"),
        ("rows", "<i4"),
        ("seq", "<i4"),
        ("start", "<i4"),
        ("result", "<i8"),
        ("failed", "<i4"),
        ("attempt", "u1"),
        ("done", "?"),
    ]
)
"""Rows from `start` on of message `seq`. `result`: place of the latest result in `job-results`, -1 without one;
`failed`: failed rows of that result; `done`: whether it belongs to the latest attempt."""


def read_only(records: Any) -> Any:
    """Makes `records` read-only and returns them."""
    records.setflags(write=False)
    return records


NO_MESSAGES: Records = read_only(np.zeros(0, MESSAGE))
NO_CHUNKS: Records = read_only(np.zeros(0, CHUNK))


@dataclass(frozen=True, slots=True, eq=False)
class JobState:
    """The state of a job, kept by its owner. Times are Unix milliseconds."""

    job_id: str
    created_at: int
    """When its first message was accepted."""
    updated_at: int
    phase: Phase = "queued"
    opened_with: int | None = None
    """Hash of its opening message; None while only rows or a close have arrived."""
    encoding: str = MSGPACK.name
    model_id: str | None = None
    version: int | None = None
    digest: str | None = None
    outputs: tuple[Output, ...] = DEFAULT_OUTPUTS
    chunk_rows: int = 0
    row_count: int | None = None
    deadline_ms: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    message_count: int | None = None
    """Number of messages according to the close."""
    messages: Records = field(default_factory=lambda: NO_MESSAGES)
    next_seq: int = 0
    """All messages below have arrived and are cut into `chunks`."""
    input_count: int = 0
    """Rows of all messages that have arrived, dispatched or not."""
    input_bytes: int = 0
    chunks: Records = field(default_factory=lambda: NO_CHUNKS)
    chunks_total: int = 0
    chunks_done: int = 0
    succeeded: int = 0
    failed: int = 0
    attempt: int = 0
    retry_wanted: bool = False
    barrier: str | None = None
    """Number of its barrier while it is being cancelled."""
    barriers_left: int = 0
    """Bit p: partition p of `job-chunks` has not answered the barrier."""
    started_at: int | None = None
    finished_at: int | None = None
    error: JobError | None = None
    missing: Missing | None = None
    announced: bool = False
    """The terminal status is published."""
    published_at: int = 0
    """When the last status was published."""
    unpublished: bool = False
    """There is progress that no status shows yet."""
    applied_jobs: int = -1
    """Highest offset of `jobs` that changed it."""
    applied_results: int = -1
    """Highest offset of `job-results` that changed it."""
    alias_revision: int | None = None
    """The revision of the alias that chose the version; None without one."""
    variant: str | None = None
    """Which variant of the alias the version is: `champion` or `canary`."""

    @property
    def ended(self) -> bool:
        return self.phase in TERMINAL

    @property
    def processed(self) -> int:
        return self.succeeded + self.failed

    @property
    def group_complete(self) -> bool:
        """Whether all messages have arrived and are cut."""
        return self.opened_with is not None and self.message_count is not None and self.next_seq >= self.message_count

    @property
    def rows_dispatched(self) -> int:
        if not len(self.chunks):
            return 0
        last = self.chunks[-1]
        return int(last["first_row"]) + int(last["rows"])

    def message_digest(self, seq: int) -> int | None:
        """Hash of the bytes of message `seq`; None if it has not arrived."""
        if seq >= len(self.messages) or self.messages[seq]["offset"] < 0:
            return None
        return int(self.messages[seq]["digest"])


@dataclass(frozen=True, slots=True)
class Usage:
    """Quota use of open jobs."""

    jobs: int = 0
    rows: int = 0
    n_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.jobs + other.jobs, self.rows + other.rows, self.n_bytes + other.n_bytes)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.jobs - other.jobs, self.rows - other.rows, self.n_bytes - other.n_bytes)


NOTHING_USED = Usage()


def usage_of(state: JobState | None) -> Usage:
    """Quota use of one job; zero once it has ended."""
    if state is None or state.ended:
        return NOTHING_USED
    return Usage(1, state.input_count, state.input_bytes)

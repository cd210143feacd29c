"""The published status of a job, with its missing ranges."""

from __future__ import annotations

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from inferd.schemas.jobs import (
    RANGES_MAX,
    JobStatus,
    Missing,
    Ranges,
)
from inferd.streams.jobs.state.places import other_partitions
from inferd.streams.jobs.state.state import JobState


def status_of(state: JobState) -> JobStatus:
    """The status of a job as it is published."""
    return JobStatus(
        job_id=state.job_id,
        status=state.phase,
        model_id=state.model_id,
        version=state.version,
        digest=state.digest,
        input_count=state.input_count,
        processed=state.processed,
        succeeded=state.succeeded,
        failed=state.failed,
        chunks_total=state.chunks_total,
        chunks_done=state.chunks_done,
        submitted_at=state.created_at,
        started_at=state.started_at,
        updated_at=state.updated_at,
        finished_at=state.finished_at,
        error=UNSET if state.error is None else state.error,
        missing=UNSET if state.missing is None else state.missing,
        attempt=state.attempt or UNSET,
        labels=state.labels or UNSET,
        results_in=other_partitions(state) or UNSET,
    )


def missing_of(state: JobState) -> Missing:
    """What a job still waits for."""
    expected = len(state.messages) if state.message_count is None else state.message_count
    there = np.zeros(expected, dtype=np.bool_)
    there[: len(state.messages)] = state.messages["offset"][:expected] >= 0
    messages, chunks = _ranges(~there), _ranges(~state.chunks["done"])
    return Missing(
        open=state.opened_with is None,
        close=state.message_count is None,
        messages=messages[:RANGES_MAX],
        chunks=chunks[:RANGES_MAX],
        truncated=max(len(messages), len(chunks)) > RANGES_MAX,
    )


def _ranges(flags: NDArray[np.bool_]) -> Ranges:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False]))))
    return [(int(start), int(stop) - 1) for start, stop in zip(edges[::2], edges[1::2], strict=True)]

"""Places of records: an offset in the partition of the job, or in one where the job was before it was moved.

Partitions are added while jobs exist (`streams/kafka/used_partitions.py`): a state that moves to a new partition still
refers to records of the old one. A place is one integer: the offset, and above its 48 bits the number of the partition
plus 1, or 0 for the partition of the state. -1 is no place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferd.streams.jobs.state.state import JobState, read_only

_SHIFT = 48
_OFFSET = (1 << _SHIFT) - 1


class Place(NamedTuple):
    """Where a record is; without a partition in that of the state."""

    partition: int | None
    offset: int


def place_of(value: int) -> Place:
    """The place that an integer stands for."""
    return Place((value >> _SHIFT) - 1 if value >> _SHIFT else None, value & _OFFSET)


def moved(state: JobState, number: int) -> JobState:
    """A state that leaves partition `number`. Offsets that it has applied are of that partition, and forgotten."""
    messages, chunks = state.messages.copy(), state.chunks.copy()
    messages["offset"] = _from(messages["offset"], number)
    chunks["result"] = _from(chunks["result"], number)
    return replace(
        state, messages=read_only(messages), chunks=read_only(chunks), applied_jobs=-1, applied_results=-1
    )  # fmt: skip


def other_partitions(state: JobState) -> list[int]:
    """The partitions of `job-results`, besides that of the state, with results of the job."""
    results = state.chunks["result"]
    if not len(results) or results.max() <= _OFFSET:
        return []
    return [int(each) - 1 for each in np.unique(results[results > _OFFSET] >> _SHIFT)]


def _from(places: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    here = (places >= 0) & (places <= _OFFSET)
    return np.where(here, places + (np.int64(number + 1) << _SHIFT), places)

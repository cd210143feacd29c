"""Records to be scored together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Record(Protocol):
    """The fields of a fetched record that scoring uses. A record that was rejected while fetching has a `rejection`."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


@dataclass(frozen=True, slots=True)
class Converted:
    """A record whose value was converted to a request of ours."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @classmethod
    def of(cls, record: Record, value: bytes | None) -> Converted:
        """`record` with another value."""
        return cls(record.offset, record.timestamp, record.key, value, record.headers)


Work = Sequence[tuple[int, Sequence[Record]]]
"""Records of a micro-batch: (partition number, its records in order), …"""


def halve(work: Work) -> tuple[Work, Work] | None:
    """Two micro-batches of half the records each; None if there is only one record."""
    if len(work) > 1:
        return work[: len(work) // 2], work[len(work) // 2 :]
    ((partition, records),) = work
    half = len(records) // 2
    return ([(partition, records[:half])], [(partition, records[half:])]) if half else None

"""Recorders: they write records about predictions beside the results, and are committed with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiokafka import TopicPartition

from inferd.schemas.requests import default_id
from inferd.streams.inference import Outcome, Record
from inferd.streams.kafka import Outgoing
from inferd.streams.lane import OutputBatch

log = structlog.get_logger(__name__)

LATE_BYTES_MAX = 4 * 1_048_576
LATE_TAKEN_MAX = 500
"""Maximum late records of one output."""


@dataclass(frozen=True, slots=True)
class Part:
    """Records of one partition in a micro-batch."""

    span: range
    """Their indexes in the outcome."""
    number: int
    """Of the partition."""
    records: Sequence[Record]
    output: OutputBatch | None
    """None for HTTP requests."""
    topic: str = ""
    """Of a route: its records have ids with the topic in them, as `requests` has the same partitions and offsets."""

    def record(self, index: int) -> Record:
        """The record at an index of the outcome."""
        return self.records[index - self.span.start]

    def default_id(self, index: int) -> str:
        """The id of a record that gives none."""
        place = default_id(self.number, self.record(index).offset)
        return f"{self.topic}-{place}" if self.topic else place


class LateRecords:
    """Records about HTTP requests, which wait for the next output of a partition; the oldest are dropped beyond
    `LATE_BYTES_MAX`."""

    def __init__(self) -> None:
        self._waiting: deque[Outgoing] = deque()
        self._bytes = 0

    def add(self, outgoing: Outgoing) -> None:
        """Keeps a record."""
        self._waiting.append(outgoing)
        self._bytes += len(outgoing[1] or b"")
        while self._bytes > LATE_BYTES_MAX:
            self._pop()

    def take(self) -> list[Outgoing]:
        """The oldest records, as many as an output may have."""
        return [self._pop() for _ in range(min(LATE_TAKEN_MAX, len(self._waiting)))]

    def _pop(self) -> Outgoing:
        outgoing = self._waiting.popleft()
        self._bytes -= len(outgoing[1] or b"")
        return outgoing


def record_scored(recorders: Sequence[Recorder], parts: Sequence[Part], outcome: Outcome, now_ms: int) -> None:
    """Lets each recorder write. An exception of one is logged: it fails no request."""
    for recorder in recorders:
        try:
            for part in parts:
                if part.output is not None:
                    recorder.add_late(part.number, part.output)
            recorder.add(parts, outcome, now_ms)
        except Exception:
            log.exception("recorder_failed", recorder=type(recorder).__name__)


class Recorder(Protocol):
    """Writes records about what was scored. It never fails a request."""

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        """Where it writes for requests of partition `number`."""

    def add(self, parts: Sequence[Part], outcome: Outcome, now_ms: int) -> None:
        """Adds records to the output of each part, and keeps those of HTTP requests. What is in no part will be
        processed again, and is left out."""

    def add_late(self, number: int, output: OutputBatch) -> None:
        """Adds what was kept to an output of partition `number`."""

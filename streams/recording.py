"""Recorders: they write records about predictions beside the results, and are committed with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiokafka import TopicPartition

from inferd.schemas.requests import default_id
from inferd.streams.inference import Outcome, Record
from inferd.streams.lane import OutputBatch


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

    def record(self, index: int) -> Record:
        """The record at an index of the outcome."""
        return self.records[index - self.span.start]

    def default_id(self, index: int) -> str:
        """The id of a record that gives none."""
        return default_id(self.number, self.record(index).offset)


class Recorder(Protocol):
    """Writes records about what was scored. It never fails a request."""

    def outputs(self, number: int) -> Iterable[TopicPartition]:
        """Where it writes for requests of partition `number`."""

    def add(self, parts: Sequence[Part], outcome: Outcome, now_ms: int) -> None:
        """Adds records to the output of each part, and keeps those of HTTP requests. What is in no part will be
        processed again, and is left out."""

    def add_late(self, number: int, output: OutputBatch) -> None:
        """Adds what was kept to an output of partition `number`."""

"""Dead letters: copies of rejected records."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka import TopicPartition

from inferd.schemas.dead_letters import DeadLetter, check_dead_letter_size
from inferd.schemas.errors import ModelServingError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.streams.inference import Record
from inferd.streams.kafka import Destinations, Outgoing
from inferd.streams.lane.output_batch import OutputBatch


def dead_letter_of(record: Record, tp: TopicPartition, error: ModelServingError, worker_id: str) -> DeadLetter:
    """The dead letter of a record: the record byte for byte, the error, its topic and offset, and the worker."""
    return DeadLetter(
        code=error.code,
        message=error.message,
        topic=tp.topic,
        partition=tp.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        worker=worker_id,
        key=record.key,
        value=record.value,
        original_headers=tuple(record.headers),
    )


def outgoing_of(letter: DeadLetter, bytes_max: int) -> Outgoing:
    """The record of a dead letter, without its largest parts if it would exceed `bytes_max`."""
    trimmed = letter.trimmed(bytes_max)
    return trimmed.key, trimmed.value, list(trimmed.headers())


def rejection_of(record: Record, error: ModelServingError, limits: Limits) -> ModelServingError:
    """The error for a rejected record: `too_large` if its dead letter must omit parts."""
    try:
        check_dead_letter_size(record.key, record.value, record.headers, limits)
    except TooLargeError as too_large:
        return too_large
    return error


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Writes the dead letters of one tenant."""

    topic: str
    worker_id: str
    destinations: Destinations

    def add(
        self,
        output: OutputBatch,
        record: Record,
        tp: TopicPartition,
        error: ModelServingError,
        partition: int | None = None,
    ) -> None:
        """Adds the dead letter of a rejected record of `tp` to `output`, for `partition` (default: the same number)."""
        letter = dead_letter_of(record, tp, error, self.worker_id)
        outgoing = outgoing_of(letter, self.destinations.bytes_max(self.topic))
        output.tally.dead_letters += 1
        output.tally.bytes_out += len(outgoing[1] or b"")
        output.add(self.topic, tp.partition if partition is None else partition, outgoing)

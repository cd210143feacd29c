"""A fetched record that was refused, as a dead letter."""

from __future__ import annotations

from aiokafka import TopicPartition

from schemas.dead_letters import DeadLetter
from schemas.errors import ModelServingError
from streams.effects import Effects
from streams.inference.micro_batch import Record


def dead_letter_of(record: Record, tp: TopicPartition, error: ModelServingError, worker_id: str) -> DeadLetter:
    """The record byte for byte, and what was wrong with it, where it was, and who says so."""
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


def add_dead_letter(
    effects: Effects, topic: str, record: Record, tp: TopicPartition, error: ModelServingError, worker_id: str
) -> None:
    """Has `record`, which was refused, copied to the same partition number of `topic`."""
    letter = dead_letter_of(record, tp, error, worker_id)
    effects.tally.dead_letters += 1
    effects.tally.bytes_out += len(record.value or b"")
    effects.add(topic, tp.partition, (record.key, record.value, list(letter.headers())))

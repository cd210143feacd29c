"""Record batches whose records the compiled kernel has written.

Private names of aiokafka used: the builder of record batches in Python, `_DefaultRecordBatchBuilderPy`, whose
`_buffer`, `_first_timestamp`, `_max_timestamp`, `_last_offset` and `_num_records` are set as `append` would set them;
of `BatchBuilder` the attributes `_builder`, `_relative_offset` and `_closed`, and the method `_set_producer_state`;
and of the accumulator `_compression_type` and `_txn_manager`. `tests/unit/streams/kafka/test_written_batches.py`
covers them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from inferd.schemas.record_size import record_bytes
from inferd.streams.kafka.outgoing import OutgoingBlock

MAGIC = 2
_HEADER_BYTES: int = _DefaultRecordBatchBuilderPy.HEADER_STRUCT.size


class WrittenBatch(BatchBuilder):
    """A closed batch that the producer sends as it sends its own."""

    def __init__(
        self, buffer: bytearray, records: int, timestamp_ms: int, compression: int, *, transactional: bool
    ) -> None:
        """`buffer`: room for the header of the batch, and its records."""
        super().__init__(len(buffer), compression, is_transactional=transactional)  # type: ignore[no-untyped-call]
        builder: Any = _DefaultRecordBatchBuilderPy(MAGIC, compression, int(transactional), -1, -1, 0, len(buffer))
        builder._buffer = buffer  # noqa: SLF001
        builder._first_timestamp = builder._max_timestamp = timestamp_ms  # noqa: SLF001
        builder._num_records, builder._last_offset = records, records - 1  # noqa: SLF001
        self._builder, self._relative_offset, self._closed = builder, records, True

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._builder.set_producer_state(producer_id, producer_epoch, base_sequence)


def written_batches(
    producer: AIOKafkaProducer, block: OutgoingBlock, timestamp_ms: int, bytes_max: int
) -> Iterator[tuple[WrittenBatch, int]]:
    """Batches of the records of a block, each with its number of records. A batch of several records has at most
    `bytes_max` bytes before it is compressed. `UnavailableError` without kernels."""
    parts = block.columns.parts
    accumulator: Any = producer._message_accumulator  # noqa: SLF001
    compression, transactions = accumulator._compression_type, accumulator._txn_manager  # noqa: SLF001
    transactional = transactions is not None and transactions.transactional_id is not None
    left = block.span
    room = min(bytes_max, _HEADER_BYTES + parts.bytes_max(left))
    while left:
        buffer = bytearray(room)
        end, size = parts.write(left, buffer, _HEADER_BYTES)
        if end == left.start:
            buffer = bytearray(record_bytes(*block[end - block.span.start]))
            end, size = parts.write(left[:1], buffer, _HEADER_BYTES)
        del buffer[size:]
        yield (
            WrittenBatch(buffer, end - left.start, timestamp_ms, compression, transactional=transactional),
            end - left.start,
        )
        left = range(end, left.stop)

"""Record batches whose records the compiled kernel has written.

Private names of aiokafka used: the builder of record batches in Python, `_DefaultRecordBatchBuilderPy`, whose
`_buffer`, `_first_timestamp`, `_max_timestamp`, `_last_offset` and `_num_records` are set as `append` would set them;
of `BatchBuilder` the attributes `_builder`, `_relative_offset` and `_closed`, and the method `_set_producer_state`;
and of the accumulator `_compression_type` and `_txn_manager`. `tests/unit/streams/kafka/test_written_batches.py`
covers them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import encode_varint

from inferd.schemas.record_size import record_bytes
from inferd.streams.inference import HeaderParts, Library, RecordParts, Spans, write_records
from inferd.streams.kafka.outgoing import HeaderColumns, OutgoingBlock

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
    library: Library, producer: AIOKafkaProducer, block: OutgoingBlock, timestamp_ms: int, bytes_max: int
) -> Iterator[tuple[WrittenBatch, int]]:
    """Batches of the records of a block, each with its number of records. A batch of several records has at most
    `bytes_max` bytes before it is compressed."""
    parts = RecordParts(block.keys, block.values, encoded_headers(block.headers))
    accumulator: Any = producer._message_accumulator  # noqa: SLF001
    compression, transactions = accumulator._compression_type, accumulator._txn_manager  # noqa: SLF001
    transactional = transactions is not None and transactions.transactional_id is not None
    first, room = 0, min(bytes_max, _HEADER_BYTES + parts.bytes_max)
    while first < len(block):
        buffer = bytearray(room)
        end, size = write_records(library, parts, range(first, len(block)), buffer, _HEADER_BYTES)
        if end == first:
            buffer = bytearray(record_bytes(*block[first]))
            end, size = write_records(library, parts, range(first, first + 1), buffer, _HEADER_BYTES)
        del buffer[size:]
        yield WrittenBatch(buffer, end - first, timestamp_ms, compression, transactional=transactional), end - first
        first = end


def encoded_headers(headers: HeaderColumns) -> HeaderParts:
    """The headers as a record has them."""
    before, after = ([b"".join(map(_encoded, each)) for each in lists] for lists in (headers.before, headers.after))
    others = len(headers.between) + 1
    counts = [others + len(first) + len(last) for first, last in zip(headers.before, headers.after, strict=True)]
    own = None if headers.own is None else (headers.own.encoded, headers.own.counts)
    between = b"".join([*map(_encoded, headers.between), _sized(headers.number_name.encode())])
    return HeaderParts(
        headers.kinds, Spans.of(before), Spans.of(after), np.array(counts, np.int64), own, between, headers.numbers
    )


@lru_cache(maxsize=4_096)
def _encoded(header: tuple[str, bytes | None]) -> bytes:
    return _sized(header[0].encode()) + _sized(header[1])


def _sized(part: bytes | None) -> bytes:
    return _varint(-1 if part is None else len(part)) + (part or b"")


@lru_cache(maxsize=1_024)
def _varint(number: int) -> bytes:
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)

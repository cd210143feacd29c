"""Reads the record batches of a fetch response. No content of a batch can stop the consumer.

aiokafka's own reader raises out of the fetch loop, again at every attempt, for a header name that is not UTF-8. It
decompresses a batch of a megabyte to whatever size it claims, and its C code trusts every number in a batch. Here an
invalid record does not affect its neighbours: it becomes a record with a `rejection`, at its own offset. If the start
of the next batch cannot be found, `UnreadableLogError` says where. Records of lane topics are passed on as aiokafka's C
code made them, because creating a `ConsumerRecord` takes as long as scoring a row; where there are many, as columns.

Follows the record batch format v2, https://kafka.apache.org/documentation/#recordbatch.

Private names used, each covered by `tests/unit/streams/kafka/test_record_batches.py`: the names `PartitionRecords` and
`MemoryRecords` in `aiokafka.consumer.fetcher` (replaced, because the fetcher makes them itself); of `FetchResult` the
method `getall` (replaced), the attributes `_partition_records`, `_topic_partition` and the method `_update_position`;
and of `PartitionRecords` the methods `_unpack_records` (the hook), `_consume_aborted_up_to`, `_contains_abort_marker`,
`_consumer_record` and the attributes `_tp`, `_records`, `_check_crcs`, `_isolation_level`, `_aborted_producers`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter
from typing import Any, ClassVar

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import decode_varint

from inferd.schemas.errors import (
    InferenceError,
    InvalidHeaderError,
    MalformedError,
    TooLargeError,
)
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.inference import BatchKernel, RecordBlock, UnavailableError, crc32c, joined_records, library
from inferd.streams.kafka.compression import decompress

CREATE_TIME = 0
READ_COMMITTED = 1
_PREFIX_BYTES = 12
"""Base offset and length at the beginning of every batch."""
_HEADER_BYTES = 61
_CRC = slice(17, 21)
_ATTRIBUTES = slice(21, 23)
_CODEC_MASK = 0x07
_MAGIC_AT, _MAGIC = 16, 2
_RECORD_BYTES_MIN = 7
"""Size of a record without key, value and headers."""
REJECTED_MAX = 2**24
"""Maximum records of a batch rejected one by one; a batch that claims more is rejected as one record."""
HEADERS_READ_MAX = 16_384
"""A record with more headers is rejected unread: a header of two bytes takes some 100 bytes in memory."""
_SMALL_BYTES = 2**18
_BLOCK_RECORDS_MIN = 32
"""For fewer records of a fetch, columns do not pay."""
_TIMESTAMP, _LAST_TIMESTAMP = slice(27, 35), slice(35, 43)


_offset_of = attrgetter("offset")


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A record that cannot be read completely; `rejection` is the error."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    rejection: InferenceError
    timestamp_type: int = CREATE_TIME
    checksum: None = None


class UnreadableLogError(CorruptRecordException):
    """The log of `tp` cannot be read beyond an offset."""

    def __init__(self, tp: TopicPartition, reason: str) -> None:
        super().__init__(f"topic {tp.topic}, partition {tp.partition}: {reason}")
        self.tp = tp


class RecordBatches:
    """The batches of one partition in a fetch response; replaces aiokafka's `MemoryRecords`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def size_in_bytes(self) -> int:
        """Size of the response, including an incomplete last batch."""
        return len(self._data)

    def claims(self, records: int) -> bool:
        """Whether the batches that are left claim at least so many records."""
        at, left = self._at, records
        while left > 0 and at + _HEADER_BYTES <= len(self._data):
            head = self._data[at : at + _HEADER_BYTES]
            left -= max(0, _count_of(head))
            at += _PREFIX_BYTES + max(0, _length_of(head))
        return left <= 0

    def usual_batches(self, kernel: BatchKernel, *, check_crcs: bool) -> tuple[RecordBlock, int] | None:
        """The records of the next batches that the kernel can read all at once, and the offset behind them."""
        read = kernel.scan_many(self._data, self._at, check_crcs=check_crcs)
        if read.end == self._at:
            return None
        self._at = read.end
        return RecordBlock(self._data, read.columns), read.offset_end

    def clear(self) -> None:
        """Frees the memory of the response, after the last batch was read."""
        self._data, self._at = b"", 0

    def has_next(self) -> bool:
        """Whether a batch follows. The last batch of a response may be cut off, the first one never is."""
        return self._at < len(self._data) and (self._at == 0 or self._end() <= len(self._data))

    def next_batch(self) -> bytes:
        """The next batch with its header; `CorruptRecordException` if its length is invalid."""
        start, end = self._at, self._end()
        if not start + _HEADER_BYTES <= end <= len(self._data):
            offset = int.from_bytes(self._data[start : start + 8], "big", signed=True)
            raise CorruptRecordException(
                f"the record batch at offset {offset} claims {end - start} bytes, of {len(self._data) - start}"
            )
        self._at = end
        return self._data[start:end]

    def _end(self) -> int:
        prefix = self._data[self._at : self._at + _PREFIX_BYTES]
        if len(prefix) < _PREFIX_BYTES:
            return len(self._data) + 1
        return self._at + _PREFIX_BYTES + _length_of(prefix)


class PartitionRecords(fetcher.PartitionRecords):
    """aiokafka's iterator over the records of a fetch, with a reader that no record can stop."""

    lane_topics: ClassVar[set[str]] = set()
    """Topics whose records are returned as read, not as `ConsumerRecord`."""
    expanded_bytes_max: ClassVar[int] = DEFAULT_LIMITS.batch_expanded_bytes_max
    _taken: Sequence[Any] | None = None
    """What is left of the records."""
    _end = 0
    _in_blocks: bool | None = None
    _fault: UnreadableLogError | None = None

    @property
    def comes_in_blocks(self) -> bool:
        """Whether the records are better taken all at once, with `take`. Decided once: one reader reads them all."""
        if self._in_blocks is None:
            lane = self._tp.topic in self.lane_topics
            self._in_blocks = lane and self._records.claims(_BLOCK_RECORDS_MIN)
        return self._in_blocks

    @property
    def exhausted(self) -> bool:
        """Whether all records have been taken, with `take`."""
        return self._taken is not None and not self._taken and self._fault is None

    def take(self, records_max: int | None) -> Sequence[Any]:
        """The next records of a lane topic, up to a number: a `RecordBlock` if the kernel can read all records of the
        fetch, otherwise a list. `UnreadableLogError` after those in front of an invalid batch."""
        if self._taken is None:
            first = self.next_fetch_offset
            self._taken, self._end = self._all(), self.next_fetch_offset
            self.next_fetch_offset = first
            self._records.clear()  # the records have a copy
        if self._fault is not None and not self._taken:
            raise self._fault
        taken, self._taken = self._taken[:records_max], self._taken[records_max or len(self._taken) :]
        self.next_fetch_offset = taken[-1].offset + 1 if self._taken else self._end
        return taken

    def _all(self) -> Sequence[Any]:
        """All records in front of the first invalid batch, which becomes the fault."""
        parts: list[Sequence[Any]] = []
        try:
            for offset_end, records in self._batches(in_blocks=True):
                part = records if isinstance(records, RecordBlock) else list(records)
                if part and part[0].offset < self.next_fetch_offset:  # the fetch began within this batch
                    part = part[bisect_left(part, self.next_fetch_offset, key=_offset_of) :]
                if part:
                    parts.append(part)
                self.next_fetch_offset = max(self.next_fetch_offset, offset_end)
        except UnreadableLogError as error:
            self._fault = error
        return joined_records(parts) if parts else []

    def _unpack_records(self) -> Iterator[Any]:
        as_they_are = self._tp.topic in self.lane_topics
        stock: Any = self  # aiokafka leaves its methods untyped
        for offset_end, records in self._batches():
            for record in records:
                if record.offset >= self.next_fetch_offset:
                    self.next_fetch_offset = record.offset + 1
                    yield record if as_they_are else stock._consumer_record(self._tp, record)  # noqa: SLF001
            # Compaction keeps the last offset of a batch: it advances past a batch that has become empty.
            self.next_fetch_offset = max(self.next_fetch_offset, offset_end)

    def _batches(self, *, in_blocks: bool = False) -> Iterator[tuple[int, Iterable[Any]]]:
        """The records of each batch, or of several that follow each other, and the offset behind them;
        `UnreadableLogError` if a whole batch is invalid."""
        kernel = _batch_kernel() if in_blocks else None
        while self._records.has_next():
            if kernel is not None:
                usual = self._records.usual_batches(kernel, check_crcs=self._check_crcs)
                if usual is not None:
                    yield usual[1], usual[0]
                    continue
            try:
                raw = self._records.next_batch()
                records = self._read(raw, in_blocks=in_blocks)
            except CorruptRecordException as error:
                raise UnreadableLogError(self._tp, str(error.args[0])) from None
            yield _end_of(raw), records

    def _read(self, raw: bytes, *, in_blocks: bool = False) -> Iterable[Any]:
        """The records of a batch; `CorruptRecordException` if the whole batch is invalid."""
        if raw[_MAGIC_AT] != _MAGIC:
            return _all_rejected(
                raw, MalformedError(f"record batch: version {raw[_MAGIC_AT]} of its format is unknown")
            )
        batch = _read_batch(raw)
        if self._check_crcs and not _has_valid_crc(raw, batch):
            raise CorruptRecordException(f"the checksum of the record batch at offset {batch.base_offset} is wrong")
        if self._is_skipped(batch):
            return ()
        block = self._block_of(raw, batch) if in_blocks else None
        return self._records_of(raw, batch) if block is None else block

    def _block_of(self, raw: bytes, batch: Any) -> RecordBlock | None:
        """The records of a batch as columns; None if the kernel is not available, or cannot read them."""
        kernel = _batch_kernel()
        if kernel is None:
            return None
        try:
            raw = expand(raw, self.expanded_bytes_max) if batch.compression_type else raw
            _check_claims(raw)
        except InferenceError:
            return None
        offsets, timestamp = range(_first_of(raw), _end_of(raw)), int.from_bytes(raw[_TIMESTAMP], "big", signed=True)
        columns = kernel.scan(raw, _HEADER_BYTES, _count_of(raw), offsets, timestamp)
        if columns is None:
            return None
        if batch.timestamp_type:  # the broker's
            columns["timestamp"] = int.from_bytes(raw[_LAST_TIMESTAMP], "big", signed=True)
        return RecordBlock(raw, columns)

    def _is_skipped(self, batch: Any) -> bool:
        """Whether a batch is a transaction marker, or belongs to an aborted transaction."""
        stock: Any = self
        if self._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            stock._consume_aborted_up_to(batch.base_offset)  # noqa: SLF001
            if batch.is_control_batch and self._ends_abort(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)

    def _ends_abort(self, batch: Any) -> bool:
        stock: Any = self
        try:
            return bool(stock._contains_abort_marker(batch))  # noqa: SLF001
        except Exception as error:  # noqa: BLE001  # whatever the bytes make the reader raise
            raise CorruptRecordException(
                f"the transaction marker at offset {batch.base_offset} cannot be read: {error}"
            ) from None

    def _records_of(self, raw: bytes, batch: Any) -> Iterator[Any]:
        try:
            if batch.compression_type:
                raw = expand(raw, self.expanded_bytes_max)
                batch = _read_batch(raw)
            _check_claims(raw)
        except InferenceError as rejection:
            yield from _all_rejected(raw, rejection)
            return
        due, end, read = batch.base_offset, _end_of(raw), 0
        try:
            for record in _tolerantly(batch, raw):
                if not due <= record.offset < end:
                    raise ValueError(f"offset {record.offset}, expected {due} to {end - 1}")
                due, read = record.offset + 1, read + 1
                yield record
        except Exception as fault:  # noqa: BLE001  # whatever the bytes make the reader raise
            reason = f"{type(fault).__name__}: {fault}"[:200]
            unread = MalformedError(f"record batch: it cannot be read beyond its first {read} records: {reason}")
            yield from _rejected(raw, range(due, min(end, due + max(1, _count_of(raw) - read))), unread)


_stock_getall: Callable[[Any, int | None], list[Any]] = fetcher.FetchResult.getall


def getall_in_blocks(result: Any, max_records: int | None = None) -> Sequence[Any]:
    """`FetchResult.getall`, which hands over blocks."""
    records = result._partition_records  # noqa: SLF001
    if records is None:  # it was dropped with its fault
        return []
    # Results of fetches before the installation have aiokafka's own reader.
    if not isinstance(records, PartitionRecords) or not records.comes_in_blocks:
        return _stock_getall(result, max_records)
    if not result.check_assignment(result._topic_partition):  # noqa: SLF001
        return []
    try:
        taken = records.take(max_records)
    except UnreadableLogError:
        result._partition_records = None  # noqa: SLF001  # it is fetched again
        raise
    result._update_position()  # noqa: SLF001
    if records.exhausted:
        result._partition_records = None  # noqa: SLF001
    return taken


def _has_valid_crc(raw: bytes, batch: Any) -> bool:
    checksum = crc32c(raw, _ATTRIBUTES.start)
    return bool(batch.validate_crc()) if checksum is None else checksum == int.from_bytes(raw[_CRC], "big")


def _batch_kernel() -> BatchKernel | None:
    try:
        return BatchKernel(library())
    except UnavailableError:
        return None


def _tolerantly(batch: Any, raw: bytes) -> Iterator[Any]:
    """The records of an uncompressed batch, by the fast reader; from the first record that it cannot read, by the
    tolerant one."""
    read = 0
    # In a small batch, any number of headers is harmless.
    readable: Iterable[Any] = _readable(bytearray(raw)) if len(raw) > _SMALL_BYTES else repeat(None)
    with suppress(UnicodeDecodeError):
        for _, record in zip(readable, batch, strict=False):
            read += 1
            yield record
    if read < _count_of(raw):
        yield from read_tolerantly(raw, read)


def _readable(data: bytearray) -> Iterator[None]:
    """Yields once per record of an uncompressed batch, and at its end; stops at a record with too many headers."""
    at = _HEADER_BYTES
    for _ in range(_count_of(data)):
        length, at = decode_varint(data, at)
        if length > 2 * HEADERS_READ_MAX:
            count, _ = decode_varint(data, _read_head(data, at)[-1])
            if count > HEADERS_READ_MAX:
                return
        yield None
        at += length
    yield None


def _count_of(raw: bytes | bytearray) -> int:
    return int.from_bytes(raw[57:61], "big", signed=True)


def _length_of(raw: bytes) -> int:
    """The bytes of a batch behind its length, as it claims."""
    return int.from_bytes(raw[8:_PREFIX_BYTES], "big", signed=True)


def _last_delta_of(raw: bytes) -> int:
    return int.from_bytes(raw[23:27], "big", signed=True)


def _first_of(raw: bytes) -> int:
    return int.from_bytes(raw[:8], "big", signed=True)


def _end_of(raw: bytes) -> int:
    """The offset after a batch; at least one after its first, whatever it claims."""
    last_delta = _last_delta_of(raw) if raw[_MAGIC_AT] == _MAGIC else 0
    return _first_of(raw) + max(0, last_delta) + 1


def _check_claims(raw: bytes) -> None:
    """Raises `MalformedError` for an uncompressed batch that cannot hold the records it claims.

    Compaction removes records and keeps the last offset, so there may be fewer records than offsets.
    """
    count, last_delta = _count_of(raw), _last_delta_of(raw)
    if not 0 <= count <= last_delta + 1 or count * _RECORD_BYTES_MIN > len(raw) - _HEADER_BYTES:
        raise MalformedError(
            f"record batch: it claims {count} records of {last_delta + 1} offsets in {len(raw) - _HEADER_BYTES} bytes"
        )


def _read_batch(raw: bytes) -> Any:
    return DefaultRecordBatch(raw)


def install_batch_checks(lane_topics: set[str], expanded_bytes_max: int) -> None:
    """Installs the reader in aiokafka's fetcher, for every consumer of this process; repeated calls have no effect."""
    PartitionRecords.lane_topics = lane_topics
    PartitionRecords.expanded_bytes_max = expanded_bytes_max
    # Of this class instances may exist, which aiokafka tells from errors by their type: only a method is replaced.
    setattr(fetcher.FetchResult, "getall", getall_in_blocks)  # noqa: B010  # for mypy it is a method
    for name, replacement in (("PartitionRecords", PartitionRecords), ("MemoryRecords", RecordBatches)):
        setattr(fetcher, name, replacement)


def expand(raw: bytes, bytes_max: int) -> bytes:
    """A compressed batch as an uncompressed one.

    `TooLargeError` if it would exceed `bytes_max`, before that much is allocated; `MalformedError` if it does not
    decompress.
    """
    attributes = int.from_bytes(raw[_ATTRIBUTES], "big")
    body = decompress(attributes & _CODEC_MASK, raw[_HEADER_BYTES:], bytes_max)
    plain = (attributes & ~_CODEC_MASK).to_bytes(2, "big")
    length = (_HEADER_BYTES - _PREFIX_BYTES + len(body)).to_bytes(4, "big")
    return b"".join((raw[:8], length, raw[12:21], plain, raw[23:_HEADER_BYTES], body))


def read_tolerantly(raw: bytes, skipped: int = 0) -> Iterator[UnreadableRecord | Any]:
    """The records of an uncompressed batch after the first `skipped` ones.

    Those with a header name that is not UTF-8, or with too many headers, carry a `rejection`.
    """
    data, at = bytearray(raw), _HEADER_BYTES
    first_offset, first_timestamp = _first_of(raw), int.from_bytes(raw[27:35], "big", signed=True)
    for n in range(_count_of(raw)):
        length, at = decode_varint(data, at)
        if n >= skipped:
            yield _read_record(data, at, first_offset, first_timestamp)
        at += length


@dataclass(frozen=True, slots=True)
class _PlainRecord:
    """A readable record in a batch with an unreadable one."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_type: int = CREATE_TIME
    checksum: None = None


def _read_record(raw: bytearray, at: int, first_offset: int, first_timestamp: int) -> UnreadableRecord | _PlainRecord:
    timestamp_delta, offset_delta, key, value, at = _read_head(raw, at)
    place = first_offset + offset_delta, first_timestamp + timestamp_delta
    count, at = decode_varint(raw, at)
    if count > HEADERS_READ_MAX:
        return UnreadableRecord(*place, key, value, (), _too_many_headers(count))
    headers: list[tuple[str, bytes | None]] = []
    wrong: list[str] = []
    for _ in range(count):
        name, at = _read_bytes(raw, at)
        content, at = _read_bytes(raw, at)
        try:
            text = (name or b"").decode()
        except UnicodeDecodeError:
            text = (name or b"").decode("utf-8", "backslashreplace")
            wrong.append(text)
        headers.append((text, content))
    if not wrong:
        return _PlainRecord(*place, key, value, headers)
    rejection = InvalidHeaderError(f"header '{wrong[0][:80]}': its name is not UTF-8")
    return UnreadableRecord(*place, key, value, headers, rejection)


def _read_head(raw: bytearray, at: int) -> tuple[int, int, bytes | None, bytes | None, int]:
    """Timestamp delta, offset delta, key and value of a record, and the position of its headers."""
    at += 1  # attributes: none are in use
    timestamp_delta, at = decode_varint(raw, at)
    offset_delta, at = decode_varint(raw, at)
    key, at = _read_bytes(raw, at)
    value, at = _read_bytes(raw, at)
    return timestamp_delta, offset_delta, key, value, at


def _read_bytes(raw: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(raw, at)
    return (None, at) if length < 0 else (bytes(raw[at : at + length]), at + length)


def _all_rejected(raw: bytes, rejection: InferenceError) -> Iterator[UnreadableRecord]:
    """One rejected record for each record that the batch claims; a single one if the claim is implausible."""
    first, offsets = _first_of(raw), _end_of(raw) - _first_of(raw)
    plausible = raw[_MAGIC_AT] == _MAGIC and 0 < _count_of(raw) <= offsets <= REJECTED_MAX
    return _rejected(raw, range(first, first + offsets if plausible else first + 1), rejection)


def _rejected(raw: bytes, offsets: range, rejection: InferenceError) -> Iterator[UnreadableRecord]:
    timestamp = int.from_bytes(raw[27:35], "big", signed=True)
    return (UnreadableRecord(offset, timestamp, None, None, (), rejection) for offset in offsets)


def _too_many_headers(count: int) -> InferenceError:
    return TooLargeError(f"record: it has {count} headers, more than the limit of {HEADERS_READ_MAX}")

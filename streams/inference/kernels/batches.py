"""Finds the records of a record batch with the compiled kernel."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels.compiled import Library, UnavailableError, library

RECORD = np.dtype(
    [
        (name, "i8")
        for name in (
            "offset", "timestamp", "key_at", "key_length", "value_at", "value_length", "headers_at", "headers_length",
            "headers",
        )
    ]
)  # fmt: skip
"""The struct of batches.c: positions and lengths in the bytes, and the number of headers. A length of -1: null."""
HEADERS_MAX = 64
"""A batch whose records have more headers is not read."""
BATCHES_MAX = 1_024
"""In one call: those behind a batch that cannot be read are counted again, and there may be many such batches."""


def crc32c(data: bytes, start: int) -> int | None:
    """CRC-32C of the data from `start` on; None where the processor has no instruction for it."""
    try:
        checksum: int = library().crc32c(data, start, len(data))
    except UnavailableError:
        return None
    return None if checksum < 0 else checksum


@dataclass(frozen=True, slots=True, eq=False)
class ReadBatches:
    """What was read of batches that follow each other."""

    columns: NDArray[np.void]
    """`RECORD` (records,)."""
    end: int
    """The position behind the last batch that was read."""
    offset_end: int
    """The offset behind it; 0 if none was read."""


class BatchKernel:
    """Finds the records of uncompressed batches in the format v2. Thread-safe."""

    def __init__(self, library: Library) -> None:
        self._library, self._scan = library, library.scan_batch

    def scan_many(self, batches: bytes, start: int, *, check_crcs: bool) -> ReadBatches:
        """Reads batches from a position on, up to the first one that is compressed, of a transaction, unusual or
        invalid, and `BATCHES_MAX` at most.

        Without an instruction for checksums, none is read if they are checked.
        """
        return self.scan_many_into(batches, len(batches), start, check_crcs=check_crcs)

    def scan_many_into(self, batches: bytes | int, end: int, start: int, *, check_crcs: bool) -> ReadBatches:
        """Like `scan_many`, of `end` bytes or memory at an address."""
        columns = np.empty(self._library.count_records(batches, start, end, BATCHES_MAX), RECORD)
        found, offset_end = ctypes.c_int64(), ctypes.c_int64()
        stopped = self._library.scan_batches(
            batches, start, end, BATCHES_MAX, HEADERS_MAX, check_crcs, columns.ctypes.data, ctypes.addressof(found),
            ctypes.addressof(offset_end),
        )  # fmt: skip
        return ReadBatches(columns[: found.value], stopped, offset_end.value)

    def scan(self, batch: bytes, start: int, count: int, offsets: range, timestamp: int) -> NDArray[np.void] | None:
        """`RECORD` (count,): the records from position `start` of the batch to its end, whose offsets have to rise
        within `offsets`, and whose timestamps are relative to `timestamp`. None if the batch is unusual or invalid.

        The caller must have checked that `count` records can fit into the batch.
        """
        columns = np.empty(count, RECORD)
        return columns if self.scan_into(columns, batch, range(start, len(batch)), offsets, timestamp) else None

    def scan_into(
        self, columns: NDArray[np.void], batch: bytes | int, span: range, offsets: range, timestamp: int
    ) -> bool:
        """Like `scan`, for records in a span of bytes or of memory at an address; whether they could be read."""
        places = (span.start, span.stop, len(columns), offsets.start, offsets.stop, timestamp, HEADERS_MAX)
        return bool(self._scan(batch, *places, columns.ctypes.data))

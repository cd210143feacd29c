"""Random and damaged record batches through the batch kernel and the tolerant reader, its equivalent in Python.

The batches and the kernel's output end at an inaccessible page: an access out of bounds kills the process.
"""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from inferd.streams.inference import RECORD, BatchKernel, RecordBlock, library
from inferd.streams.kafka.record_batches import read_tolerantly
from tests.fuzz.mutators import mutate
from tests.fuzz.tree_kernel import Guarded

HEADER_BYTES = 61
BROKER_TIMESTAMP = 8
PARTS = (b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\x80\x01", b"\xff" * 9 + b"\x01", b"\xff" * 10)
"""Lengths and counts that are short, null, long, and no number."""


def batch_of(rng: random.Random) -> bytes:
    """A batch of up to 24 records, some with long parts, null parts and headers."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 10_000_000)
    counts = (0, 0, 1, 2, 70) if rng.random() < 0.05 else (0, 0, 1, 2)
    for n in range(rng.randrange(1, 25)):
        headers = [
            (rng.choice(("content-type", "é", "")), rng.choice((None, b"", b"application/json")))
            for _ in range(rng.choice(counts))
        ]
        key, value = (rng.choice((None, b"", b"k", rng.randbytes(rng.choice((3, 63, 64, 300))))) for _ in range(2))
        assert builder.append(n, 1_000 + rng.randrange(-50, 5_000), key, value, headers) is not None
    return bytes(builder.build())


def compare_once(rng: random.Random, guarded: Guarded, kernel: BatchKernel) -> tuple[int, int]:
    """Compares one batch; returns how many records it has, and how many the kernel read."""
    batch = batch_of(rng)
    damaged = rng.random() < 0.7
    body = mutate(rng, batch[HEADER_BYTES:], "bytes", lambda: rng.choice(PARTS)) if damaged else batch[HEADER_BYTES:]
    count, first = int.from_bytes(batch[57:61], "big"), int.from_bytes(batch[27:35], "big")
    columns = guarded(np.zeros(count, RECORD))
    content = guarded(np.frombuffer(body or b"\0", np.uint8))
    read = kernel.scan_into(columns, content.ctypes.data, range(len(body)), range(count), first)
    if read:
        expected: list[Any] = list(read_tolerantly(batch[:HEADER_BYTES] + body))
        for record, other in zip(RecordBlock(body, columns.copy()), expected, strict=True):
            assert not hasattr(other, "rejection"), f"{body!r}: {other}"
            assert (record.offset, record.timestamp) == (other.offset, other.timestamp), f"{body!r}"
            assert (record.key, record.value) == (other.key, other.value), f"{body!r}"
            assert [*record.headers] == [*other.headers], f"{body!r}"
    elif not damaged:
        many = any(len(record.headers) > 64 for record in read_tolerantly(batch))
        assert many, f"not read: {batch!r}"
    guarded.release()
    return count, count if read else 0


def compare_many(rng: random.Random, guarded: Guarded, kernel: BatchKernel) -> tuple[int, int]:
    """Compares batches that follow each other, some of them damaged; returns as `compare_once`."""
    check, batches, offset = rng.random() < 0.5, list[bytearray](), rng.choice((0, 7, 2**61))
    for _ in range(rng.randrange(4)):
        batch = bytearray(batch_of(rng))
        batch[:8] = offset.to_bytes(8, "big")
        batch[22] = rng.choice((0, 0, 0, BROKER_TIMESTAMP, 16, 32, 1))
        offset += int.from_bytes(batch[23:27], "big") + 1
        batch[17:21] = calc_crc32c(batch[21:]).to_bytes(4, "big")
        if rng.random() < 0.3:
            place = rng.randrange(len(batch) if rng.random() < 0.5 else HEADER_BYTES)
            batch[place] = rng.choice((0, 1, 127, 128, 255))
        batches.append(batch)
    data = b"".join(batches)[: rng.choice((None, None, rng.randrange(1, 400)))]
    content = guarded(np.frombuffer(data or b"\0", np.uint8))
    read = kernel.scan_many_into(content.ctypes.data, len(data), 0, check_crcs=check)
    expected, at = list[Any](), 0
    while at < read.end:
        batch = bytearray(data[at : at + 12 + int.from_bytes(data[at + 8 : at + 12], "big")])
        assert not check or int.from_bytes(batch[17:21], "big") == calc_crc32c(batch[21:])
        assert batch[16] == 2
        assert batch[21:23] in (b"\0\0", bytes([0, BROKER_TIMESTAMP])), "compressed, or of a transaction"
        last = int.from_bytes(batch[35:43], "big", signed=True) if batch[22] else None
        expected += [(record, last) for record in read_tolerantly(bytes(batch))]
        at += len(batch)
        assert int.from_bytes(batch[:8], "big") + int.from_bytes(batch[23:27], "big") + 1 <= read.offset_end
    for record, (other, last) in zip(RecordBlock(data, read.columns.copy()), expected, strict=True):
        assert not hasattr(other, "rejection"), f"{data!r}: {other}"
        timestamp = other.timestamp if last is None else last
        assert (record.offset, record.timestamp) == (other.offset, timestamp), f"{data!r}"
        assert (record.key, record.value, [*record.headers]) == (other.key, other.value, [*other.headers]), f"{data!r}"
    if data == b"".join(batches) and read.end < len(data):
        left = batch_at(data, read.end)
        usual = batch_of_same_bytes(left, read.offset_end) and not any(
            len(r.headers) > 64 for r in read_tolerantly(left)
        )
        assert not usual, f"not read: {data!r}"
    guarded.release()
    return len(expected), len(read.columns)


def batch_at(data: bytes, at: int) -> bytes:
    length = int.from_bytes(data[at + 8 : at + 12], "big", signed=True)
    return data[at : at + 12 + length] if length > 0 else data[at:]


def batch_of_same_bytes(batch: bytes, due: int) -> bool:
    """Whether a batch is as `compare_many` made it, without damage; its offsets from `due` on."""
    whole = len(batch) >= HEADER_BYTES and int.from_bytes(batch[8:12], "big") == len(batch) - 12
    whole = whole and int.from_bytes(batch[17:21], "big") == calc_crc32c(bytearray(batch[21:]))
    usual = whole and batch[16] == 2 and batch[21:23] in (b"\0\0", bytes([0, BROKER_TIMESTAMP]))
    return usual and due <= int.from_bytes(batch[:8], "big", signed=True) < 2**62


def fuzz_batch_kernel(seconds: float, seed: int, rounds: int = 10**9) -> str:
    """Runs for a number of rounds or seconds; returns a summary."""
    rng, guarded, kernel = random.Random(seed), Guarded(), BatchKernel(library())
    done = records = read = 0
    end = time.monotonic() + seconds
    while done < rounds and time.monotonic() < end:
        counts = rng.choice((compare_once, compare_many))(rng, guarded, kernel)
        records, read, done = records + counts[0], read + counts[1], done + 1
    return f"batch kernel: {records:,} records, {read:,} of them read, no difference from the reader in Python"

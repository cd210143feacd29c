"""Random and damaged record batches through the batch kernel and the tolerant reader, its equivalent in Python.

The batches and the kernel's output end at an inaccessible page: an access out of bounds kills the process.
"""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from inferd.streams.inference import RECORD, BatchKernel, RecordBlock, library
from inferd.streams.kafka.record_batches import read_tolerantly
from tests.fuzz.mutators import mutate
from tests.fuzz.tree_kernel import Guarded

HEADER_BYTES = 61
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


def fuzz_batch_kernel(seconds: float, seed: int, rounds: int = 10**9) -> str:
    """Runs for a number of rounds or seconds; returns a summary."""
    rng, guarded, kernel = random.Random(seed), Guarded(), BatchKernel(library())
    done = records = read = 0
    end = time.monotonic() + seconds
    while done < rounds and time.monotonic() < end:
        counts = compare_once(rng, guarded, kernel)
        records, read, done = records + counts[0], read + counts[1], done + 1
    return f"batch kernel: {records:,} records, {read:,} of them read, no difference from the reader in Python"

"""Random results and records through the result kernel, and the same by the codecs and by aiokafka, its equivalents.

What the kernel reads and writes ends at an inaccessible page: an access out of bounds kills the process.
"""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from numpy.typing import NDArray

from inferd.schemas.codecs import JSON, MSGPACK
from inferd.streams.inference.features import ENCODINGS, ID_BYTES
from inferd.streams.inference.kernels import library
from inferd.streams.inference.kernels.results import PartsStruct, PieceStruct
from inferd.streams.inference.kernels.rows import ENCODINGS as NUMBERS
from inferd.streams.kafka.written_batches import encoded_headers
from tests.fuzz.tree_kernel import Guarded

SIZES = (0, 1, 7, 31, 32, 63, 64, 127, 128, 255, 256, 300, 8_191, 8_192, 20_000)
HEADERS: tuple[list[tuple[str, bytes | None]], ...] = (
    [], [("content-type", b"application/json")], [("é", None), ("x", b"")], [("h" * 70, b"v" * 200)] * 3,
    [(str(n), b"%d" % n) for n in range(70)],
)  # fmt: skip
BATCH_HEADER_BYTES = 61


class Struct:
    """A struct of strings, with everything that it points to in guarded memory."""

    def __init__(self, guarded: Guarded, strings: Sequence[bytes | None]) -> None:
        stops = [*accumulate(len(string or b"") for string in strings)]
        starts = [stop - len(string or b"") for stop, string in zip(stops, strings, strict=True)]
        ends = [
            start - 1 if string is None else stop for start, stop, string in zip(starts, stops, strings, strict=True)
        ]
        content = np.frombuffer(b"".join(string or b"" for string in strings) or b"\0", np.uint8)
        self.arrays = [guarded(content), guarded(np.array(starts, np.int64)), guarded(np.array(ends, np.int64))]
        self.struct = PartsStruct(*(array.ctypes.data for array in self.arrays))
        self.at = ctypes.addressof(self.struct)


def size(rng: random.Random) -> int:
    return rng.choice(SIZES) if rng.random() < 0.3 else rng.randrange(40)


def compare_results(rng: random.Random, guarded: Guarded, kernels: Any) -> int:
    """Joins results as `ResultTemplate` does."""
    codec, count = rng.choice((JSON, MSGPACK)), rng.choice((0, 1, 20))
    pieces = [rng.randbytes(size(rng)) for _ in range(3)]
    ids = ["".join(map(chr, rng.choices(ID_BYTES, k=min(size(rng), 400)))) for _ in range(count)]
    values = [codec.encode(rng.choice((rng.random(), rng.randrange(10**6), "text" * size(rng), None))) for _ in ids]
    expected = [
        pieces[0] + codec.encode(id_) + pieces[1] + value + pieces[2] for id_, value in zip(ids, values, strict=True)
    ]
    out = guarded(np.zeros(sum(map(len, expected)), np.uint8))
    ends = guarded(np.zeros(count, np.int64))
    given = (PieceStruct * 3)(*(PieceStruct(piece, len(piece)) for piece in pieces))
    texts, encoded = Struct(guarded, [id_.encode() for id_ in ids]), Struct(guarded, values)
    kernels.join_results(
        NUMBERS.index(ENCODINGS[codec]), ctypes.addressof(given), texts.at, encoded.at, count, out.ctypes.data,
        ends.ctypes.data,
    )  # fmt: skip
    assert out.tobytes() == b"".join(expected)
    assert ends.tolist() == [*accumulate(map(len, expected))]
    return count


def compare_records(rng: random.Random, guarded: Guarded, kernels: Any) -> int:
    """Writes the records that aiokafka's builder writes, up to the same one."""
    count, timestamp = rng.choice((1, 2, 30)), 1_700_000_000_000
    keys = [rng.choice((None, rng.randbytes(size(rng)))) for _ in range(count)]
    values = [rng.randbytes(size(rng)) for _ in range(count)]
    kinds = [rng.randrange(len(HEADERS)) for _ in range(count)]
    first = rng.randrange(count)
    room = rng.choice((10**6, rng.randrange(1, 3_000)))
    builder = DefaultRecordBatchBuilder(
        2,
        0,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=0,
        batch_size=room + BATCH_HEADER_BYTES,
    )
    end = first
    while (
        end < count
        and builder.size_in_bytes(end - first, timestamp, keys[end], values[end], HEADERS[kinds[end]]) + builder.size()
        <= room + BATCH_HEADER_BYTES
    ):
        assert builder.append(end - first, timestamp, keys[end], values[end], HEADERS[kinds[end]])
        end += 1
    expected = bytes(builder.build())[BATCH_HEADER_BYTES:]
    # Where all records fit, there is no byte more than they take.
    out = guarded(np.zeros(max(1, len(expected) if end == count else room), np.uint8))
    chosen, length = guarded(np.array(kinds, np.int64)), ctypes.c_int64()
    headers = encoded_headers(HEADERS)
    parts = [Struct(guarded, strings) for strings in (keys, values, list(headers))]
    found = kernels.write_records(
        *(each.at for each in parts),
        chosen.ctypes.data,
        first,
        count,
        len(out),
        out.ctypes.data,
        ctypes.addressof(length),
    )
    assert (found, out[: length.value].tobytes()) == (end, expected)
    return count


def compare_numbers(rng: random.Random, guarded: Guarded, kernels: Any) -> int:
    """Finds equal strings, as a dictionary does."""
    different = [rng.randbytes(size(rng)) for _ in range(rng.choice((1, 3, 70)))]
    strings = rng.choices(different, k=rng.choice((0, 1, 50)))
    seen: dict[bytes, int] = {}
    expected = [seen.setdefault(string, len(seen)) for string in strings]
    most = rng.choice((1, 64))
    first, numbers = guarded(np.zeros(most, np.int64)), guarded(np.zeros(len(strings), np.int64))
    struct = Struct(guarded, strings)
    found = kernels.number_parts(struct.at, len(strings), most, first.ctypes.data, numbers.ctypes.data)
    assert found == (len(seen) if len(seen) <= most else -1)
    if found >= 0:
        assert numbers.tolist() == expected
        assert first[:found].tolist() == [strings.index(string) for string in seen]
    return len(strings)


def compare_checksum(rng: random.Random, guarded: Guarded, kernels: Any) -> int:
    data = np.frombuffer(rng.randbytes(size(rng)) + b"x", np.uint8)
    placed: NDArray[np.uint8] = guarded(data)
    start = rng.randrange(len(data))
    checksum = kernels.crc32c(placed.ctypes.data, start, len(data))
    assert checksum in (-1, calc_crc32c(data.tobytes()[start:]))
    return 1


COMPARISONS = (compare_results, compare_records, compare_numbers, compare_checksum)


def fuzz_result_kernel(seconds: float, seed: int, rounds: int = 10**9, kernels: Any = None) -> str:
    """Runs for a number of rounds or seconds; returns a summary."""
    rng, guarded = random.Random(seed), Guarded()
    done = items = 0
    end = time.monotonic() + seconds
    while done < rounds and time.monotonic() < end:
        try:
            items += rng.choice(COMPARISONS)(rng, guarded, kernels or library())
        finally:
            guarded.release()
        done += 1
    return f"result kernel: {items:,} results, records and strings, no difference from the codecs and aiokafka"

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
from aiokafka.record.util import calc_crc32c, encode_varint
from numpy.typing import NDArray

from inferd.schemas.codecs import JSON, MSGPACK
from inferd.schemas.headers import FITTING_BYTES, parse_request_headers
from inferd.schemas.limits import Limits
from inferd.streams.inference.encoded_headers import EncodedHeaders
from inferd.streams.inference.encoded_headers import headers_of as decode_headers
from inferd.streams.inference.features import ENCODINGS, ID_BYTES
from inferd.streams.inference.kernels import library
from inferd.streams.inference.kernels.headers import ColumnStruct, LimitsStruct
from inferd.streams.inference.kernels.results import HeaderColumnsStruct, PartsStruct, PieceStruct
from inferd.streams.inference.kernels.rows import ENCODINGS as NUMBERS
from inferd.streams.inference.spans import Spans
from inferd.streams.kafka import HeaderColumns
from inferd.streams.telemetry.tracing import is_traced
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
        at, *places = (array.ctypes.data for array in self.arrays)
        self.struct = PartsStruct(ctypes.cast(at, ctypes.c_char_p), *places, len(content), len(strings))
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
        NUMBERS.index(ENCODINGS[codec]), ctypes.addressof(given), texts.at, encoded.at, out.ctypes.data,
        ends.ctypes.data,
    )  # fmt: skip
    assert out.tobytes() == b"".join(expected)
    assert ends.tolist() == [*accumulate(map(len, expected))]
    return count


def header_columns(rng: random.Random, count: int) -> HeaderColumns:
    """Headers of so many records."""
    kinds = np.array([rng.randrange(len(HEADERS)) for _ in range(count)], np.int64)
    numbers = np.array([rng.choice((0, 9, 10, 12_345, 2**63 - 1)) for _ in range(count)], np.int64)
    lists = [rng.choice(HEADERS) for _ in range(count)]
    counts = np.array([*map(len, lists)], np.int64)
    encoded = Spans.of([b"".join(encoded_header(*header) for header in headers) for headers in lists])
    own = rng.choice((None, EncodedHeaders(encoded, counts, np.zeros(count, bool))))
    return HeaderColumns(kinds, HEADERS, own, [*rng.choice(HEADERS)], "n" * size(rng), numbers, HEADERS[::-1])


def encoded_header(name: str, value: bytes | None) -> bytes:
    """As aiokafka writes it."""
    out = bytearray()
    for part in (name.encode(), value):
        encode_varint(-1 if part is None else len(part), out.append)
        out += part or b""
    return bytes(out)


def guarded_headers(guarded: Guarded, headers: HeaderColumns) -> tuple[HeaderColumnsStruct, list[Any]]:
    """The argument of the kernel, and what must live as long as it."""
    parts = headers.encoded()
    before, after = Struct(guarded, list(parts.before)), Struct(guarded, list(parts.after))
    between = guarded(np.frombuffer(parts.between, np.uint8))
    arrays = [guarded(column) for column in (parts.counts, parts.kinds, parts.numbers)]
    own = own_counts = None
    if parts.own is not None:
        own, own_counts = Struct(guarded, list(parts.own[0])), guarded(parts.own[1])
    struct = HeaderColumnsStruct(
        before.struct, after.struct, arrays[0].ctypes.data, arrays[1].ctypes.data,
        PartsStruct() if own is None else own.struct, None if own_counts is None else own_counts.ctypes.data,
        PieceStruct(ctypes.cast(between.ctypes.data, ctypes.c_char_p), len(between)), arrays[2].ctypes.data,
    )  # fmt: skip
    return struct, [before, after, between, arrays, own, own_counts]


def compare_records(rng: random.Random, guarded: Guarded, kernels: Any) -> int:
    """Writes the records that aiokafka's builder writes, up to the same one."""
    count, timestamp = rng.choice((1, 2, 30)), 1_700_000_000_000
    keys = [rng.choice((None, rng.randbytes(size(rng)))) for _ in range(count)]
    values = [rng.randbytes(size(rng)) for _ in range(count)]
    columns = header_columns(rng, count)
    headers = [columns[place] for place in range(count)]
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
        and builder.size_in_bytes(end - first, timestamp, keys[end], values[end], headers[end]) + builder.size()
        <= room + BATCH_HEADER_BYTES
    ):
        assert builder.append(end - first, timestamp, keys[end], values[end], headers[end])
        end += 1
    expected = bytes(builder.build())[BATCH_HEADER_BYTES:]
    # Where all records fit, there is no byte more than they take.
    out = guarded(np.zeros(max(1, len(expected) if end == count else room), np.uint8))
    length = ctypes.c_int64()
    struct, _kept = guarded_headers(guarded, columns)
    parts = [Struct(guarded, strings) for strings in (keys, values)]
    places = *(each.at for each in parts), ctypes.addressof(struct)
    if end == count:
        assert kernels.records_bytes(*places, first, count) >= len(expected)
    found = kernels.write_records(
        *places,
        first,
        count,
        len(out),
        out.ctypes.data,
        ctypes.addressof(length),
    )
    assert (found, out[: length.value].tobytes()) == (end, expected)
    return count


NAMES = (
    "content-type", "Content-Type", "deadline", "DEADLINE", "reply-to", "row-errors", "correlation-id", "Tracestate",
    "traceparent", "ce_id", "CE_type", "content-encoding", "inferd-worker", "inference-header-content-length", "x",
    "inferd", "content", "ce", "deadlines", "é", "K" * 64, "K" * 65, "k" * 5_000, "",
)  # fmt: skip
TEXTS = (
    None, b"", b"application/json", b"0", b"1700000000000", b"253402300799999", b"253402300800000", b"1" * 16, b"-1",
    b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-00", b"x" * 4_096,
)  # fmt: skip
LIMITS = Limits()


def headers_of(rng: random.Random) -> list[tuple[str, bytes | None]]:
    """Any headers of a request; most of them usual ones."""
    usual = rng.random() < 0.7
    names = NAMES[6:9] if usual else NAMES
    count = rng.choice((0, 1, 2, 3, 63, 64, 65) if not usual and rng.random() < 0.2 else (0, 1, 2, 3))
    chosen = [
        (rng.choice(names), rng.choice((rng.choice(TEXTS), rng.randbytes(rng.randrange(40))))) for _ in range(count)
    ]
    return [*chosen, ("content-type", b"application/json")] if usual else chosen


def compare_headers(rng: random.Random, guarded: Guarded, kernels: Any) -> int:
    """Splits headers as the parser does."""
    given = [headers_of(rng) for _ in range(rng.choice((0, 1, 20)))]
    heads = Struct(guarded, [b"".join(encoded_header(*header) for header in headers) for headers in given])
    room, count = max(1, len(heads.arrays[0])), len(given)
    counts = guarded(np.array([*map(len, given)], np.int64))
    contents = [guarded(np.zeros(room, np.uint8)) for _ in range(2)]
    ends, numbers = ([guarded(np.zeros(count, np.int64)) for _ in range(2)] for _ in range(2))
    deadlines, found = guarded(np.zeros(count, np.int64)), guarded(np.zeros(count, np.uint8))
    columns = (ColumnStruct * 2)(
        *(
            ColumnStruct(None, *(array.ctypes.data for array in arrays))
            for arrays in zip(contents, ends, numbers, strict=True)
        )
    )
    bounds = LimitsStruct(LIMITS.headers_max, LIMITS.header_bytes_max, FITTING_BYTES)
    kernels.split_headers(
        heads.at, counts.ctypes.data, ctypes.addressof(bounds), ctypes.addressof(columns[0]),
        ctypes.addressof(columns[1]), deadlines.ctypes.data, found.ctypes.data,
    )  # fmt: skip
    starts = [np.concatenate([[0], each[:-1]]).tolist() for each in ends]
    for k, headers in enumerate(given):
        own, rest = (
            decode_headers(contents[n][starts[n][k] : ends[n][k]].tobytes(), int(numbers[n][k])) for n in range(2)
        )
        if not found[k]:
            assert (own, rest, deadlines[k]) == ((), (), -1)
            # What is usual is not left: it would be slow, and a comparison of nothing.
            names = {name for name, _ in headers}
            assert not names <= {"correlation-id", "content-type", "Tracestate"} or _too_large(headers)
            continue
        # Values that are read may be invalid: the parser sees the rest.
        plain = [header for header in headers if header not in rest]
        parsed = parse_request_headers(plain, LIMITS)
        assert parsed.propagated == own
        assert parsed.deadline_ms == (None if deadlines[k] < 0 else deadlines[k])
        assert {name.lower() for name, _ in rest}.isdisjoint({"deadline", "correlation-id", "traceparent", "x"})
        if is_traced(headers):
            assert found[k] & 2
    return count


def _too_large(headers: Sequence[tuple[str, bytes | None]]) -> bool:
    return any(len(name) + len(value or b"") > LIMITS.header_bytes_max for name, value in headers) or (
        sum(len(name) + len(value or b"") for name, value in headers) > FITTING_BYTES
    )


def compare_checks(rng: random.Random, guarded: Guarded, kernels: Any) -> int:
    """Refuses parts that are not within their content."""
    content, count = guarded(np.zeros(8, np.uint8)), rng.choice((0, 1, 5))
    starts, ends = ([rng.choice((*range(9), -1, 9, 2**62, -(2**62))) for _ in range(count)] for _ in range(2))
    arrays = [guarded(np.array(places, np.int64)) for places in (starts, ends)]
    at = ctypes.cast(content.ctypes.data, ctypes.c_char_p)
    struct = PartsStruct(at, *(array.ctypes.data for array in arrays), len(content), count)
    pairs = [*zip(starts, ends, strict=True)]
    within = all(0 <= start <= end <= len(content) for start, end in pairs)
    assert kernels.parts_bytes(ctypes.addressof(struct)) == (sum(end - start for start, end in pairs) if within else -1)
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
    found = kernels.number_parts(struct.at, most, first.ctypes.data, numbers.ctypes.data)
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


COMPARISONS = (compare_results, compare_records, compare_headers, compare_checks, compare_numbers, compare_checksum)


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

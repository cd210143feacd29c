"""Joins results of requests, and writes them as the records of a record batch, with the compiled kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels.compiled import Library
from inferd.streams.inference.kernels.rows import ENCODINGS, Encoding
from inferd.streams.inference.spans import Places, Spans

_TEXT_HEAD_BYTES = 3
"""Bytes around a text at most, in either encoding."""
_RECORD_HEAD_BYTES = 32
"""Bytes of a record beside its key, value and headers at most: its length and offset, two bytes, and three lengths."""
_NUMBER_BYTES = 20
"""Bytes of a number and its length at most."""


class PartsStruct(ctypes.Structure):
    """The struct `parts` of results.c."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("bytes", "starts", "ends")]


class PieceStruct(ctypes.Structure):
    """The struct `piece` of results.c."""

    _fields_ = [("bytes", ctypes.c_char_p), ("length", ctypes.c_int64)]


def join_results(
    library: Library, encoding: Encoding, pieces: tuple[bytes, bytes, bytes], ids: Spans, values: Spans
) -> Spans:
    """For each request the first piece, its encoded id, the second piece, its value, and the third piece.

    `ids`: ASCII without anything that JSON escapes, shorter than 65,536 bytes; `values`: encoded. Neither has nulls.
    """
    count = len(ids)
    if len(values) != count:
        raise ValueError(f"{len(values)} values of {count} requests")
    room = sum(map(len, pieces)) + _TEXT_HEAD_BYTES
    out = np.empty(count * room + checked_bytes(ids) + checked_bytes(values), np.uint8)
    ends = np.empty(count, np.int64)
    given = (PieceStruct * 3)(*(PieceStruct(piece, len(piece)) for piece in pieces))
    library.join_results(
        ENCODINGS.index(encoding), ctypes.addressof(given), parts_of(ids), parts_of(values), count, out.ctypes.data,
        ends.ctypes.data,
    )  # fmt: skip
    starts = np.concatenate([ends[:0], [0], ends[:-1]]) if count else ends
    return Spans(out[: ends[-1] if count else 0].tobytes(), starts, ends)


class HeaderColumnsStruct(ctypes.Structure):
    """The struct `header_columns` of results.c."""

    _fields_ = [
        ("before", PartsStruct),
        ("after", PartsStruct),
        ("counts", ctypes.c_void_p),
        ("kinds", ctypes.c_void_p),
        ("own", PartsStruct),
        ("own_counts", ctypes.c_void_p),
        ("between", PieceStruct),
        ("numbers", ctypes.c_void_p),
    ]


@dataclass(frozen=True, slots=True, eq=False)
class HeaderParts:
    """Headers of records, encoded: those of record k are `before[kinds[k]]`, `own[k]`, `between`, `numbers[k]` as the
    value of the last name in `between`, and `after[kinds[k]]`."""

    kinds: NDArray[np.int64]
    before: Spans
    after: Spans
    counts: NDArray[np.int64]
    """int64 (kinds,): how many headers a record has beside its own."""
    own: tuple[Spans, NDArray[np.int64]] | None
    """With int64 (records,), how many they are; None if no record has any."""
    between: bytes
    numbers: NDArray[np.int64]

    def __post_init__(self) -> None:
        kinds, records = self.kinds, len(self.kinds)
        lengths = [len(self.numbers), *(map(len, self.own) if self.own else ())]
        if any(length != records for length in lengths):
            raise ValueError(f"headers: columns of {lengths} values for {records} records")
        if not len(self.before) == len(self.after) == len(self.counts):
            raise ValueError("kinds of headers: as many before as after the numbers, and as many counts are expected")
        if records and not 0 <= int(kinds.min()) <= int(kinds.max()) < len(self.counts):
            raise ValueError(f"kinds of headers: expected 0 to {len(self.counts) - 1}")
        columns = (kinds, self.counts, self.numbers, *(self.own[1:] if self.own else ()))
        if not all(is_plain(column) and (column >= 0).all() for column in columns):
            raise ValueError("kinds, counts and numbers of headers: expected int64 from 0 on")

    @property
    def bytes_max(self) -> int:
        """An upper bound of the size of all headers."""
        by_kind = [(spans, checked_bytes(spans)) for spans in (self.before, self.after)]
        shared = sum(int((spans.ends - spans.starts)[self.kinds].sum()) for spans, _ in by_kind)
        own = checked_bytes(self.own[0]) if self.own else 0
        return shared + own + (len(self.between) + _NUMBER_BYTES) * len(self.kinds)

    def struct(self) -> HeaderColumnsStruct:
        """An argument for a kernel, valid as long as these parts."""
        own, own_counts = self.own or (None, None)
        return HeaderColumnsStruct(
            parts_of(self.before)[0], parts_of(self.after)[0], self.counts.ctypes.data, self.kinds.ctypes.data,
            parts_of(own)[0] if own is not None else PartsStruct(),
            own_counts.ctypes.data if own_counts is not None else None,
            PieceStruct(self.between, len(self.between)), self.numbers.ctypes.data,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class RecordParts:
    """Records to be written."""

    keys: Spans
    """A span that ends before it starts is null."""
    values: Spans
    headers: HeaderParts

    def __post_init__(self) -> None:
        if not len(self.keys) == len(self.values) == len(self):
            raise ValueError(f"{len(self.keys)} keys, {len(self.values)} values and headers of {len(self)} records")

    def __len__(self) -> int:
        return len(self.headers.kinds)

    @property
    def bytes_max(self) -> int:
        """An upper bound of the size of all records."""
        given = checked_bytes(self.keys) + checked_bytes(self.values)
        return self.headers.bytes_max + given + _RECORD_HEAD_BYTES * len(self)


def write_records(library: Library, parts: RecordParts, span: range, out: bytearray, at: int) -> tuple[int, int]:
    """Writes the records of a span of indexes to `out` from position `at` to its end, as many as fit.

    Returns the index of the first record that did not fit, and the position behind those that did.
    """
    if not (0 <= span.start <= span.stop <= len(parts) and 0 <= at <= len(out)):
        raise ValueError(f"records {span} of {len(parts)}, from position {at} of {len(out)} bytes")
    room = np.frombuffer(out, np.uint8)  # `out` cannot be resized while this exists
    length, headers = ctypes.c_int64(), parts.headers.struct()
    end: int = library.write_records(
        parts_of(parts.keys), parts_of(parts.values), ctypes.addressof(headers), span.start, span.stop, len(out) - at,
        room.ctypes.data + at, ctypes.addressof(length),
    )  # fmt: skip
    return end, at + length.value


def equal_spans(library: Library, spans: Spans, most: int) -> tuple[Sequence[int], NDArray[np.int64]] | None:
    """Finds equal strings: the first index of each of those that differ, and int64 (strings,), which of these each
    string is. None if more than `most` differ."""
    first, numbers = np.empty(most, np.int64), np.empty(len(spans), np.int64)
    checked_bytes(spans)
    found = library.number_parts(parts_of(spans), len(spans), most, first.ctypes.data, numbers.ctypes.data)
    return None if found < 0 else (first[:found].tolist(), numbers)


def checked_bytes(spans: Spans) -> int:
    """Bytes of all strings; `ValueError` if any is not within the content."""
    if not len(spans):
        return 0
    lengths = spans.ends - spans.starts
    within = spans.starts.min() >= 0 and spans.ends.max() <= len(spans.content)
    if not within or not all(map(is_plain, (spans.starts, spans.ends))):
        raise ValueError("spans outside of their content")
    return int(np.maximum(lengths, 0).sum())


def is_plain(places: Places) -> bool:
    """Whether a kernel can use the array where it is."""
    return places.dtype == np.int64 and places.flags.c_contiguous


def parts_of(spans: Spans) -> ctypes.Array[PartsStruct]:
    """An argument for a kernel, valid as long as `spans`."""
    content = ctypes.cast(ctypes.c_char_p(spans.content), ctypes.c_void_p)
    return (PartsStruct * 1)(PartsStruct(content, spans.starts.ctypes.data, spans.ends.ctypes.data))

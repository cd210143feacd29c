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


class PartsStruct(ctypes.Structure):
    """The struct `parts` of results.c; none at all by default."""

    _fields_ = [
        ("bytes", ctypes.c_char_p),
        ("starts", ctypes.c_void_p),
        ("ends", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("count", ctypes.c_int64),
    ]


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
    id_parts, value_parts = parts_of(ids), parts_of(values)
    room = count * (sum(map(len, pieces)) + _TEXT_HEAD_BYTES)
    room += checked_bytes(library, id_parts) + checked_bytes(library, value_parts)
    out, ends = np.empty(room, np.uint8), np.empty(count, np.int64)
    given = (PieceStruct * 3)(*(PieceStruct(piece, len(piece)) for piece in pieces))
    library.join_results(
        ENCODINGS.index(encoding), ctypes.addressof(given), ctypes.addressof(id_parts), ctypes.addressof(value_parts),
        out.ctypes.data, ends.ctypes.data,
    )  # fmt: skip
    return Spans.in_order(out[: ends[-1] if count else 0].tobytes(), ends)


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
        records = len(self.kinds)
        lengths = [len(self.numbers), *(map(len, self.own) if self.own else ())]
        if any(length != records for length in lengths):
            raise ValueError(f"headers: columns of {lengths} values for {records} records")
        if not len(self.before) == len(self.after) == len(self.counts):
            raise ValueError("kinds of headers: as many before as after the numbers, and as many counts are expected")
        if not all(map(is_plain, (self.kinds, self.counts, self.numbers, *(self.own[1:] if self.own else ())))):
            raise ValueError("kinds, counts and numbers of headers: expected contiguous int64")

    def struct(self) -> HeaderColumnsStruct:
        """An argument for a kernel, valid as long as these parts."""
        own, own_counts = self.own or (None, None)
        return HeaderColumnsStruct(
            parts_of(self.before), parts_of(self.after), self.counts.ctypes.data, self.kinds.ctypes.data,
            parts_of(own) if own is not None else PartsStruct(),
            own_counts.ctypes.data if own_counts is not None else None,
            PieceStruct(self.between, len(self.between)), self.numbers.ctypes.data,
        )  # fmt: skip


class RecordParts:
    """Records to be written."""

    def __init__(self, library: Library, keys: Spans, values: Spans, headers: HeaderParts) -> None:
        """Of `keys`, a span that ends before it starts is null. `ValueError` if any part is not within its content."""
        if not len(keys) == len(values) == len(headers.kinds):
            raise ValueError(f"{len(keys)} keys, {len(values)} values and headers of {len(headers.kinds)} records")
        self._library, self._given = library, (keys, values, headers)
        self._structs = parts_of(keys), parts_of(values), headers.struct()
        self._addresses = tuple(map(ctypes.addressof, self._structs))
        if library.records_bytes(*self._addresses, 0, len(self)) < 0:
            raise ValueError("keys, values or headers outside of their content, or numbers of headers below 0")

    def __len__(self) -> int:
        return len(self._given[0])

    def bytes_max(self, span: range) -> int:
        """An upper bound of the size of the records of a span of indexes."""
        self._check(span)
        bound: int = self._library.records_bytes(*self._addresses, span.start, span.stop)
        return bound

    def write(self, span: range, out: bytearray, at: int) -> tuple[int, int]:
        """Writes the records of a span of indexes to `out` from position `at` to its end, as many as fit.

        Returns the index of the first record that did not fit, and the position behind those that did.
        """
        self._check(span)
        if not 0 <= at <= len(out):
            raise ValueError(f"records from position {at} of {len(out)} bytes")
        room = np.frombuffer(out, np.uint8)  # `out` cannot be resized while this exists
        length = ctypes.c_int64()
        end: int = self._library.write_records(
            *self._addresses, span.start, span.stop, len(out) - at, room.ctypes.data + at, ctypes.addressof(length)
        )
        return end, at + length.value

    def _check(self, span: range) -> None:
        if not 0 <= span.start <= span.stop <= len(self):
            raise ValueError(f"records {span} of {len(self)}")


def equal_spans(library: Library, spans: Spans, most: int) -> tuple[Sequence[int], NDArray[np.int64]] | None:
    """Finds equal strings: the first index of each of those that differ, and int64 (strings,), which of these each
    string is. None if more than `most` differ."""
    first, numbers, given = np.empty(most, np.int64), np.empty(len(spans), np.int64), parts_of(spans)
    checked_bytes(library, given)
    found = library.number_parts(ctypes.addressof(given), most, first.ctypes.data, numbers.ctypes.data)
    return None if found < 0 else (first[:found].tolist(), numbers)


def parts_of(spans: Spans) -> PartsStruct:
    """An argument for kernels, valid as long as `spans`; `checked_bytes` must have seen it first."""
    starts, ends = spans.starts, spans.ends
    if not (is_plain(starts) and is_plain(ends) and len(starts) == len(ends)):
        raise ValueError("spans: expected as many ends as starts, contiguous int64")
    return PartsStruct(spans.content, starts.ctypes.data, ends.ctypes.data, len(spans.content), len(starts))


def checked_bytes(library: Library, parts: PartsStruct) -> int:
    """Bytes of all strings; `ValueError` if any is not within the content."""
    n_bytes: int = library.parts_bytes(ctypes.addressof(parts))
    if n_bytes < 0:
        raise ValueError("spans outside of their content")
    return n_bytes


def is_plain(places: Places) -> bool:
    """Whether a kernel can use the array where it is."""
    return places.dtype == np.int64 and places.flags.c_contiguous

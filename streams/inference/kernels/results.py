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
"""Bytes of a record beside its key, value and headers at most: its length and offset, two bytes, and two lengths."""


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
    out = np.empty(count * room + _checked_bytes(ids) + _checked_bytes(values), np.uint8)
    ends = np.empty(count, np.int64)
    given = (PieceStruct * 3)(*(PieceStruct(piece, len(piece)) for piece in pieces))
    library.join_results(
        ENCODINGS.index(encoding), ctypes.addressof(given), _at(ids), _at(values), count, out.ctypes.data,
        ends.ctypes.data,
    )  # fmt: skip
    starts = np.concatenate([ends[:0], [0], ends[:-1]]) if count else ends
    return Spans(out[: ends[-1] if count else 0].tobytes(), starts, ends)


@dataclass(frozen=True, slots=True, eq=False)
class RecordParts:
    """Records to be written: the parts of record k are `keys[k]`, `values[k]` and `headers[kinds[k]]`."""

    keys: Spans
    """A span that ends before it starts is null."""
    values: Spans
    headers: Spans
    """Encoded headers, each with their number before them."""
    kinds: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.keys) == len(self.values) == len(self.kinds):
            raise ValueError(f"{len(self.keys)} keys, {len(self.values)} values and {len(self.kinds)} kinds of headers")
        if len(self.kinds) and not 0 <= int(self.kinds.min()) <= int(self.kinds.max()) < len(self.headers):
            raise ValueError(f"kinds of headers: expected 0 to {len(self.headers) - 1}")

    @property
    def bytes_max(self) -> int:
        """An upper bound of the size of all records."""
        headers = int((self.headers.ends - self.headers.starts)[self.kinds].sum())
        return headers + _checked_bytes(self.keys) + _checked_bytes(self.values) + _RECORD_HEAD_BYTES * len(self.kinds)


def write_records(library: Library, parts: RecordParts, span: range, out: bytearray, at: int) -> tuple[int, int]:
    """Writes the records of a span of indexes to `out` from position `at` to its end, as many as fit.

    Returns the index of the first record that did not fit, and the position behind those that did.
    """
    if not (0 <= span.start <= span.stop <= len(parts.kinds) and 0 <= at <= len(out)):
        raise ValueError(f"records {span} of {len(parts.kinds)}, from position {at} of {len(out)} bytes")
    room = np.frombuffer(out, np.uint8)  # `out` cannot be resized while this exists
    length = ctypes.c_int64()
    end: int = library.write_records(
        _at(parts.keys), _at(parts.values), _at(parts.headers), parts.kinds.ctypes.data, span.start, span.stop,
        len(out) - at, room.ctypes.data + at, ctypes.addressof(length),
    )  # fmt: skip
    return end, at + length.value


def equal_spans(library: Library, spans: Spans, most: int) -> tuple[Sequence[int], NDArray[np.int64]] | None:
    """Finds equal strings: the first index of each of those that differ, and int64 (strings,), which of these each
    string is. None if more than `most` differ."""
    first, numbers = np.empty(most, np.int64), np.empty(len(spans), np.int64)
    _checked_bytes(spans)
    found = library.number_parts(_at(spans), len(spans), most, first.ctypes.data, numbers.ctypes.data)
    return None if found < 0 else (first[:found].tolist(), numbers)


def _checked_bytes(spans: Spans) -> int:
    """Bytes of all strings; `ValueError` if any is not within the content."""
    if not len(spans):
        return 0
    lengths = spans.ends - spans.starts
    within = spans.starts.min() >= 0 and spans.ends.max() <= len(spans.content)
    if not within or not all(map(_is_plain, (spans.starts, spans.ends))):
        raise ValueError("spans outside of their content")
    return int(np.maximum(lengths, 0).sum())


def _is_plain(places: Places) -> bool:
    return places.dtype == np.int64 and places.flags.c_contiguous


def _at(spans: Spans) -> ctypes.Array[PartsStruct]:
    """An argument for a kernel, valid as long as `spans`."""
    content = ctypes.cast(ctypes.c_char_p(spans.content), ctypes.c_void_p)
    return (PartsStruct * 1)(PartsStruct(content, spans.starts.ctypes.data, spans.ends.ctypes.data))

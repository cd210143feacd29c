"""Splits the headers of many requests with the compiled kernel."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.headers import FITTING_BYTES
from inferd.schemas.limits import Limits
from inferd.streams.inference.kernels.compiled import Library
from inferd.streams.inference.kernels.results import checked_bytes, parts_of
from inferd.streams.inference.spans import Spans

_SPLIT, _MAY_BE_SAMPLED = 1, 2


class LimitsStruct(ctypes.Structure):
    """The struct `header_limits` of headers.c."""

    _fields_ = [(name, ctypes.c_int64) for name in ("headers", "header_bytes", "bytes")]


class ColumnStruct(ctypes.Structure):
    """The struct `header_column` of headers.c."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("to", "bytes", "ends", "counts")]


@dataclass(frozen=True, slots=True, eq=False)
class SplitHeaders:
    """The headers of records, encoded as in a record, in two parts."""

    propagated: Spans
    """Those that the result has unchanged."""
    propagated_counts: NDArray[np.int64]
    rest: Spans
    """Those that inferd reads, but deadlines."""
    rest_counts: NDArray[np.int64]
    deadlines: NDArray[np.int64]
    """int64 (records,): Unix milliseconds; -1 without."""
    split: NDArray[np.bool_]
    """bool (records,): the others are left to the parser; they have nothing in either part."""
    may_be_sampled: NDArray[np.bool_]
    """bool (records,): whether a `traceparent` may say that its trace is recorded."""


def split_headers(library: Library, heads: Spans, counts: NDArray[np.int64], limits: Limits) -> SplitHeaders:
    """`heads`: the headers of each record; `counts`: int64 (records,), how many they are."""
    number, given = len(heads), parts_of(heads)
    room = checked_bytes(library, given)
    if len(counts) != number or counts.dtype != np.int64 or not counts.flags.c_contiguous:
        raise ValueError(f"{len(counts)} numbers of headers of {number} records")
    contents = [np.empty(room, np.uint8) for _ in range(2)]
    ends, found_counts = np.empty((2, number), np.int64), np.empty((2, number), np.int64)
    deadlines, found = np.empty(number, np.int64), np.empty(number, np.uint8)
    columns = (ColumnStruct * 2)(*(
        ColumnStruct(None, content.ctypes.data, each.ctypes.data, each_counts.ctypes.data)
        for content, each, each_counts in zip(contents, ends, found_counts, strict=True)
    ))  # fmt: skip
    bounds = LimitsStruct(limits.headers_max, limits.header_bytes_max, FITTING_BYTES)
    library.split_headers(
        ctypes.addressof(given), counts.ctypes.data, ctypes.addressof(bounds), ctypes.addressof(columns[0]),
        ctypes.addressof(columns[1]), deadlines.ctypes.data, found.ctypes.data,
    )  # fmt: skip
    propagated, rest = (
        Spans.in_order(content[: each[-1] if number else 0].tobytes(), each)
        for content, each in zip(contents, ends, strict=True)
    )
    split, sampled = (found & _SPLIT).astype(bool), (found & _MAY_BE_SAMPLED).astype(bool)
    return SplitHeaders(propagated, found_counts[0], rest, found_counts[1], deadlines, split, sampled)

"""Fetched records as columns: the bytes of record batches, and where the parts of each record are.

A block is a sequence of records like any other, whose objects are made when they are asked for. What has to be fast
uses its columns instead: an object for each record takes longer than scoring its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.limits import Limits
from inferd.streams.inference.encoded_headers import Headers, headers_of
from inferd.streams.inference.kernels import RECORD, SplitHeaders, UnavailableError, equal_spans, library, split_headers
from inferd.streams.inference.spans import Spans
from inferd.streams.inference.work import Record

DIFFERENT_HEADERS_MAX = 16
"""Up to so many different headers, the headers of equal records are read once; otherwise those of all by a kernel."""


class BlockRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of a block."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class RecordBlock(Sequence[BlockRecord]):
    """Records of one partition, or of several ones after each other. Immutable."""

    __slots__ = ("_records", "columns", "content")

    def __init__(self, content: bytes, columns: NDArray[np.void]) -> None:
        """`columns`: `RECORD` (records,), all within `content`."""
        self.content = content
        self.columns = columns
        self._records: list[BlockRecord] | None = None

    @classmethod
    def join(cls, blocks: Sequence[RecordBlock]) -> RecordBlock:
        """The records of all blocks, of which there is at least one, in a new one."""
        if len(blocks) == 1:
            return blocks[0]
        parts = [block for block in blocks if len(block)]
        spans = [block._span() for block in parts]  # noqa: SLF001
        numbers = [np.ascontiguousarray(block.columns).view(np.int64) for block in parts]
        columns = np.concatenate([np.zeros(0, np.int64), *numbers]).view(RECORD)
        starts = accumulate((end - start for start, end in spans), initial=0)
        shifts = [begin - start for begin, (start, _) in zip(starts, spans, strict=False)]
        moved = np.repeat(np.array(shifts, np.int64), [len(block) for block in parts])
        for name in ("key_at", "value_at", "headers_at"):
            columns[name] += moved
        pieces = [block.content[start:end] for block, (start, end) in zip(parts, spans, strict=True)]
        return cls(b"".join(pieces), columns)

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, index: int) -> BlockRecord: ...
    @overload
    def __getitem__(self, index: slice) -> RecordBlock: ...
    def __getitem__(self, index: int | slice) -> BlockRecord | RecordBlock:
        if isinstance(index, slice):
            return RecordBlock(self.content, self.columns[index])
        if self._records is not None:
            return self._records[index]
        return self._made([self.columns.item(index)])[0]

    def __iter__(self) -> Iterator[BlockRecord]:
        if self._records is None:
            self._records = self._made(self.columns.tolist())
        return iter(self._records)

    def key_spans(self) -> Spans:
        """The key of each record; a null ends before it starts."""
        starts = np.ascontiguousarray(self.columns["key_at"])
        return Spans(self.content, starts, starts + self.columns["key_length"])

    def keys(self) -> list[bytes | None]:
        """The key of each record."""
        return self.key_spans().or_none()

    def values(self) -> Spans:
        """The value of each record; empty if it is null."""
        return self._spans("value")

    def by_headers(self) -> dict[Headers, list[int]]:
        """The indexes of the records with the same headers."""
        return group_headers(self._spans("headers"), self.columns["headers"])

    def by_few_headers(self) -> dict[Headers, list[int]] | None:
        """Like `by_headers`; None if many differ, and kernels can split them."""
        heads = self._spans("headers")
        try:
            found = _groups(heads)
        except UnavailableError:
            return self.by_headers()
        return None if found is None else _decoded(heads, self.columns["headers"], found)

    def split_headers(self, limits: Limits) -> SplitHeaders:
        """The headers of each record in two parts; `UnavailableError` without kernels."""
        counts = np.ascontiguousarray(self.columns["headers"])
        return split_headers(library(), self._spans("headers"), counts, limits)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of key, value and headers of each record."""
        columns = self.columns
        sizes: NDArray[np.int64] = np.maximum(columns["key_length"], 0) + np.maximum(columns["value_length"], 0)
        sizes += columns["headers_length"]
        return sizes

    def _spans(self, name: str) -> Spans:
        """The key, value or headers of each record; empty if it is null."""
        starts = np.ascontiguousarray(self.columns[f"{name}_at"])
        return Spans(self.content, starts, starts + np.maximum(self.columns[f"{name}_length"], 0))

    def _made(self, rows: list[Any]) -> list[BlockRecord]:
        content = self.content
        known: dict[bytes, Headers] = {b"": ()}
        made = []
        for offset, timestamp, key, key_length, value, value_length, headers, headers_length, count in rows:
            encoded = content[headers : headers + headers_length] if count else b""
            if (given := known.get(encoded)) is None:
                given = known[encoded] = headers_of(encoded, count)
            made.append(
                BlockRecord(
                    offset,
                    timestamp,
                    None if key_length < 0 else content[key : key + key_length],
                    None if value_length < 0 else content[value : value + value_length],
                    given,
                )
            )
        return made

    def _span(self) -> tuple[int, int]:
        """The part of the content that the records, of which there is one at least, are in."""
        columns = self.columns
        return int(columns["key_at"][0]), int(columns["headers_at"][-1] + columns["headers_length"][-1])


def group_headers(heads: Spans, counts: NDArray[np.int64]) -> dict[Headers, list[int]]:
    """The indexes of equal headers. `heads`: encoded; `counts`: how many they are."""
    found: Iterable[list[int]] | None = None
    with suppress(UnavailableError):
        found = _groups(heads)
    if found is None:
        indexes: dict[bytes, list[int]] = {}
        for index, encoded in enumerate(heads):
            indexes.setdefault(encoded, []).append(index)
        found = indexes.values()
    return _decoded(heads, counts, found)


def _groups(strings: Spans) -> list[list[int]] | None:
    """The indexes of equal strings; None if more than `DIFFERENT_HEADERS_MAX` differ; `UnavailableError`."""
    found = equal_spans(library(), strings, DIFFERENT_HEADERS_MAX)
    if found is None:
        return None
    first, numbers = found
    return [np.flatnonzero(numbers == number).tolist() for number in range(len(first))]


def _decoded(heads: Spans, counts: NDArray[np.int64], equal: Iterable[list[int]]) -> dict[Headers, list[int]]:
    groups: dict[Headers, list[int]] = {}
    for found in equal:  # lengths have several encodings: different bytes may be the same headers
        groups.setdefault(headers_of(heads[found[0]], int(counts[found[0]])), []).extend(found)
    return groups


def joined_records(parts: Sequence[Sequence[Record]]) -> Sequence[Record]:
    """The records of all parts, after each other: a block if all parts are."""
    if len(parts) == 1:
        return parts[0]
    blocks = [part for part in parts if isinstance(part, RecordBlock)]
    if blocks and len(blocks) == len(parts):
        return RecordBlock.join(blocks)
    return [record for part in parts for record in part]


def record_timestamps(records: Sequence[Record]) -> list[int]:
    """The timestamp of each record."""
    if isinstance(records, RecordBlock):
        stamps: list[int] = records.columns["timestamp"].tolist()
        return stamps
    return [record.timestamp for record in records]


def record_keys(records: Sequence[Record]) -> list[bytes | None]:
    """The key of each record."""
    return records.keys() if isinstance(records, RecordBlock) else [record.key for record in records]


def record_values(records: Sequence[Record]) -> Sequence[bytes]:
    """The value of each record; empty if it is null."""
    return records.values() if isinstance(records, RecordBlock) else [record.value or b"" for record in records]

"""Records to be produced: one by one, or many as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import overload

import numpy as np
from aiokafka.record.util import encode_varint
from numpy.typing import NDArray

from inferd.streams.inference import EncodedHeaders, HeaderParts, RecordParts, Spans, library

HeaderList = list[tuple[str, bytes | None]]
Outgoing = tuple[bytes | None, bytes | None, HeaderList]
"""Key, value and headers; aiokafka requires headers to be a list."""


@dataclass(frozen=True, slots=True, eq=False)
class HeaderColumns:
    """Headers of records as columns: those of record k are `before[kinds[k]]`, its own, `between`, its number, and
    `after[kinds[k]]`. Immutable."""

    kinds: NDArray[np.int64]
    """int64 (records,)."""
    before: Sequence[HeaderList]
    own: EncodedHeaders | None
    """None if no record has any."""
    between: HeaderList
    number_name: str
    numbers: NDArray[np.int64]
    """int64 (records,): not negative; decimal digits as a value."""
    after: Sequence[HeaderList]

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, index: int) -> HeaderList:
        kind, own_headers = self.kinds[index], () if self.own is None else self.own[index]
        number = (self.number_name, b"%d" % self.numbers[index])
        return [*self.before[kind], *own_headers, *self.between, number, *self.after[kind]]

    def encoded(self) -> HeaderParts:
        """The headers as a record has them."""
        before, after = (
            Spans.of([b"".join(map(_encoded, each)) for each in lists]) for lists in (self.before, self.after)
        )
        others = len(self.between) + 1
        counts = [others + len(first) + len(last) for first, last in zip(self.before, self.after, strict=True)]
        own = None if self.own is None else (self.own.encoded, self.own.counts)
        between = b"".join([*map(_encoded, self.between), _sized(self.number_name.encode())])
        return HeaderParts(self.kinds, before, after, np.array(counts, np.int64), own, between, self.numbers)


@dataclass(frozen=True, eq=False)
class OutgoingColumns:
    """Records of a micro-batch as columns. Immutable."""

    keys: Spans
    """A span that ends before it starts is null."""
    values: Spans
    headers: HeaderColumns

    @cached_property
    def parts(self) -> RecordParts:
        """The records for the kernel; `UnavailableError` without it."""
        return RecordParts(library(), self.keys, self.values, self.headers.encoded())


@dataclass(frozen=True, slots=True, eq=False)
class OutgoingBlock(Sequence[Outgoing]):
    """Some of the records of columns: an object for each takes longer than writing it. Immutable."""

    columns: OutgoingColumns
    span: range
    """Of indexes, by 1."""

    def __len__(self) -> int:
        return len(self.span)

    @overload
    def __getitem__(self, index: int) -> Outgoing: ...
    @overload
    def __getitem__(self, index: slice) -> OutgoingBlock: ...
    def __getitem__(self, index: int | slice) -> Outgoing | OutgoingBlock:
        if isinstance(index, slice):
            return OutgoingBlock(self.columns, self.span[index])
        columns, place = self.columns, self.span[index]
        (key,) = columns.keys[place : place + 1].or_none()
        return key, columns.values[place], columns.headers[place]


OutgoingRecords = list[Outgoing] | OutgoingBlock


@lru_cache(maxsize=4_096)
def _encoded(header: tuple[str, bytes | None]) -> bytes:
    return _sized(header[0].encode()) + _sized(header[1])


def _sized(part: bytes | None) -> bytes:
    return _varint(-1 if part is None else len(part)) + (part or b"")


@lru_cache(maxsize=1_024)
def _varint(number: int) -> bytes:
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)

"""Records to be produced: one by one, or many as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference import EncodedHeaders, Spans

HeaderList = list[tuple[str, bytes | None]]
Outgoing = tuple[bytes | None, bytes | None, HeaderList]
"""Key, value and headers; aiokafka requires headers to be a list."""


@dataclass(frozen=True, slots=True, eq=False)
class HeaderColumns(Sequence[HeaderList]):
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

    @overload
    def __getitem__(self, index: int) -> HeaderList: ...
    @overload
    def __getitem__(self, index: slice) -> HeaderColumns: ...
    def __getitem__(self, index: int | slice) -> HeaderList | HeaderColumns:
        if isinstance(index, slice):
            own = None if self.own is None else self.own.part(range(*index.indices(len(self))))
            kinds, numbers = self.kinds[index].copy(), self.numbers[index].copy()
            return HeaderColumns(kinds, self.before, own, self.between, self.number_name, numbers, self.after)
        kind, own_headers = self.kinds[index], () if self.own is None else self.own[index]
        number = (self.number_name, b"%d" % self.numbers[index])
        return [*self.before[kind], *own_headers, *self.between, number, *self.after[kind]]


@dataclass(frozen=True, slots=True, eq=False)
class OutgoingBlock(Sequence[Outgoing]):
    """Records as columns: an object for each takes longer than writing it. Immutable."""

    keys: Spans
    """A span that ends before it starts is null."""
    values: Spans
    headers: HeaderColumns

    def __len__(self) -> int:
        return len(self.headers)

    @overload
    def __getitem__(self, index: int) -> Outgoing: ...
    @overload
    def __getitem__(self, index: slice) -> OutgoingBlock: ...
    def __getitem__(self, index: int | slice) -> Outgoing | OutgoingBlock:
        if isinstance(index, slice):
            return OutgoingBlock(self.keys[index], self.values[index], self.headers[index])
        (key,) = self.keys[index : index + 1].or_none()
        return key, self.values[index], self.headers[index]

    def __iter__(self) -> Iterator[Outgoing]:
        return iter([*zip(self.keys.or_none(), self.values, self.headers, strict=True)])


OutgoingRecords = list[Outgoing] | OutgoingBlock

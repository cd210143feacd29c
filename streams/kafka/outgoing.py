"""Records to be produced: one by one, or many as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference import Spans

HeaderList = list[tuple[str, bytes | None]]
Outgoing = tuple[bytes | None, bytes | None, HeaderList]
"""Key, value and headers; aiokafka requires headers to be a list."""


@dataclass(frozen=True, slots=True, eq=False)
class OutgoingBlock(Sequence[Outgoing]):
    """Records as columns: an object for each takes longer than writing it. Immutable."""

    keys: Spans
    """A span that ends before it starts is null."""
    values: Spans
    headers: Sequence[HeaderList]
    """Those that differ."""
    kinds: NDArray[np.int64]
    """int64 (records,): which headers each record has."""

    def __len__(self) -> int:
        return len(self.kinds)

    @overload
    def __getitem__(self, index: int) -> Outgoing: ...
    @overload
    def __getitem__(self, index: slice) -> OutgoingBlock: ...
    def __getitem__(self, index: int | slice) -> Outgoing | OutgoingBlock:
        if isinstance(index, slice):
            return OutgoingBlock(self.keys[index], self.values[index], self.headers, self.kinds[index].copy())
        (key,) = self.keys[index : index + 1].or_none()
        return key, self.values[index], self.headers[self.kinds[index]]

    def __iter__(self) -> Iterator[Outgoing]:
        columns = zip(self.keys.or_none(), self.values, self.kinds.tolist(), strict=True)
        return iter([(key, value, self.headers[kind]) for key, value, kind in columns])


OutgoingRecords = list[Outgoing] | OutgoingBlock

"""Byte strings as parts of one content, so that kernels read them where they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Spans(Sequence[bytes]):
    """The strings `content[starts[k] : ends[k]]`. Immutable."""

    content: bytes
    starts: Places
    """C-contiguous, as is `ends`: kernels get their addresses."""
    ends: Places

    @classmethod
    def of(cls, strings: Sequence[bytes]) -> Spans:
        """The strings themselves if they are spans, otherwise a copy of them in a content of its own."""
        if isinstance(strings, Spans):
            return strings
        lengths = np.fromiter(map(len, strings), np.int64, len(strings))
        ends = np.cumsum(lengths)
        return cls(b"".join(strings), ends - lengths, ends)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Spans: ...
    def __getitem__(self, index: int | slice) -> bytes | Spans:
        if isinstance(index, slice):
            starts, ends = self.starts[index], self.ends[index]
            return Spans(self.content, np.ascontiguousarray(starts), np.ascontiguousarray(ends))
        return self.content[self.starts[index] : self.ends[index]]

    def __iter__(self) -> Iterator[bytes]:
        content = self.content
        spans = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return iter([content[start:end] for start, end in spans])

    def take(self, places: Sequence[int] | NDArray[Any]) -> Spans:
        """The strings at indexes, or where a mask is true."""
        return Spans(self.content, self.starts[places], self.ends[places])

"""Byte strings as parts of one content, so that kernels read them where they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
Indexes = NDArray[np.intp]
"""Of records or requests: intp (count,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Spans(Sequence[bytes]):
    """The strings `content[starts[k] : ends[k]]`. Immutable. One that ends before it starts stands for a null, where
    there may be some."""

    content: bytes
    starts: Places
    """C-contiguous, as is `ends`: kernels get their addresses."""
    ends: Places

    @classmethod
    def of(cls, strings: Sequence[bytes]) -> Spans:
        """The strings themselves if they are spans, otherwise a copy of them in a content of its own."""
        if isinstance(strings, Spans):
            return strings
        ends = np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)))
        return cls.in_order(b"".join(strings), ends)

    @classmethod
    def in_order(cls, content: bytes, ends: Places) -> Spans:
        """Strings one after the other, from the beginning of the content on."""
        starts = np.zeros_like(ends)
        starts[1:] = ends[:-1]
        return cls(content, starts, ends)

    @classmethod
    def merge(cls, parts: Sequence[tuple[Indexes, Spans]]) -> Spans:
        """The strings of all parts, each with the index that its strings have; together, these are all indexes."""
        count = sum(len(strings) for _, strings in parts)
        if len(parts) == 1 and (parts[0][0] == np.arange(count)).all():
            return parts[0][1]
        starts, ends, base = np.empty(count, np.int64), np.empty(count, np.int64), 0
        for indexes, strings in parts:
            starts[indexes], ends[indexes] = strings.starts + base, strings.ends + base
            base += len(strings.content)
        return cls(b"".join([strings.content for _, strings in parts]), starts, ends)

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

    def or_none(self) -> list[bytes | None]:
        """The strings, with None for nulls."""
        strings: list[bytes | None] = list(self)
        given = self.ends >= self.starts
        if given.all():
            return strings
        return [string if is_given else None for string, is_given in zip(strings, given.tolist(), strict=True)]

    @property
    def n_bytes(self) -> int:
        """Bytes of all strings."""
        return int((self.ends - self.starts).sum())

    @property
    def bytes_max(self) -> int:
        """Bytes of the longest string; 0 without any."""
        return int((self.ends - self.starts).max(initial=0))

    def take(self, places: Sequence[int] | NDArray[Any]) -> Spans:
        """The strings at indexes, or where a mask is true."""
        return Spans(self.content, self.starts[places], self.ends[places])


@dataclass(frozen=True, slots=True, eq=False)
class AsciiTexts(Sequence[str]):
    """Texts of ASCII as parts of one content. Immutable."""

    spans: Spans

    def __len__(self) -> int:
        return len(self.spans)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> AsciiTexts: ...
    def __getitem__(self, index: int | slice) -> str | AsciiTexts:
        if isinstance(index, slice):
            return AsciiTexts(self.spans[index])
        return self.spans[index].decode("ascii")

    def __iter__(self) -> Iterator[str]:
        # In Latin-1, each byte of the content is one character.
        text = self.spans.content.decode("latin-1")
        spans = zip(self.spans.starts.tolist(), self.spans.ends.tolist(), strict=True)
        return iter([text[start:end] for start, end in spans])

    def take(self, places: Sequence[int] | NDArray[Any]) -> AsciiTexts:
        """The texts at indexes."""
        return AsciiTexts(self.spans.take(places))

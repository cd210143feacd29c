"""Headers of records as record batches hold them: they are copied from requests to results without being decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.spans import Spans

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedHeaders:
    """Headers of records, as columns. Immutable."""

    encoded: Spans
    counts: NDArray[np.int64]
    """int64 (records,): how many headers each record has."""
    may_be_sampled: NDArray[np.bool_]
    """bool (records,): whether a `traceparent` may say that its trace is recorded."""

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def none(cls, records: int) -> EncodedHeaders:
        """No headers of so many records."""
        places = np.zeros(records, np.int64)
        return cls(Spans(b"", places, places), places, np.zeros(records, bool))

    def __getitem__(self, index: int) -> Headers:
        return headers_of(self.encoded[index], int(self.counts[index]))

    def without(self, indexes: Sequence[int]) -> EncodedHeaders:
        """The same, but no headers of the records at `indexes`."""
        if not indexes:
            return self
        ends, counts, sampled = self.encoded.ends.copy(), self.counts.copy(), self.may_be_sampled.copy()
        ends[indexes], counts[indexes], sampled[indexes] = self.encoded.starts[indexes], 0, False
        return EncodedHeaders(Spans(self.encoded.content, self.encoded.starts, ends), counts, sampled)

    def then(self, other: EncodedHeaders) -> EncodedHeaders:
        """These, followed by those of other records."""
        ranges = np.arange(len(self)), np.arange(len(self), len(self) + len(other))
        return EncodedHeaders(
            Spans.merge([*zip(ranges, (self.encoded, other.encoded), strict=True)]),
            np.concatenate([self.counts, other.counts]),
            np.concatenate([self.may_be_sampled, other.may_be_sampled]),
        )

    def sampled(self) -> Iterator[tuple[int, Headers]]:
        """The headers of the records whose trace may be recorded, by their index."""
        return ((index, self[index]) for index in np.flatnonzero(self.may_be_sampled).tolist())


def headers_of(encoded: bytes, count: int) -> Headers:
    """Decodes headers that were checked."""
    at, headers = 0, []
    for _ in range(count):
        length, at = _varint(encoded, at)
        name, at = encoded[at : at + length].decode(), at + length
        length, at = _varint(encoded, at)
        value, at = (None, at) if length < 0 else (encoded[at : at + length], at + length)
        headers.append((name, value))
    return tuple(headers)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    bits = shift = 0
    while True:
        byte = data[at]
        bits |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (bits >> 1) ^ -(bits & 1), at

"""A queue of the keys of one model version, in little memory: Python objects would take several times as much."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.cache.keys import KEY_BYTES, PREFIX_BYTES

_PLACE_BYTES: Final = KEY_BYTES - PREFIX_BYTES
_CHUNK_BYTES: Final = 512 * _PLACE_BYTES
_CHUNKS_AT_ONCE: Final = 64
_PLACE: Final = np.dtype([("before", "V11"), ("word", "<u4"), ("after", "V8")])


class KeyQueue:
    """First in, first out. All keys have the same prefix; the rest of a key takes 23 bytes.

    Keys are joined in chunks. `inspect` goes through them in rounds, in as many steps as the caller wants, and removes
    keys wherever they are; appending and removing at the ends may happen between the steps.
    """

    __slots__ = ("_chunks", "_prefix", "_seen_bytes", "_seen_chunks", "_size")

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._chunks: deque[bytearray] = deque()
        """None is empty."""
        self._size = 0
        self._seen_chunks = 0
        """How far the round is: whole chunks, and bytes of the next one."""
        self._seen_bytes = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            yield from self._keys(chunk)

    @property
    def n_bytes(self) -> int:
        """Memory of the chunks."""
        return sum(chunk.__sizeof__() for chunk in self._chunks)

    def append(self, key: bytes) -> None:
        """Adds a key at the end."""
        if not self._chunks or len(self._chunks[-1]) >= _CHUNK_BYTES:
            self._chunks.append(bytearray())
        self._chunks[-1] += key[PREFIX_BYTES:]
        self._size += 1

    def extend(self, keys: Iterable[bytes]) -> None:
        """Adds keys at the end."""
        joined = b"".join([key[PREFIX_BYTES:] for key in keys])
        self._size += len(joined) // _PLACE_BYTES
        start = 0
        if self._chunks and joined:
            start = max(0, _CHUNK_BYTES - len(self._chunks[-1]))
            self._chunks[-1] += joined[:start]
        self._chunks.extend(bytearray(joined[at : at + _CHUNK_BYTES]) for at in range(start, len(joined), _CHUNK_BYTES))

    def popleft(self) -> bytes:
        """Removes and returns the oldest key; `IndexError` if there is none."""
        chunk = self._chunks[0]
        place = bytes(chunk[:_PLACE_BYTES])
        del chunk[:_PLACE_BYTES]  # moves nothing: a bytearray remembers where it begins
        self._size -= 1
        if not chunk:
            self._chunks.popleft()
            if self._seen_chunks:
                self._seen_chunks -= 1
            else:
                self._seen_bytes = 0
        elif not self._seen_chunks:
            self._seen_bytes = max(0, self._seen_bytes - _PLACE_BYTES)
        return self._prefix + place

    def inspect(self, limit: int, keep: Callable[[list[bytes]], Sequence[bytes]]) -> int:
        """Passes the next keys of the round, at most `limit`, to `keep`, and removes those that it does not return.

        Returns how many were passed; 0 at the end of the round, after which the next one begins.
        """
        if self._seen_chunks >= len(self._chunks):
            self._seen_chunks = self._seen_bytes = 0
            return 0
        chunk, start = self._chunks[self._seen_chunks], self._seen_bytes
        keys = self._keys(chunk[start : start + limit * _PLACE_BYTES])
        kept = keep(keys)
        if len(kept) < len(keys):
            chunk[start : start + len(keys) * _PLACE_BYTES] = b"".join([key[PREFIX_BYTES:] for key in kept])
            self._size -= len(keys) - len(kept)
        self._seen_bytes += len(kept) * _PLACE_BYTES
        if not chunk:
            del self._chunks[self._seen_chunks]
            self._seen_bytes = 0
        elif self._seen_bytes >= len(chunk):
            self._seen_chunks, self._seen_bytes = self._seen_chunks + 1, 0
        return len(keys)

    def words(self) -> Iterator[NDArray[np.uint32]]:
        """32 bits of each key, as `word_of`, in parts; uint32 (keys,)."""
        chunks = iter(self._chunks)
        while part := b"".join(islice(chunks, _CHUNKS_AT_ONCE)):
            yield np.frombuffer(part, _PLACE)["word"]

    def _keys(self, places: bytearray) -> list[bytes]:
        prefix, joined = self._prefix, bytes(places)
        return [prefix + joined[at : at + _PLACE_BYTES] for at in range(0, len(joined), _PLACE_BYTES)]


def word_of(key: bytes) -> int:
    """32 bits of a key's hash."""
    return int.from_bytes(key[-12:-8], "little")

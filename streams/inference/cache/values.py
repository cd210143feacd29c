"""Values of the prediction cache: the exact arrays that a runtime computed for one row, and their expiry.

A value is a row of little-endian 64-bit words: the Unix milliseconds at which it expires, the arrays of its outputs
(each padded to whole words), and a check sum over these and its key. Results are made from cached arrays in the same
way as from computed ones, and have the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.requests import Output
from inferd.streams.inference.cache.keys import KEY_BYTES
from inferd.streams.inference.runtime import Arrays, ModelRuntime

_WORD: Final = 8
_SALT: Final = 0x5851F42D4C957F2D
_EXPIRY_BYTES: Final = slice(0, _WORD)

Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Column:
    """The position of an output's array in a value."""

    output: Output
    dtype: np.dtype[np.float64] | np.dtype[np.int32]
    shape: tuple[int, ...]
    """Of one row."""
    start: int
    stop: int
    """Words."""


class ValueLayout:
    """The positions of a version's output arrays in a value."""

    def __init__(self, runtime: ModelRuntime, outputs: Sequence[Output], *, are_labels: bool = False) -> None:
        """`are_labels`: `prediction` has indexes of class labels."""
        columns, start = [], 1
        for output in outputs:
            shape = _row_shape(runtime, output)
            is_index = output == "leaves" or (are_labels and output == "prediction")
            dtype = np.dtype("<i4") if is_index else np.dtype("<f8")
            stop = start + -(-prod(shape) * dtype.itemsize // _WORD)
            columns.append(_Column(output, dtype, shape, start, stop))
            start = stop
        self._columns = tuple(columns)
        self._words = start + 1
        self.n_bytes = self._words * _WORD

    def encode(self, keys: Sequence[bytes], arrays: Arrays, expires_at_ms: int) -> list[bytes]:
        """The values of rows. Each of `arrays`, which must fit (`fits`), has one row per key."""
        words = np.zeros((len(keys), self._words), dtype="<u8")
        words[:, 0] = expires_at_ms
        for column in self._columns:
            rows = np.ascontiguousarray(arrays[column.output], dtype=column.dtype).reshape(
                len(keys), prod(column.shape)
            )
            words[:, column.start : column.stop].view(column.dtype)[:, : rows.shape[1]] = rows
        words[:, -1] = _check_sums(words, keys)
        data = words.tobytes()
        return [data[start : start + self.n_bytes] for start in range(0, len(data), self.n_bytes)]

    def decode(
        self, keys: Sequence[bytes], values: Sequence[bytes | None], now_ms: int, ttl_ms: int
    ) -> tuple[NDArray[np.intp], Arrays, int]:
        """The places of the values that are valid at `now_ms`, their arrays in this order, and the number of expired
        values.

        Anything that is not a value of this key and layout is ignored. A value that would expire later than `ttl_ms`
        from now counts as expired: the manifest's `ttl_s` was reduced, or a clock was wrong.
        """
        n_bytes = self.n_bytes
        places = [place for place, value in enumerate(values) if value is not None and len(value) == n_bytes]
        joined = b"".join([values[place] for place in places])  # type: ignore[misc]  # None was left out
        words: Words = np.frombuffer(joined, dtype="<u8").reshape(len(places), self._words)
        if len(places) < len(keys):
            keys = [keys[place] for place in places]
        sound = words[:, -1] == _check_sums(words, keys)
        expires_at = words[:, 0].view("<i8")
        fresh = sound & (expires_at > now_ms) & (expires_at <= now_ms + ttl_ms)
        expired = int(np.count_nonzero(sound)) - int(np.count_nonzero(fresh))
        chosen = np.array(places, dtype=np.intp)
        if not fresh.all():
            words, chosen = words[fresh], chosen[fresh]
        return chosen, {column.output: _rows(words, column) for column in self._columns}, expired

    def fits(self, arrays: Arrays) -> bool:
        """Whether a runtime's arrays have the shapes and types of the protocol."""
        return all(
            arrays[column.output].dtype == column.dtype and arrays[column.output].shape[1:] == column.shape
            for column in self._columns
        )

    def empty(self, rows: int) -> Arrays:
        """Uninitialized arrays for this number of rows."""
        return {column.output: np.empty((rows, *column.shape), dtype=column.dtype) for column in self._columns}


def expires_at_ms(value: bytes) -> int:
    """When a value of any layout expires, in Unix milliseconds; 0 for an invalid value."""
    return int.from_bytes(value[_EXPIRY_BYTES], "little") if len(value) >= 2 * _WORD else 0


def _rows(words: Words, column: _Column) -> NDArray[np.float64] | NDArray[np.int32]:
    part = np.ascontiguousarray(words[:, column.start : column.stop])
    items = part.view(column.dtype)[:, : prod(column.shape)]
    return np.ascontiguousarray(items).reshape(len(words), *column.shape)


def _row_shape(runtime: ModelRuntime, output: Output) -> tuple[int, ...]:
    """The shape of one row of an output, as in `ModelRuntime.predict`."""
    per_row, values = runtime.outputs_per_row, runtime.values_per_row(output)
    if output in ("probabilities", "leaves"):
        return (values,)
    if output == "contributions":
        return (values,) if per_row == 1 else (per_row, values // per_row)
    return () if values == 1 else (values,)


def _check_sums(words: Words, keys: Sequence[bytes]) -> Words:
    """uint64 (rows,), over all words but the last, and the end of the key, so that a value under another key is
    invalid.

    Each word is multiplied by an odd factor, so that any change of a single word is detected.
    """
    ends = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), KEY_BYTES)[:, -_WORD:]
    sums = words[:, :-1] @ _factors(words.shape[1] - 1)
    return np.asarray(sums ^ np.ascontiguousarray(ends).view("<u8").ravel() ^ np.uint64(_SALT), dtype=np.uint64)


@cache
def _factors(count: int) -> Words:
    numbers = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_SALT)
    return np.asarray((numbers ^ (numbers >> np.uint64(31))) | np.uint64(1), dtype=np.uint64)

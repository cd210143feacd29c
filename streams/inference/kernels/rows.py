"""Reads rows of requests with the compiled kernel: JSON and MessagePack, by name or by position."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels.compiled import Library
from inferd.streams.inference.spans import Spans

Encoding = Literal["msgpack", "json"]
ENCODINGS: tuple[Encoding, ...] = ("msgpack", "json")
"""In the order of their numbers in rows.c."""
_TEXT, _NUMBER, _BOOLEAN, _NAME, _KINDS = 0, 1, 2, 3, 4
_NAMES = -1
_INTEGER_MAX = 2**53
_POWERS = range(-342, 309)
_ENTRY = np.dtype([("at", "i8"), ("length", "i8"), ("owner", "i8"), ("code", "f8")])


@dataclass(frozen=True, slots=True, eq=False)
class RowSchema:
    """The valid rows of a model whose features are all in the numeric matrix."""

    names: Sequence[str]
    """Of the features, in the order of the matrix's columns."""
    omissible: Sequence[bool]
    """Whether a row by name may lack the feature."""
    categories: Mapping[int, Mapping[Any, float]]
    """By feature, the codes of its categories: text, numbers, booleans."""
    order: Sequence[int]
    """The feature of each value of a positional row; the features that it lacks are omissible."""
    unknown_is_missing: bool
    """Whether an unknown category is a missing value; else the row is not read."""


class _Schema(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("features", "width", "entries", "slots", "text_max", "unknown")),
        *((name, ctypes.c_void_p) for name in ("order", "omissible", "by_category", "entry", "slot", "bytes", "power")),
    ]


class MatrixKernel:
    """Reads encoded rows into a matrix, by a compiled schema. Thread-safe: calls only read it."""

    def __init__(self, read: Callable[..., int], features: int, schema: CompiledSchema, *arguments: int) -> None:
        """`read`: the kernel, which gets the schema and the `arguments` first."""
        self._read, self._schema, self._arguments = read, schema, arguments
        self.features = features
        self.schema_at = schema.at
        """The address of the schema."""

    def read(self, encoding: Encoding, rows: Sequence[bytes]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The rows that the kernel can read, float64 (readable rows, features), C-contiguous, NaN where a value is
        missing; and which these are, bool (rows,).

        `MemoryError` if there is no memory for the names of a row.
        """
        spans = Spans.of(rows)
        matrix, fits = np.empty((len(rows), self.features)), np.empty(len(rows), np.bool_)
        return matrix[: self.read_into(matrix, fits, encoding, spans.content, spans.starts, spans.ends)], fits

    def read_into(
        self,
        matrix: NDArray[np.float64],
        fits: NDArray[np.bool_],
        encoding: Encoding,
        content: bytes | int,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
    ) -> int:
        """Like `read`, for rows within bytes or the memory at an address, given where each starts and ends; returns the
        number of rows read."""
        places = (starts.ctypes.data, ends.ctypes.data, len(ends), matrix.ctypes.data, fits.ctypes.data)
        read = self._read(self._schema.at, *self._arguments, ENCODINGS.index(encoding), content, *places)
        if read < 0:
            raise MemoryError(f"names of {self.features} features")
        return read


class RowKernel(MatrixKernel):
    """Reads the rows of requests to one model."""

    def __init__(self, library: Library, schema: RowSchema) -> None:
        features = range(len(schema.names))
        refers_to = (*schema.order, *schema.categories)
        if len(schema.omissible) != len(features) or not all(each in features for each in refers_to):
            raise ValueError("the features of the schema disagree")
        names = [Entry(_NAMES, _NAME, plain_text(name), float(place)) for place, name in enumerate(schema.names)]
        compiled = CompiledSchema(library, schema, names)
        super().__init__(library.read_rows, len(features), compiled)
        self.text_bytes_max = compiled.text_bytes_max
        """Bytes of the longest text that is read; a row with a longer one is not."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A text or number in the hash table, and its meaning."""

    owner: int
    """A negative number for names, or the feature whose category it is."""
    kind: int
    content: bytes | None
    """None if it is never found."""
    code: float

    def columns(self, at: int) -> tuple[int, int, int, float]:
        owner = self.owner if self.owner < 0 else _KINDS * self.owner + self.kind
        return at, -1 if self.content is None else len(self.content), owner, self.code


class CompiledSchema:
    """A schema in the layout of rows.c, with the memory that it refers to."""

    def __init__(self, library: Library, schema: RowSchema, names: Sequence[Entry]) -> None:
        """`names`: the first entries; those of the categories follow."""
        entries = [*names, *_category_entries(schema)]
        self.text_bytes_max = max((len(each.content or b"") for each in entries if each.kind == _TEXT), default=0)
        """Bytes of the longest category."""
        features = range(len(schema.names))
        table, content = _table(entries)
        slots = np.full(1 << (2 * len(entries)).bit_length(), -1, np.int32)
        by_category = np.array([feature in schema.categories for feature in features], np.uint8)
        order, omissible = np.array(schema.order, np.int32), np.array(schema.omissible, np.uint8)
        self._arrays = (order, omissible, by_category, table, slots, content, _powers())
        counts = (len(features), len(order), len(table), len(slots), self.text_bytes_max, schema.unknown_is_missing)
        self._structure = _Schema(*map(int, counts), *(array.ctypes.data for array in self._arrays))
        self.at = ctypes.addressof(self._structure)
        """The address of the structure."""
        library.index_entries(self.at, slots.ctypes.data)


def _category_entries(schema: RowSchema) -> list[Entry]:
    return [
        Entry(feature, *_key(category), code)
        for feature, codes in schema.categories.items()
        for category, code in codes.items()
    ]


def _table(entries: Sequence[Entry]) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
    """The entries in the layout of rows.c, and the bytes that they refer to."""
    starts = accumulate((len(entry.content or b"") for entry in entries), initial=0)
    table = np.array([entry.columns(at) for entry, at in zip(entries, starts, strict=False)], _ENTRY)
    return table, np.frombuffer(b"".join(entry.content or b"" for entry in entries) or b"\0", np.uint8)


def _key(category: Any) -> tuple[int, bytes | None]:
    """The kind and bytes of a category; None instead of bytes if a request cannot contain it."""
    if isinstance(category, str):
        return _TEXT, plain_text(category)
    kind = _BOOLEAN if isinstance(category, bool) else _NUMBER
    return kind, np.float64(category + 0.0).tobytes() if abs(category) <= _INTEGER_MAX else None


def plain_text(text: str) -> bytes | None:
    """The bytes of a text, equal in both encodings; None if JSON needs escapes, which the kernel does not read."""
    if any(character < " " or character in '"\\' for character in text):
        return None
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None


@cache
def _powers() -> NDArray[np.uint64]:
    """The leading 128 bits of powers of five, rounded up for negative exponents: uint64 (powers, 2), upper half
    first."""
    table = np.zeros((len(_POWERS), 2), np.uint64)
    for place, exponent in enumerate(_POWERS):
        power: int = 5 ** abs(exponent)
        if exponent >= 0:
            bits = power << 127 >> (power.bit_length() - 1)
        else:
            size = (power - 1).bit_length()
            bits = (1 << (size + 127 if exponent >= -27 else 2 * size + 128)) // power + 1
            bits >>= max(0, bits.bit_length() - 128)
        table[place] = bits >> 64, bits & (2**64 - 1)
    return table

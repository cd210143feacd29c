"""The requests for all peers: numbered, with 30 features or one text, in a layout. Does not import LightGBM."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.layouts import DEFAULT, FEATURES, LAYOUTS, MODEL_ID, Layout

_SYLLABLES = ("ba", "do", "fi", "ku", "le", "mor", "nas", "po", "ri", "sta", "tem", "ve")
PARTITIONS = 4
TEXT_WORDS = 12
VOCABULARY = tuple(f"{first}{second}{third}" for first in _SYLLABLES for second in _SYLLABLES for third in _SYLLABLES)
"""Words of texts."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests numbered from 0, one row each; all ids begin with `prefix`."""

    prefix: str
    rows: NDArray[Any]
    """(requests, columns)."""
    layout: Layout = LAYOUTS[DEFAULT]

    def __len__(self) -> int:
        return len(self.rows)

    def request_id(self, number: int) -> str:
        return f"{self.prefix}{number:08d}"

    def number(self, request_id: str) -> int:
        """The number of a request by its id; raises ValueError for an unknown id."""
        digits = request_id.removeprefix(self.prefix)
        if not request_id.startswith(self.prefix) or not digits.isdecimal() or int(digits) >= len(self):
            raise ValueError(f"id {request_id!r}: expected {self.request_id(0)} to {self.request_id(len(self) - 1)}")
        return int(digits)

    def partition(self, number: int) -> int:
        return number % PARTITIONS

    def key(self, number: int) -> bytes:
        return self.request_id(number).encode() if self.layout.id_is_key else b"%08d" % number

    def encode(self, number: int) -> bytes:
        """The request in its layout."""
        data = self.layout.input_data(self.rows[number].tolist())
        return self.layout.write({"id": self.request_id(number), "model_id": MODEL_ID, "input_data": data})


def make_requests(count: int, prefix: str, layout: str = DEFAULT) -> Requests:
    """`count` requests with distinct rows; deterministic across processes."""
    random = np.random.default_rng(zlib.crc32(prefix.encode()))
    rows = random.normal(size=(count, FEATURES))
    if categories := LAYOUTS[layout].categories:
        rows[:, -1] = random.integers(len(categories), size=count)
    return Requests(prefix, rows, LAYOUTS[layout])


def make_text_requests(count: int, prefix: str, layout: str = DEFAULT) -> Requests:
    """`count` requests with one text each, of about 70 characters; deterministic across processes."""
    random = np.random.default_rng(zlib.crc32(prefix.encode()))
    words = np.array(VOCABULARY)[random.zipf(1.3, size=(count, TEXT_WORDS)) % len(VOCABULARY)]
    return Requests(prefix, np.array([[" ".join(row)] for row in words], dtype=object), LAYOUTS[layout])

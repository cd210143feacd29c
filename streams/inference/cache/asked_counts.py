"""How often keys were requested, from 0 to 3, in a table of fixed size without the keys."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

_COUNT: Final = 3
"""Low bits of a cell: the count; the others are 14 bits of the key."""
_TAG: Final = 0xFFFC
_CELLS_MIN: Final = 1_024


class AskedCounts:
    """Counts by key. A key has two possible cells. If others occupy both, it lowers a count of theirs instead: counts
    may be too low, and are hardly ever too high."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells = array("H", bytes(2 * _CELLS_MIN))

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return self._cells.itemsize * len(self._cells)

    def grow(self, cells: int) -> None:
        """Doubles the table until it has `cells` cells; keeps all counts."""
        while len(self._cells) < cells:
            self._cells += self._cells

    def touch(self, keys: Iterable[bytes]) -> None:
        """Counts a request for each key."""
        cells, mask = self._cells, len(self._cells) - 1
        for key in keys:
            number = int.from_bytes(key[-16:-8], "little")
            first, tag = number >> 32 & mask, number & _TAG
            for cell in (first, first ^ 1):
                held = cells[cell]
                if not held & _COUNT:
                    cells[cell] = tag | 1
                    break
                if held & _TAG == tag:
                    if held & _COUNT < _COUNT:
                        cells[cell] = held + 1
                    break
            else:
                cells[first] -= 1

    def take(self, key: bytes, *, every: bool) -> int:
        """The count of a key, which is lowered by one, or to 0 if `every`."""
        number = int.from_bytes(key[-16:-8], "little")
        first, tag = number >> 32 & (len(self._cells) - 1), number & _TAG
        for cell in (first, first ^ 1):
            held = self._cells[cell]
            if held & _COUNT and held & _TAG == tag:
                self._cells[cell] = 0 if every else held - 1
                return held & _COUNT
        return 0

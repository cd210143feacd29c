"""Finds the columns of pandas categories: a model file has a list of values per categorical column, in column order,
but not the names of these columns.

In training LightGBM gets the codes of each categorical column. By default it makes categorical splits on unordered
categories, and numeric splits on ordered ones. `categorical_feature=[…]` replaces this default: the columns in it get
categorical splits, whether or not they are pandas categories, and all others get numeric splits. The file does not say
which case applies, so a column is a candidate for every list whose codes are consistent with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.streams.inference.features.file_feature import Values

_RANGE = re.compile(r"\[(?P<low>[0-9]+):(?P<high>[0-9]+)\]")
_CODES = re.compile(r"-?[0-9]+(?::-?[0-9]+)*")


@dataclass(frozen=True, slots=True)
class CategoryLists:
    """The lists of values in a file, and the evidence in the file about their columns."""

    lists: tuple[Values, ...]
    infos: tuple[str, ...]
    """What training saw of each column: `[low:high]`, `code:code:…`, or `none`."""
    coded: frozenset[int]
    """Columns that are split by category, or that the training parameters name as such."""
    fractional: frozenset[int] = frozenset()
    """Columns that are split at a number between two adjacent integers."""

    def place(self, others: frozenset[int] = frozenset()) -> dict[int, Values] | None:
        """The list of values by column; None if the file does not determine it. `others` are columns known to have
        none.

        A list of text or booleans at a wrong column would reject every row, but a list of numbers would give wrong
        scores. So a list of numbers is placed only if no other assignment agrees with the codes seen in training. For
        other lists it is enough that each column has categorical splits, or has exactly the codes of its list. If
        several assignments remain, the columns with categorical splits are chosen, unless an assignment without any of
        these columns is also possible.
        """
        seen = [_seen(info) for info in self.infos]
        candidates = [c for c in range(len(seen)) if c not in others and c not in self.fractional]

        def agrees(values: Values, column: int) -> bool:
            return seen[column].highest < len(values)

        def likely(values: Values, column: int) -> bool:
            known = not _is_rejected_elsewhere(values) or column in self.coded or seen[column].filled == len(values)
            return known and agrees(values, column)

        return self._only(candidates, likely) or self._only(candidates, agrees)

    def agree(self, columns: Sequence[int]) -> bool:
        """Whether the lists can belong to exactly these columns, in this order."""
        return all(_seen(self.infos[c]).highest < len(v) for c, v in zip(columns, self.lists, strict=True))

    def _only(self, candidates: list[int], allowed: Callable[[Values, int], bool]) -> dict[int, Values] | None:
        earliest = _greedy(self.lists, candidates, allowed)
        if earliest is None:
            return None
        latest = (_greedy(self.lists[::-1], candidates[::-1], allowed) or [])[::-1]
        open_lists = [v for v, first, last in zip(self.lists, earliest, latest, strict=True) if first != last]
        if not open_lists:
            return dict(zip(earliest, self.lists, strict=True))
        coded = sorted(self.coded)
        if len(coded) != len(self.lists) or not all(map(_is_rejected_elsewhere, open_lists)):
            return None
        others = [column for column in candidates if column not in self.coded]
        if _greedy(self.lists, coded, allowed) != coded or _greedy(self.lists, others, allowed) is not None:
            return None
        return dict(zip(coded, self.lists, strict=True))


@dataclass(frozen=True, slots=True)
class _Seen:
    """The codes of a column in the training data."""

    highest: float
    """-1 if there were no codes, infinity if the values are not codes."""
    filled: int = -1
    """How many categories there are where it saw the codes of all."""


def _seen(info: str) -> _Seen:
    if info == "none":
        return _Seen(-1, 0)
    if match := _RANGE.fullmatch(info):
        low, high = int(match["low"]), int(match["high"])
        return _Seen(high, high + 1 if low == 0 else -1)
    if _CODES.fullmatch(info):
        codes = {int(code) for code in info.split(":")} - {-1}
        highest = max(codes, default=-1)
        return _Seen(highest, len(codes) if len(codes) == highest + 1 else -1)
    return _Seen(float("inf"))


def _is_rejected_elsewhere(values: Values) -> bool:
    """Whether rows are rejected if this list is assigned to a wrong column, because no value is a number."""
    return all(isinstance(value, str | bool) for value in values)


def _greedy(
    lists: Sequence[Values], columns: Sequence[int], allowed: Callable[[Values, int], bool]
) -> list[int] | None:
    """Assigns to each list the first possible column after that of the previous list; None if the columns do not
    suffice.

    If this gives the same assignment from both ends, there is no other one.
    """
    left = iter(columns)
    chosen = [next((column for column in left if allowed(values, column)), -1) for values in lists]
    return None if -1 in chosen else chosen

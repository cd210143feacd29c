"""Which columns pandas' categories belong to: a model file lists the values of each, in column order, but names no
columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

Category = str | int | float | bool

_RANGE = re.compile(r"\[(?P<low>[0-9]+):(?P<high>[0-9]+)\]")
_CODES = re.compile(r"-?[0-9]+(?::-?[0-9]+)*")
_PAIRS_MAX = 1_000_000


def place_categories(
    lists: Sequence[tuple[Category, ...]], infos: Sequence[str], coded: frozenset[int]
) -> dict[int, tuple[Category, ...]] | None:
    """The column of each of `lists`, or None where the file leaves that open.

    `infos`: what the file saw of each column, `[low:high]`, `code:code:…` or `none`; `coded`: the columns it splits by
    category. Training with pandas' unordered categories alone, as lightgbm does by default, makes `lists` and `coded`
    correspond. Ordered categories are numbers to LightGBM, and integer columns can be coded without being pandas': then
    the columns are those of the only assignment, in order, that agrees with the codes the file has seen.
    """
    columns = sorted(coded)
    if len(columns) == len(lists) and all(
        _agrees(len(values), infos[c]) for values, c in zip(lists, columns, strict=True)
    ):
        return dict(zip(columns, lists, strict=True))
    candidates = columns if len(lists) < len(columns) else list(range(len(infos)))
    if len(lists) * len(candidates) > _PAIRS_MAX:
        return None
    chosen = _only_assignment([[_agrees(len(values), infos[c]) for c in candidates] for values in lists])
    return None if chosen is None else {candidates[place]: values for place, values in zip(chosen, lists, strict=True)}


def _agrees(categories: int, info: str) -> bool:
    """Whether a column of that info can hold the codes 0 … categories - 1 (and -1 for missing)."""
    if match := _RANGE.fullmatch(info):
        return int(match["high"]) < categories
    if _CODES.fullmatch(info):
        return max(map(int, info.split(":"))) < categories
    return info == "none"


def _only_assignment(allowed: list[list[bool]]) -> list[int] | None:
    """The one increasing choice of a column for each row with `allowed[row][column]`; None where there is none, or
    more.

    It is the one when the choice that takes each column as early as possible is the one that takes it as late as
    possible.
    """
    earliest = _greedy(allowed)
    if earliest is None:
        return None
    width = len(allowed[0]) if allowed else 0
    mirrored = _greedy([row[::-1] for row in reversed(allowed)])
    latest = [width - 1 - place for place in reversed(mirrored or [])]
    return earliest if earliest == latest else None


def _greedy(allowed: list[list[bool]]) -> list[int] | None:
    chosen: list[int] = []
    for row in allowed:
        start = chosen[-1] + 1 if chosen else 0
        place = next((column for column in range(start, len(row)) if row[column]), None)
        if place is None:
            return None
        chosen.append(place)
    return chosen

"""Which revision of an alias chose the version of each record of a micro-batch, and which variant that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.headers import ALIAS_REVISION, VARIANT
from inferd.streams.inference.spans import Indexes

VariantName = Literal["champion", "canary"]
"""`champion`: the only version of the alias, or that with the largest share of a split; `canary`: any other."""
AliasHeaders = tuple[tuple[str, bytes | None], ...]


@lru_cache(maxsize=1_024)
def alias_headers(revision: int, variant: VariantName) -> AliasHeaders:
    """The headers of a result; equal ones are the same object."""
    return (ALIAS_REVISION, b"%d" % revision), (VARIANT, variant.encode())


class AliasChoice(NamedTuple):
    """What chose the version of a record; all None for records that name no alias."""

    headers: AliasHeaders = ()
    """Those of its result."""
    alias: str | None = None
    revision: int | None = None
    variant: VariantName | None = None


NO_ALIAS: Final = AliasChoice()


@lru_cache(maxsize=1_024)
def alias_choice(alias: str, revision: int, variant: VariantName) -> AliasChoice:
    """A choice by an alias; equal ones are the same object."""
    return AliasChoice(alias_headers(revision, variant), alias, revision, variant)


@dataclass(frozen=True, slots=True)
class Variants:
    """The choices of the records of a micro-batch: `kinds[marks[i]]` for record i."""

    kinds: tuple[AliasChoice, ...] = (NO_ALIAS,)
    """The first is for records that name no alias."""
    marks: NDArray[np.uint16] | None = None
    """uint16 (records,); None if no record names an alias."""

    def of(self, span: range) -> Sequence[AliasHeaders] | None:
        """The headers of the records in `span`; None if they have none."""
        if self.marks is None:
            return None
        headers = [kind.headers for kind in self.kinds]
        return [headers[mark] for mark in self.marks[span.start : span.stop].tolist()]

    def at(self, index: int) -> AliasHeaders:
        """The headers of record `index`."""
        return self.choice(index).headers

    def choice(self, index: int) -> AliasChoice:
        """What chose the version of record `index`."""
        return NO_ALIAS if self.marks is None else self.kinds[self.marks[index]]

    def then(self, other: Variants, records: int, others: int) -> Variants:
        """These, of so many `records`, followed by those of `others` further records."""
        if self.marks is None and other.marks is None:
            return self
        first = np.zeros(records, np.uint16) if self.marks is None else self.marks
        last = np.zeros(others, np.uint16) if other.marks is None else other.marks
        kinds = list(dict.fromkeys((*self.kinds, *other.kinds)))
        places = np.array([kinds.index(kind) for kind in other.kinds], np.uint16)
        return Variants(tuple(kinds), np.concatenate([first, places[last]]))


@dataclass(slots=True)
class VariantMarks:
    """Collects the choices of the records of a micro-batch; later ones replace earlier ones."""

    given: list[tuple[AliasChoice, Sequence[int] | Indexes]] = field(default_factory=list)

    def add(self, choice: AliasChoice, indexes: Sequence[int] | Indexes) -> None:
        """Sets the choice of the records at `indexes`."""
        self.given.append((choice, indexes))

    def finish(self, records: int) -> Variants:
        """The choices of all records."""
        if not self.given:
            return Variants()
        kinds = list(dict.fromkeys([NO_ALIAS, *(choice for choice, _ in self.given)]))
        marks = np.zeros(records, np.uint16)
        for choice, indexes in self.given:
            if len(indexes) == records:
                marks[:] = kinds.index(choice)
            else:
                marks[np.asarray(indexes, np.intp)] = kinds.index(choice)
        return Variants(tuple(kinds), marks)

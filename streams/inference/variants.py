"""Which revision of an alias chose the version of each record of a micro-batch, and which variant that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.headers import ALIAS_REVISION, VARIANT

VariantName = Literal["champion", "canary"]
"""`champion`: the only version of the alias, or that with the largest share of a split; `canary`: any other."""
AliasHeaders = tuple[tuple[str, bytes | None], ...]


@lru_cache(maxsize=1_024)
def alias_headers(revision: int, variant: VariantName) -> AliasHeaders:
    """The headers of a result; equal ones are the same object."""
    return (ALIAS_REVISION, b"%d" % revision), (VARIANT, variant.encode())


@lru_cache(maxsize=1_024)
def alias_of(headers: AliasHeaders) -> tuple[VariantName | None, int | None]:
    """The variant and the revision in headers of `alias_headers`; None for those of records that name no alias."""
    if not headers:
        return None, None
    (_, revision), (_, variant) = headers
    return cast(VariantName, (variant or b"").decode()), int(revision or b"0")


@dataclass(frozen=True, slots=True)
class Variants:
    """The headers for the records of a micro-batch: `kinds[marks[i]]` for record i."""

    kinds: tuple[AliasHeaders, ...] = ((),)
    """The first is for records that name no alias."""
    marks: NDArray[np.uint16] | None = None
    """uint16 (records,); None if no record names an alias."""

    def of(self, span: range) -> Sequence[AliasHeaders] | None:
        """The headers of the records in `span`; None if they have none."""
        if self.marks is None:
            return None
        kinds = self.kinds
        return [kinds[mark] for mark in self.marks[span.start : span.stop].tolist()]

    def at(self, index: int) -> AliasHeaders:
        """The headers of record `index`."""
        return () if self.marks is None else self.kinds[self.marks[index]]

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
    """Collects the headers of the records of a micro-batch; later ones replace earlier ones."""

    given: list[tuple[AliasHeaders, Sequence[int]]] = field(default_factory=list)

    def add(self, headers: AliasHeaders, indexes: Sequence[int]) -> None:
        """Sets the headers of the records at `indexes`."""
        self.given.append((headers, indexes))

    def finish(self, records: int) -> Variants:
        """The headers of all records."""
        if not self.given:
            return Variants()
        kinds = list(dict.fromkeys([(), *(headers for headers, _ in self.given)]))
        marks = np.zeros(records, np.uint16)
        for headers, indexes in self.given:
            if len(indexes) == records:
                marks[:] = kinds.index(headers)
            else:
                marks[list(indexes)] = kinds.index(headers)
        return Variants(tuple(kinds), marks)

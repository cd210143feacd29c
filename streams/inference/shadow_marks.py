"""Which records of a micro-batch shadow versions are to score once they are answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.models import CHAMPION, AliasTarget
from inferd.schemas.requests import ModelReference
from inferd.streams.inference.spans import Indexes

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ShadowTarget:
    """The shadow versions of an alias."""

    model_id: str
    alias: str
    revision: int
    versions: tuple[int, ...]


Shadows = Mapping[ShadowTarget, Mask]
"""For each target bool (records,): the records that name its alias."""


@dataclass(slots=True)
class ShadowMarks:
    """Collects the records of a micro-batch whose alias has shadow versions."""

    given: list[tuple[ShadowTarget, Sequence[int] | Indexes]] = field(default_factory=list)

    def add(
        self, reference: ModelReference, alias: AliasTarget, revision: int, indexes: Sequence[int] | Indexes
    ) -> None:
        """Marks the records at `indexes`, which name the alias."""
        if alias.shadow:
            target = ShadowTarget(reference.name, reference.alias or CHAMPION, revision, tuple(alias.shadow))
            self.given.append((target, indexes))

    def finish(self, records: int) -> Shadows:
        """The marks of all records."""
        masks: dict[ShadowTarget, Mask] = {}
        for target, indexes in self.given:
            masks.setdefault(target, np.zeros(records, np.bool_))[np.asarray(indexes, np.intp)] = True
        return masks


def joined_shadows(first: Shadows, records: int, then: Shadows, others: int) -> Shadows:
    """The marks of so many `records`, followed by those of `others` further records."""
    if not first and not then:
        return first
    nothing, no_others = np.zeros(records, np.bool_), np.zeros(others, np.bool_)
    return {
        target: np.concatenate([first.get(target, nothing), then.get(target, no_others)])
        for target in dict.fromkeys((*first, *then))
    }

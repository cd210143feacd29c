"""The rows of a micro-batch as a version scored them, for monitoring, captured requests, labels and shadow versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from inferd.schemas.requests import Output
from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.inputs import Inputs
from inferd.streams.inference.runtime import Arrays
from inferd.streams.inference.spans import Indexes


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRows:
    """Requests of a micro-batch that one version has scored. Request i is record `indexes[i]` with `counts[i]` rows,
    which follow each other in `inputs`."""

    model: ServedModel
    indexes: Indexes
    ids: Sequence[str]
    """Of the requests; empty strings for records of routes, which have none."""
    counts: Sequence[int]
    singles: Sequence[bool]
    """Whether the result of a request has one value instead of a list."""
    outputs: tuple[Output, ...]
    """Those that the requests asked for."""
    inputs: Inputs
    """All rows, as the model got them."""
    arrays: Arrays
    """The model's own values of all rows, by output: those that `outputs` are made from."""

    def spans(self) -> list[slice]:
        """The rows of each request."""
        stops = accumulate(self.counts)
        return [slice(stop - count, stop) for count, stop in zip(self.counts, stops, strict=True)]

    def shifted(self, records: int) -> ScoredRows:
        """The same behind so many other records."""
        return replace(self, indexes=self.indexes + records)

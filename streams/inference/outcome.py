"""The outcome of a micro-batch: results, failures, counts and changes of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from inferd.schemas.errors import ModelServingError
from inferd.schemas.headers import NO_HEADERS, PropagatedHeaders, RequestHeaders
from inferd.schemas.protocols import Answer, Exchange
from inferd.schemas.requests import encode_failure_for
from inferd.streams.inference.cache import Change
from inferd.streams.inference.encoded_headers import EncodedHeaders
from inferd.streams.inference.record_block import RecordBlock
from inferd.streams.inference.scored_rows import ScoredRows
from inferd.streams.inference.shadow_marks import Shadows, joined_shadows
from inferd.streams.inference.spans import Indexes
from inferd.streams.inference.variants import Variants

NO_VARIANTS: Final = Variants()
CACHE_MISS: Final = 1
CACHE_HIT: Final = 2
"""All rows of a record came from the cache."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request in another protocol."""

    exchange: Exchange
    result: bytes
    """Our result, which the answer stands for."""
    headers: tuple[tuple[str, bytes], ...]
    """They describe the answer; the content-type is the first."""

    def failed(self, error: ModelServingError) -> Answer:
        """The answer with `error` instead."""
        return self.exchange.answer(encode_failure_for(self.result, self.exchange.codec, error))


@dataclass(frozen=True, slots=True)
class Members:
    """The records of a micro-batch that one version scored, or failed to score; record `indexes[i]` has `counts[i]`
    rows."""

    model_id: str
    version: int
    indexes: Indexes
    counts: Sequence[int]
    one_row_each: bool

    def shifted(self, records: int) -> Members:
        """The same behind so many other records."""
        return replace(self, indexes=self.indexes + records)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a micro-batch; `values[i]` is the result of record i."""

    values: Sequence[bytes]
    headers: dict[int, RequestHeaders]
    """Parsed headers of the records that have some, by record index."""
    failures: dict[int, ModelServingError]
    rows: int
    faults: list[Exception]
    by_model: dict[tuple[str, int], tuple[int, int]]
    """(model id, version) -> (requests, rows)."""
    table_changes: dict[int, list[Change]] = field(default_factory=dict)
    """Changes of the cache's table, by partition; keys are unique."""
    cache_marks: bytes = b""
    """CACHE_MISS or CACHE_HIT for each record, 0 without a lookup; empty if there were no lookups."""
    asked: dict[int, str] = field(default_factory=dict)
    """The model reference of failed records, if it could be decoded."""
    replies: dict[int, Reply] = field(default_factory=dict)
    """The answers to requests in other protocols, by record index."""
    unready: dict[int, str] = field(default_factory=dict)
    """Records that cannot be scored yet, and why: they are processed again later."""
    sink_headers: dict[int, Sequence[tuple[str, bytes | None]]] = field(default_factory=dict)
    """All headers of the records of a route's sink that do not have those of their sources, by record index."""
    variants: Variants = NO_VARIANTS
    """The headers that say which alias chose the version of a record."""
    shadows: Shadows = field(default_factory=dict)
    """Which records shadow versions are to score."""
    scored: Sequence[ScoredRows] = ()
    """What the models scored; without the requests that user code answered."""
    members: Sequence[Members] = ()
    """The records of each version; without those that failed before their version was asked."""
    propagated: EncodedHeaders | None = None
    """Headers for results that are in none of `headers`, as columns."""
    block: RecordBlock | None = None
    """The records, if they are columns."""

    def propagated_to(self, index: int) -> PropagatedHeaders:
        """The headers that the result of record `index` has of its request."""
        of_columns = self.propagated[index] if self.propagated is not None else ()
        return self.headers.get(index, NO_HEADERS).propagated + of_columns

    def __add__(self, other: Outcome) -> Outcome:
        """The outcome of this micro-batch's records followed by those of `other`."""
        shift = len(self.values)
        counts = dict(self.by_model)
        for model, (requests, rows) in other.by_model.items():
            have = counts.get(model, (0, 0))
            counts[model] = (have[0] + requests, have[1] + rows)
        return Outcome(
            [*self.values, *other.values],
            self.headers | {shift + index: headers for index, headers in other.headers.items()},
            self.failures | {shift + index: error for index, error in other.failures.items()},
            self.rows + other.rows,
            self.faults + other.faults,
            counts,
            _joined_changes(self.table_changes, other.table_changes),
            _joined_marks(self, other),
            self.asked | {shift + index: model_id for index, model_id in other.asked.items()},
            self.replies | {shift + index: reply for index, reply in other.replies.items()},
            self.unready | {shift + index: why for index, why in other.unready.items()},
            self.sink_headers | {shift + index: headers for index, headers in other.sink_headers.items()},
            self.variants.then(other.variants, shift, len(other.values)),
            joined_shadows(self.shadows, shift, other.shadows, len(other.values)),
            [*self.scored, *(rows.shifted(shift) for rows in other.scored)],
            [*self.members, *(members.shifted(shift) for members in other.members)],
            _joined_headers(self, other),
        )


def _joined_changes(first: dict[int, list[Change]], then: dict[int, list[Change]]) -> dict[int, list[Change]]:
    """The changes of both. For a key in both, the later change is kept."""
    if not first or not then:
        return first or then
    return {
        number: list(dict([*first.get(number, ()), *then.get(number, ())]).items()) for number in first.keys() | then
    }


def _joined_headers(first: Outcome, then: Outcome) -> EncodedHeaders | None:
    if first.propagated is None and then.propagated is None:
        return None
    have, more = (each.propagated or EncodedHeaders.none(len(each.values)) for each in (first, then))
    return have.then(more)


def _joined_marks(first: Outcome, then: Outcome) -> bytes:
    if not first.cache_marks and not then.cache_marks:
        return b""
    return b"".join(each.cache_marks or bytes(len(each.values)) for each in (first, then))

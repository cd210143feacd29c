"""Baselines: how the features and predictions of a version were distributed when it was trained. They hold histograms,
no rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, MSGPACK, Codec, Decoders, check_size, printable
from inferd.schemas.errors import MalformedError
from inferd.schemas.models import Category
from inferd.schemas.monitoring.window import Count, Predictions, _Name

BINS_MAX = 10
"""Bins of a number: as many quantiles of the baseline."""
CATEGORIES_MAX = 50
"""Categories that have a bin of their own."""
BASELINE_BYTES_MAX = 262_144
"""Size of an encoded baseline: about 2,000 features."""
REVISION_MAX = 2**53

Source = Literal["given", "learned"]
"""`given` with the deploy; `learned` from the first rows that were scored."""
_Finite = Annotated[float, msgspec.Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]


class NumberBaseline(msgspec.Struct, frozen=True, tag_field="kind", tag="number", forbid_unknown_fields=True):
    """A number. A value is in bin i if i of the `edges` are not above it."""

    edges: Annotated[list[_Finite], msgspec.Meta(max_length=BINS_MAX - 1)]
    """In ascending order, none twice."""
    low: _Finite
    high: _Finite
    """The least and largest value."""
    counts: Annotated[list[Count], msgspec.Meta(max_length=BINS_MAX)]
    """Of each bin: one more than edges."""
    missing: Count = 0

    @property
    def other(self) -> int:
        """Values without a bin."""
        return 0


class CategoryBaseline(msgspec.Struct, frozen=True, tag_field="kind", tag="category", forbid_unknown_fields=True):
    """A category, or a text. Bin i is that of `categories[i]`; all others are unknown."""

    categories: Annotated[list[Category], msgspec.Meta(max_length=CATEGORIES_MAX)]
    """The most frequent ones."""
    counts: Annotated[list[Count], msgspec.Meta(max_length=CATEGORIES_MAX)]
    missing: Count = 0
    other: Count = 0
    """Values of further categories."""


FeatureBaseline = NumberBaseline | CategoryBaseline


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The baseline of one version."""

    revision: Annotated[int, msgspec.Meta(ge=1, le=REVISION_MAX)]
    """Unix milliseconds of its making: of two baselines of a version, the one with the higher revision counts."""
    source: Source
    rows: Count
    features: dict[_Name, FeatureBaseline]
    predictions: Predictions = Predictions()


_BASELINE = Decoders(Baseline)


def encode_baseline(baseline: Baseline, codec: Codec = MSGPACK) -> bytes:
    """Encodes a baseline; `TooLargeError` if it has too many features."""
    return check_size(codec.encode(baseline), BASELINE_BYTES_MAX, "baseline")


@dataclass(frozen=True, slots=True)
class Baselines:
    """The baselines of one version, according to the records of `models`."""

    given: Baseline | None = None
    learned: Baseline | None = None

    @property
    def current(self) -> Baseline | None:
        """The one that counts: the given one, if there is one."""
        return self.given or self.learned

    def put(self, baseline: Baseline | None, *, learned: bool) -> Baselines:
        """These after one record; None is a tombstone."""
        return replace(self, learned=baseline) if learned else replace(self, given=baseline)


def decode_baseline(value: bytes | None, codec: Codec = MSGPACK) -> Baseline:
    """Decodes a baseline; `MalformedError` or `TooLargeError` if it is invalid."""
    data = check_size(value, BASELINE_BYTES_MAX, "baseline")
    try:
        baseline: Baseline = _BASELINE[codec](data)
    except DECODE_ERRORS as error:
        raise MalformedError(f"baseline: {printable(str(error))}") from None
    for name, feature in baseline.features.items():
        if (problem := _problem(feature)) is not None:
            raise MalformedError(f"baseline: feature {name[:80]!r} {problem}")
    return baseline


def _problem(feature: FeatureBaseline) -> str | None:
    bins = len(feature.edges) + 1 if isinstance(feature, NumberBaseline) else len(feature.categories)
    if len(feature.counts) != bins:
        return f"has {len(feature.counts)} counts for {bins} bins"
    if isinstance(feature, NumberBaseline) and not _ascending(feature):
        return "has edges that are not in ascending order"
    return None


def _ascending(feature: NumberBaseline) -> bool:
    return feature.low <= feature.high and all(a < b for a, b in pairwise([feature.low, *feature.edges]))

"""Statistics of what one version scored in one minute. Those of several workers, micro-batches and minutes add up."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from itertools import zip_longest
from typing import Annotated, Literal, NamedTuple

import msgspec

from inferd.schemas.monitoring.histograms import LATENCY_BINS, LOG_BINS, Scale, added
from inferd.schemas.monitoring.quality import Quality
from inferd.schemas.requests import NAME_PATTERN

Variant = Literal["champion", "canary", "shadow"]
WINDOW_S = 60
"""Length of a window."""
MINUTE_MAX = 2**31 - 1
NAME_CHARS_MAX = 256

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Name = Annotated[str, msgspec.Meta(max_length=NAME_CHARS_MAX)]
_LatencyBin = Annotated[int, msgspec.Meta(ge=0, lt=LATENCY_BINS)]
_PredictionBin = Annotated[int, msgspec.Meta(ge=-LOG_BINS, le=LOG_BINS)]


class FeatureStats(msgspec.Struct, frozen=True, array_like=True):
    """The values of one feature."""

    counts: list[Count] = []
    """Values in each bin of the baseline; those out of its range are in the first and last bin, too."""
    missing: Count = 0
    out_of_range: Count = 0
    """Numbers below the least or above the largest of the baseline."""
    unknown: Count = 0
    """Categories that the baseline does not have."""

    def plus(self, other: FeatureStats) -> FeatureStats:
        """The sum."""
        return FeatureStats(
            [a + b for a, b in zip_longest(self.counts, other.counts, fillvalue=0)],
            self.missing + other.missing,
            self.out_of_range + other.out_of_range,
            self.unknown + other.unknown,
        )

    @property
    def values(self) -> int:
        """How many values were counted, missing ones included."""
        return sum(self.counts) + self.missing + self.unknown


class Features(msgspec.Struct, frozen=True, omit_defaults=True):
    """The features of the rows that were looked at, by the bins of one baseline."""

    baseline: Count = 0
    """Revision of the baseline; 0 if there is none, and then nothing is counted."""
    rows: Count = 0
    by_name: dict[_Name, FeatureStats] = {}

    def plus(self, other: Features) -> Features:
        """The sum. Counts by an older baseline are dropped: its bins are others."""
        if self.baseline != other.baseline:
            return max(self, other, key=lambda features: features.baseline)
        names = sorted({*self.by_name, *other.by_name})
        none = FeatureStats()
        return Features(
            self.baseline,
            self.rows + other.rows,
            {name: self.by_name.get(name, none).plus(other.by_name.get(name, none)) for name in names},
        )


class Predictions(msgspec.Struct, frozen=True, omit_defaults=True):
    """The histogram of the output `prediction` of the rows that were looked at."""

    scale: Scale | None = None
    """None if there are none."""
    counts: dict[_PredictionBin, Count] = {}

    def plus(self, other: Predictions) -> Predictions:
        """The sum. A version has one scale; of two, the one that comes first in the alphabet is dropped."""
        if self.scale != other.scale:
            return max(self, other, key=lambda predictions: predictions.scale or "")
        return Predictions(self.scale, added(self.counts, other.counts))


class WindowStats(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What one version scored in one minute, or a part of that. Sums are by `merge`."""

    model_id: Annotated[str, msgspec.Meta(pattern=f"^{NAME_PATTERN}$")]
    version: Annotated[int, msgspec.Meta(ge=1, lt=10**9)]
    minute: Annotated[int, msgspec.Meta(ge=0, le=MINUTE_MAX)]
    """Unix time of the scoring in minutes."""
    alias: str | None = None
    """The alias that the requests named, or `champion` for a bare name; None if they named the version. Also None in
    windows of earlier releases."""
    variant: Variant | None = None
    """By which part of an alias the version was chosen; None without an alias."""
    alias_revision: Count | None = None
    requests: Count = 0
    rows: Count = 0
    """Rows of requests that were scored."""
    errors: dict[_Name, Count] = {}
    """Requests that failed, by error code. `requests` counts them, too."""
    latency: dict[_LatencyBin, Count] = {}
    """From the timestamp of a request until it was scored."""
    predictions: Predictions = Predictions()
    features: Features = Features()
    compared: Count = 0
    """Rows of a shadow that were compared with the champion's."""
    differing: Count = 0
    """Those of them whose predictions differ."""
    quality: Quality = Quality()
    """By the labels that came later."""

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return sum(self.errors.values())


class WindowKey(NamedTuple):
    """What distinguishes the windows of a tenant."""

    model_id: str
    version: int
    minute: int
    variant: str
    """Empty without an alias."""
    alias_revision: int
    """-1 without one."""
    alias: str = ""
    """Empty without one, and for windows of earlier releases."""

    @classmethod
    def of(cls, window: WindowStats) -> WindowKey:
        """The key of a window."""
        revision = -1 if window.alias_revision is None else window.alias_revision
        return cls(
            window.model_id, window.version, window.minute, window.variant or "", revision, window.alias or ""
        )  # fmt: skip

    @classmethod
    def parse(cls, key: bytes) -> WindowKey:
        """The key of an entry of the table; `ValueError` if it is none."""
        reference, minute, variant, revision, *alias = key.decode().split("/")
        model_id, version = reference.split(":")
        if len(alias) > 1:
            raise ValueError("more than five parts")
        return cls(model_id, int(version), int(minute), variant, int(revision), *alias)

    def encode(self) -> bytes:
        """The key of the entry in the table: without an alias that of earlier releases."""
        alias = f"/{self.alias}" if self.alias else ""
        return f"{self.model_id}:{self.version}/{self.minute}/{self.variant}/{self.alias_revision}{alias}".encode()


def merge(first: WindowStats, second: WindowStats) -> WindowStats:
    """The sum of two windows of one version; `ValueError` for those of two. Associative and commutative.

    The minute is the earlier one. Alias, variant and alias revision are None unless both windows have the same.
    """
    if (first.model_id, first.version) != (second.model_id, second.version):
        raise ValueError(f"{first.model_id}:{first.version} and {second.model_id}:{second.version} do not add up")
    return WindowStats(
        model_id=first.model_id,
        version=first.version,
        minute=min(first.minute, second.minute),
        alias=first.alias if first.alias == second.alias else None,
        variant=first.variant if first.variant == second.variant else None,
        alias_revision=first.alias_revision if first.alias_revision == second.alias_revision else None,
        requests=first.requests + second.requests,
        rows=first.rows + second.rows,
        errors={
            code: first.errors.get(code, 0) + second.errors.get(code, 0)
            for code in sorted({*first.errors, *second.errors})
        },
        latency=added(first.latency, second.latency),
        predictions=first.predictions.plus(second.predictions),
        features=first.features.plus(second.features),
        compared=first.compared + second.compared,
        differing=first.differing + second.differing,
        quality=first.quality.plus(second.quality),
    )


def merged(windows: Iterable[WindowStats]) -> WindowStats | None:
    """The sum of windows of one version; None if there are none."""
    found = list(windows)
    return reduce(merge, found) if found else None

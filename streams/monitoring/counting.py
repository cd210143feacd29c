"""Counts the requests of a micro-batch by version: requests, rows, errors and latencies. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.monitoring import LATENCY_BINS, Variant, WindowStats, latency_bound_ms
from inferd.streams.inference import Outcome

VersionOf = Callable[[int], tuple[str, int] | None]
"""Index of a record that failed before its version was asked -> model id and version; None if there is none."""
UNKNOWN = -1
_BOUNDS_MS = np.array([latency_bound_ms(number) for number in range(LATENCY_BINS - 1)])
FEW = 4
"""Up to so many failures, numpy takes longer than a loop."""


class Label(NamedTuple):
    """Which windows a record belongs to, whatever the minute."""

    model_id: str
    version: int
    alias: str | None = None
    variant: Variant | None = None
    alias_revision: int | None = None


@dataclass(frozen=True, slots=True)
class CountedPart:
    """Records of a micro-batch that are published together."""

    span: range
    """Their indexes."""
    timestamps: Sequence[int]
    """Unix milliseconds."""


class Labels:
    """The label of each record of a micro-batch."""

    def __init__(self, outcome: Outcome, version_of: VersionOf) -> None:
        self._outcome = outcome
        versions: dict[tuple[str, int], int] = {}
        self._codes = np.full(len(outcome.values), UNKNOWN, np.int64)
        for members in outcome.members:
            code = versions.setdefault((members.model_id, members.version), len(versions))
            if len(members.indexes) == len(self._codes):
                self._codes[:] = code
            else:
                self._codes[members.indexes] = code
        for index in outcome.failures:
            if self._codes[index] == UNKNOWN and (version := version_of(index)) is not None:
                self._codes[index] = versions.setdefault(version, len(versions))
        self._versions = list(versions)
        self._kinds = outcome.variants.kinds
        marks = outcome.variants.marks
        if marks is not None:
            self._codes = np.where(self._codes == UNKNOWN, UNKNOWN, self._codes * len(self._kinds) + marks)
        else:
            self._kinds = self._kinds[:1]
        first = int(self._codes[0]) if len(self._codes) else UNKNOWN
        self.only = first if first != UNKNOWN and (self._codes == first).all() else None
        """The code of all records, if they have one label."""
        self.count = max(1, len(self._versions) * len(self._kinds))
        """Codes are below it."""

    def of(self, indexes: NDArray[np.intp] | Sequence[int] | slice) -> NDArray[np.int64]:
        """The code of the label of records; `UNKNOWN` for those without a version."""
        codes: NDArray[np.int64] = self._codes[indexes]
        return codes

    def label(self, code: int) -> Label:
        """The label with a code."""
        version, kind = divmod(code, len(self._kinds))
        choice = self._kinds[kind]
        return Label(*self._versions[version], choice.alias, choice.variant, choice.revision)

    def present(self, codes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """The codes that occur, and how often."""
        counts = np.bincount(codes + 1)
        for found in np.flatnonzero(counts[1:]).tolist():
            yield found, int(counts[found + 1])


def windows_of(
    outcome: Outcome, parts: Sequence[CountedPart], labels: Labels, now_ms: float, minute: int
) -> list[dict[int, WindowStats]]:
    """What each part adds to the windows of a minute, by the code of the label.

    `now_ms`: when the micro-batch was scored.
    """
    rows = _rows_of_records(outcome)
    bins = latency_bins([stamp for part in parts for stamp in part.timestamps], now_ms)
    if labels.only is not None and rows is None and not outcome.failures:
        return _windows_of_one(parts, labels.only, labels.label(labels.only), bins, minute)
    ends = [*accumulate(len(part.timestamps) for part in parts)]
    return [
        _windows_of_part(outcome, part, labels, rows, bins[end - len(part.timestamps) : end], minute)
        for part, end in zip(parts, ends, strict=True)
    ]


def _windows_of_one(
    parts: Sequence[CountedPart], code: int, label: Label, bins: NDArray[np.intp], minute: int
) -> list[dict[int, WindowStats]]:
    """The usual case: all requests have one label and one row, and none failed. The parts are counted in one pass."""
    sizes = [len(part.span) for part in parts]
    numbers = np.repeat(np.arange(0, len(parts) * LATENCY_BINS, LATENCY_BINS), sizes)
    counts = np.bincount(numbers + bins)
    places = np.flatnonzero(counts)
    latencies: list[dict[int, int]] = [{} for _ in parts]
    for place, count in zip(places.tolist(), counts[places].tolist(), strict=True):
        latencies[place // LATENCY_BINS][place % LATENCY_BINS] = count
    return [
        {code: WindowStats(**label._asdict(), minute=minute, requests=size, rows=size, latency=latency)} if size else {}
        for size, latency in zip(sizes, latencies, strict=True)
    ]


def _rows_of_records(outcome: Outcome) -> NDArray[np.int64] | None:
    """Rows of each record; None if each record of a version has one."""
    if all(members.one_row_each for members in outcome.members):
        return None
    rows = np.zeros(len(outcome.values), np.int64)
    for members in outcome.members:
        rows[members.indexes] = members.counts
    return rows


def _windows_of_part(
    outcome: Outcome,
    part: CountedPart,
    labels: Labels,
    rows: NDArray[np.int64] | None,
    bins: NDArray[np.intp],
    minute: int,
) -> dict[int, WindowStats]:
    span = slice(part.span.start, part.span.stop)
    codes = labels.of(span)
    present = {labels.only: len(codes)} if labels.only is not None and len(codes) else dict(labels.present(codes))
    errors = _errors(outcome, part.span, labels) if outcome.failures else {}
    windows = {}
    for code, requests in present.items():
        own = None if requests == len(codes) else codes == code
        label, failed = labels.label(code), errors.get(code, {})
        windows[code] = WindowStats(
            model_id=label.model_id,
            version=label.version,
            minute=minute,
            alias=label.alias,
            variant=label.variant,
            alias_revision=label.alias_revision,
            requests=requests,
            rows=_scored_rows(outcome, part.span, rows, requests, own),
            errors=failed,
            latency=sparse(bins if own is None else bins[own]),
        )
    return windows


def _scored_rows(
    outcome: Outcome, span: range, rows: NDArray[np.int64] | None, requests: int, own: NDArray[np.bool_] | None
) -> int:
    """Rows of the records that did not fail."""
    if rows is None and not outcome.failures:
        return requests
    failed = np.zeros(len(span), np.bool_)
    for index in outcome.failures:
        if index in span:
            failed[index - span.start] = True
    if rows is None:
        return requests - int((failed if own is None else failed & own).sum())
    of_span = np.where(failed, 0, rows[span.start : span.stop])
    return int((of_span if own is None else of_span[own]).sum())


def _errors(outcome: Outcome, span: range, labels: Labels) -> dict[int, dict[str, int]]:
    """Failed requests by the code of the label, and by error code."""
    found: dict[int, dict[str, int]] = {}
    for index, error in outcome.failures.items():
        if index in span:
            of_label = found.setdefault(int(labels.of([index])[0]), {})
            of_label[error.code] = of_label.get(error.code, 0) + 1
    return found


def latency_bins(timestamps: Sequence[int], now_ms: float) -> NDArray[np.intp]:
    """The bin of each record: intp (records,)."""
    waits = now_ms - np.array(timestamps, np.float64)
    bins: NDArray[np.intp] = np.searchsorted(_BOUNDS_MS, waits)
    return bins


def sparse(bins: NDArray[np.intp]) -> dict[int, int]:
    """The histogram of bins that are not negative, without those that are empty."""
    counts = np.bincount(bins)
    places = np.flatnonzero(counts)
    return dict(zip(places.tolist(), counts[places].tolist(), strict=True))

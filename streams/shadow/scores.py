"""Scores the rows of a micro-batch with a shadow version, and compares: runs in a thread, without I/O."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.codecs import JSON
from inferd.schemas.headers import ALIAS_REVISION, VARIANT
from inferd.schemas.requests import Output, default_id
from inferd.schemas.shadow import SHADOW_VARIANT, ShadowResult, encode_shadow_result
from inferd.streams.inference import (
    Arrays,
    Inputs,
    Record,
    ScoredRows,
    ServedModel,
    Shadows,
    ShadowTarget,
    Table,
    disagreements,
)
from inferd.streams.kafka import Outgoing
from inferd.streams.monitoring import RowSample

Reason = Literal["busy", "error", "features", "hung", "load", "no_rows", "not_ready", "outputs", "publish", "too_large"]
"""Why a request has no shadow result."""
COSTLY: Final = frozenset({"contributions", "leaves"})
"""Outputs that a shadow version does not compute."""
YIELD_EVERY: Final = 32
"""Results after which the thread offers the interpreter lock to others."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Micro:
    """A micro-batch that shadow versions are to score. Its rows are kept until nothing refers to it any more."""

    tenant: str
    scored: Sequence[ScoredRows]
    shadows: Shadows

    @property
    def rows(self) -> int:
        """How many rows are kept."""
        return sum(len(rows.inputs) for rows in self.scored)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The answered records of one partition in a micro-batch, at `span`."""

    micro: Micro
    partition: int
    records: Sequence[Record]
    span: range

    def targets(self) -> Iterator[tuple[ShadowTarget, int]]:
        """The targets of these records, and how many records each has."""
        for target, mask in self.micro.shadows.items():
            if records := int(np.count_nonzero(mask[self.span.start : self.span.stop])):
                yield target, records


@dataclass(slots=True)
class ShadowScores:
    """What one shadow version says about a part."""

    results: list[Outgoing] = field(default_factory=list)
    requests: int = 0
    rows: int = 0
    compared: int = 0
    """Rows whose predictions could be compared."""
    differing: int = 0
    """Rows whose predictions disagree."""
    dropped: Counter[Reason] = field(default_factory=Counter)
    """Requests that were not scored."""
    predict_s: float = 0.0
    samples: list[RowSample] = field(default_factory=list)
    """Some of the rows, for monitoring."""


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """The values of all rows, by output, of the version that answered and of the shadow version."""

    champion: dict[Output, list[Any]]
    shadow: dict[Output, list[Any]]
    differs: NDArray[np.bool_] | None
    """bool (rows,); None if they cannot be compared."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Requests that a version has answered, and a shadow version for these `outputs` of the `chosen` ones."""

    rows: ScoredRows
    chosen: NDArray[np.bool_]
    shadow: ServedModel
    outputs: tuple[Output, ...]

    def compare(self, scores: ShadowScores, inputs: Inputs) -> _Compared:
        """Scores the rows, and counts them."""
        rows, shadow, outputs = self.rows, self.shadow, self.outputs
        wanted: tuple[Output, ...] = (*outputs, "prediction") if shadow.has_output("prediction") else outputs
        started = time.perf_counter()
        arrays = shadow.runtime.predict(inputs, shadow.postprocessor.needed(wanted))
        scores.predict_s += time.perf_counter() - started
        answered = self._answered()
        differs = disagreements(rows.model, answered, shadow, arrays)
        scores.requests += int(np.count_nonzero(self.chosen))
        scores.rows += len(inputs)
        scores.samples.append(RowSample.of(shadow, inputs, arrays))
        if differs is not None:
            scores.compared += len(differs)
            scores.differing += int(np.count_nonzero(differs))
        columns = rows.model.postprocessor.columns(answered, outputs), shadow.postprocessor.columns(arrays, outputs)
        return _Compared(*columns, differs)

    def spans(self) -> Iterator[tuple[int, slice]]:
        """The chosen requests, each with its range among the rows of all of these."""
        requests = np.flatnonzero(self.chosen).tolist()
        counts = [self.rows.counts[request] for request in requests]
        spans = (slice(stop - count, stop) for count, stop in zip(counts, accumulate(counts), strict=True))
        return zip(requests, spans, strict=True)

    def _answered(self) -> Arrays:
        """The values of the version that answered the chosen requests."""
        if self.chosen.all():
            return self.rows.arrays
        kept = np.repeat(self.chosen, self.rows.counts)
        return {output: values[kept] for output, values in self.rows.arrays.items()}


class ShadowScoring:
    """Scores parts of micro-batches; its results have the headers of this worker."""

    def __init__(self, worker_id: str) -> None:
        self._worker = ("inferd-worker", worker_id.encode())

    def score(self, part: Part, target: ShadowTarget, shadow: ServedModel) -> ShadowScores:
        """Scores the requests of `target` in `part`; raises what the runtime raises."""
        scores, found = ShadowScores(), 0
        for rows in part.micro.scored:
            chosen = _chosen(rows, part.micro.shadows[target], part.span)
            requests = int(np.count_nonzero(chosen))
            found += requests
            outputs = tuple(each for each in rows.outputs if each not in COSTLY and shadow.has_output(each))
            if not requests or rows.model.manifest.version == shadow.manifest.version:
                continue
            if (inputs := _inputs_of(rows, chosen, shadow)) is None:
                scores.dropped["features"] += requests
            elif not outputs:
                scores.dropped["outputs"] += requests
            else:
                pair = _Pair(rows, chosen, shadow, outputs)
                self._add_results(scores, part, target, pair, pair.compare(scores, inputs))
        asked = part.micro.shadows[target][part.span.start : part.span.stop]
        if (without := int(np.count_nonzero(asked)) - found) > 0:
            scores.dropped["no_rows"] += without
        return scores

    def _add_results(
        self, scores: ShadowScores, part: Part, target: ShadowTarget, pair: _Pair, compared: _Compared
    ) -> None:
        headers, rows = self._headers(target), pair.rows
        for number, (request, span) in enumerate(pair.spans(), 1):
            if number % YIELD_EVERY == 0:
                time.sleep(0)
            record = part.records[int(rows.indexes[request]) - part.span.start]
            place: int | slice = span.start if rows.singles[request] else span
            result = ShadowResult(
                rows.ids[request] or default_id(part.partition, record.offset),
                target.model_id,
                rows.model.manifest.version,
                pair.shadow.manifest.version,
                {output: values[place] for output, values in compared.champion.items()},
                {output: values[place] for output, values in compared.shadow.items()},
                None if compared.differs is None else int(np.count_nonzero(compared.differs[span])),
            )
            scores.results.append((record.key, encode_shadow_result(result), headers))

    def _headers(self, target: ShadowTarget) -> list[tuple[str, bytes | None]]:
        return [
            JSON.header,
            self._worker,
            (ALIAS_REVISION, b"%d" % target.revision),
            (VARIANT, SHADOW_VARIANT),
        ]


def _chosen(rows: ScoredRows, asked: NDArray[np.bool_], span: range) -> NDArray[np.bool_]:
    """bool (requests of `rows`,): those in `span` that name the alias."""
    indexes = rows.indexes
    return asked[indexes] & (indexes >= span.start) & (indexes < span.stop)


def _inputs_of(rows: ScoredRows, chosen: NDArray[np.bool_], shadow: ServedModel) -> Inputs | None:
    """The rows of the chosen requests for the shadow version; None if it reads features differently."""
    places = shadow.features.places_in(rows.model.features)
    if places is None:
        return None
    inputs = rows.inputs if chosen.all() else rows.inputs[np.repeat(chosen, rows.counts)]
    if isinstance(inputs, Table) or shadow.features.identity == rows.model.features.identity:
        return inputs
    return np.ascontiguousarray(inputs[:, places])

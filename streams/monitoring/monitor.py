"""Counts what the micro-batches of one tenant scored, and adds the counts to their output."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np
import structlog
from aiokafka import TopicPartition
from numpy.typing import NDArray

from inferd.schemas.errors import TooLargeError
from inferd.schemas.models import BaselineKey
from inferd.schemas.monitoring import (
    WINDOW_BYTES_MAX,
    WINDOW_S,
    Baseline,
    Features,
    Predictions,
    WindowKey,
    WindowStats,
    encode_baseline,
    encode_window,
    merge,
)
from inferd.streams.inference import Arrays, FeatureSchema, Inputs, Outcome, ScoredRows, ServedModel, concatenate
from inferd.streams.kafka import Outgoing
from inferd.streams.lane import OutputBatch
from inferd.streams.monitoring.counting import CountedPart, Label, Labels, VersionOf, windows_of
from inferd.streams.monitoring.features import FeatureCounter, make_baseline
from inferd.streams.monitoring.predictions import COUNTED, PredictionCounter
from inferd.streams.settings import Monitoring

log = structlog.get_logger(__name__)

COUNTED_ROWS = 4_096
"""So many rows are counted together, if they need not be in the transaction of their results."""
FLUSH_S = 1.0
"""How long counts are held that are not part of the transaction of their results."""
SAMPLED_ROWS_MAX = 256
"""Rows of a micro-batch and version that are looked at with `sampled`."""
HELD_ROWS_MAX = 1_024
"""Rows of a version that are looked at in `FLUSH_S` with `sampled`."""
PENDING_MAX = 1_000
"""Windows that wait for an output batch to take them along. Beyond it, they are dropped."""
LEARNED_ROWS = 10_000
LESSON_BYTES_MAX = 8 * 1_048_576
LESSONS_MAX = 8
"""Versions whose baseline is learned at a time, and the memory of each."""
VERSIONS_MAX = 1_000
"""Versions whose counters are kept."""
FIRST = 0
"""The partition of `model-stats` that is used."""
BaselineOf = Callable[[str, int], Baseline | None]
"""Model id and version -> its baseline."""


@dataclass(slots=True)
class _Counters:
    """The counters of one version. They keep no model loaded."""

    schema: FeatureSchema
    predictions: PredictionCounter
    features: FeatureCounter | None


class Sampled(Protocol):
    """Rows that one version has scored."""

    @property
    def model(self) -> ServedModel:
        """The version."""

    @property
    def inputs(self) -> Inputs:
        """The rows."""

    @property
    def arrays(self) -> Arrays:
        """The values of the rows, by output."""


@dataclass(frozen=True, slots=True, eq=False)
class RowSample:
    """Copies of some rows that one version has scored."""

    model: ServedModel
    inputs: Inputs
    arrays: Arrays

    @classmethod
    def of(cls, model: ServedModel, inputs: Inputs, arrays: Arrays) -> RowSample:
        """Up to `SAMPLED_ROWS_MAX` rows at equal distances. In any thread."""
        rows = _spread(len(inputs))
        kept = {output: arrays[output][rows] for output in COUNTED if output in arrays}
        return cls(model, inputs[rows], kept)


@dataclass(slots=True)
class _Sample:
    """Rows of one label that were scored since the last flush."""

    counters: _Counters
    rows: int = 0
    features: Features = field(default_factory=Features)
    predictions: Predictions = field(default_factory=Predictions)
    _blocks: list[Inputs] = field(default_factory=list)
    _values: list[NDArray[Any]] = field(default_factory=list)
    _uncounted: int = 0

    def add(self, scored: Sampled, rows: NDArray[np.intp] | slice, count: int) -> None:
        """Adds `count` rows. They are counted with others: the number of calls takes longer than that of the rows."""
        self.rows += count
        self._uncounted += count
        if self.counters.features is not None:
            self._blocks.append(scored.inputs[rows])
        values = self.counters.predictions.values(scored.arrays)
        if values is not None:
            self._values.append(values[rows])
        if self._uncounted >= COUNTED_ROWS:
            self.count()

    def count(self) -> None:
        """Counts the rows that were not counted yet."""
        if self.counters.features is not None and self._blocks:
            found = self.counters.features.count(concatenate(self._blocks))
            self.features = self.features.plus(found) if self.features.rows else found
        while self._values:  # requests for different outputs have values of different shapes
            alike = [each for each in self._values if each.shape[1:] == self._values[0].shape[1:]]
            self._values = [each for each in self._values if each.shape[1:] != self._values[0].shape[1:]]
            found_values = self.counters.predictions.count_values(np.concatenate(alike))
            self.predictions = self.predictions.plus(found_values) if self.predictions.counts else found_values
        self._blocks.clear()
        self._uncounted = 0


@dataclass(slots=True)
class _Lesson:
    """The first rows of a version without a baseline."""

    schema: FeatureSchema
    blocks: list[Inputs] = field(default_factory=list)
    rows: int = 0
    predictions: Predictions = field(default_factory=Predictions)

    @property
    def rows_wanted(self) -> int:
        """Fewer rows if the version has many features."""
        return min(LEARNED_ROWS, LESSON_BYTES_MAX // (8 * max(1, self.schema.n_features)))


class Monitor:
    """Counts for `model-stats`. Requests, rows, errors and latencies are published with the results that they count;
    a sample of features and predictions, and counts of requests over HTTP, with any later output."""

    def __init__(
        self,
        topic: str,
        mode: Monitoring,
        baseline_of: BaselineOf = lambda _model, _version: None,
        *,
        learns: bool = False,
        exact: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`topic`: the tenant's `model-stats`; `learns`: whether versions without a baseline get one of the first rows,
        which the owner of `topic` publishes; `exact`: whether with `all` the counts of features and predictions are in
        the output of their results, otherwise in one within `FLUSH_S`; `clock`: Unix seconds."""
        self.topic = topic
        self.mode = mode
        self._exact = exact
        self.dropped = 0
        """Windows that were dropped, because no output took them along."""
        self._baseline_of = baseline_of
        self._clock = clock
        self._pending: dict[WindowKey, WindowStats] = {}
        self._samples: dict[Label, _Sample] = {}
        self._flushed_at = clock()
        self._counters: dict[tuple[str, int], _Counters] = {}
        self._learns = learns
        self._lessons: dict[tuple[str, int], _Lesson] = {}
        self._learned: set[tuple[str, int]] = set()
        """Versions whose baseline this process has learned."""
        self._proposals: list[Outgoing] = []

    def outputs(self) -> Iterable[TopicPartition]:
        """Partitions that counts are written to."""
        if self.mode != "off":
            yield TopicPartition(self.topic, FIRST)

    def add(
        self,
        outputs: Sequence[OutputBatch | None],
        parts: Sequence[CountedPart],
        outcome: Outcome,
        version_of: VersionOf,
    ) -> None:
        """Adds what the parts of a micro-batch count to their outputs. None: it goes with a later output."""
        if self.mode == "off":
            return
        try:
            self._add(outputs, parts, outcome, version_of)
        except Exception:  # Counts must not stop results.
            log.exception("monitor_fault", topic=self.topic)

    def _add(
        self,
        outputs: Sequence[OutputBatch | None],
        parts: Sequence[CountedPart],
        outcome: Outcome,
        version_of: VersionOf,
    ) -> None:
        now_s = self._clock()
        minute = int(now_s) // WINDOW_S
        labels = Labels(outcome, version_of)
        found = windows_of(outcome, parts, labels, now_s * 1000, minute)
        if self.mode == "all" and self._exact:
            self._count_rows(found, parts, outcome, labels)
        else:
            self._hold_rows(outcome, labels)
        for output, windows in zip(outputs, found, strict=True):
            for window in windows.values():
                if output is None:
                    self.later(window)
                else:
                    self._put(output, window)
        for output in outputs:
            if output is not None:
                self.flush(output)
                break

    def _put(self, output: OutputBatch, window: WindowStats) -> None:
        value = encode_window(window)
        if len(value) > WINDOW_BYTES_MAX:  # its topic would reject it, and with it the results
            value = encode_window(msgspec.structs.replace(window, features=Features()))
        output.tally.bytes_out += len(value)
        output.add(self.topic, FIRST, (window.model_id.encode(), value, []))

    def later(self, window: WindowStats, samples: Iterable[RowSample] = ()) -> None:
        """Adds counts, and rows whose features and predictions are counted; both are published with any later output,
        or lost with the process."""
        if self.mode == "off":
            return
        label = Label(window.model_id, window.version, window.alias, window.variant, window.alias_revision)
        for sample in samples:
            self._hold(label, sample, np.arange(len(sample.inputs)), HELD_ROWS_MAX)
        key = WindowKey.of(window)
        before = self._pending.get(key)
        if before is None and len(self._pending) >= PENDING_MAX:
            self.dropped += 1
            return
        self._pending[key] = window if before is None else merge(before, window)

    def flush(self, output: OutputBatch) -> None:
        """Adds the counts that wait to an output, if it is time."""
        now_s = self._clock()
        if self.due(now_s):
            self._flushed_at = now_s
            self._count_samples()
            for window in self._pending.values():
                self._put(output, window)
            self._pending.clear()
            for proposal in self._proposals:
                output.add(self.topic, FIRST, proposal)
            self._proposals.clear()

    def due(self, now_s: float) -> bool:
        """Whether there are counts that have waited long enough."""
        waited = not 0 <= now_s - self._flushed_at < FLUSH_S
        return waited and bool(self._pending or self._samples or self._proposals)

    # ------------------------------------------------------------------ features and predictions

    def _count_rows(
        self, found: Sequence[dict[int, WindowStats]], parts: Sequence[CountedPart], outcome: Outcome, labels: Labels
    ) -> None:
        """Adds the features and predictions of all rows to the windows of their parts."""
        ends = np.array([part.span.stop for part in parts])
        for scored in outcome.scored:
            if not len(scored.inputs):
                continue
            counters = self._counters_of(scored.model)
            if counters.features is None:
                self._learn(scored, np.arange(len(scored.inputs)))
            indexes = scored.indexes
            in_parts = np.searchsorted(ends, indexes, side="right")
            keys = in_parts * labels.count + labels.of(indexes)
            present, groups = _grouped(keys)
            if len(scored.inputs) != len(indexes):
                groups = np.repeat(groups, scored.counts)
            self._count_groups(found, present, labels.count, counters, scored, groups)

    def _count_groups(
        self,
        found: Sequence[dict[int, WindowStats]],
        present: Sequence[int],
        width: int,
        counters: _Counters,
        scored: ScoredRows,
        groups: NDArray[np.intp],
    ) -> None:
        features = [Features()] * len(present)
        if counters.features is not None:
            features = counters.features.count_groups(scored.inputs, groups, len(present))
        for group, (key, counted) in enumerate(zip(present, features, strict=True)):
            part, code = divmod(key, width)
            rows = slice(None) if len(present) == 1 else groups == group
            predictions = counters.predictions.count(scored.arrays, rows)
            window = found[part][code]
            found[part][code] = msgspec.structs.replace(
                window,
                features=window.features.plus(counted) if window.features.rows else counted,
                predictions=window.predictions.plus(predictions) if window.predictions.counts else predictions,
            )

    def _hold_rows(self, outcome: Outcome, labels: Labels) -> None:
        """Holds some or all rows of each version, which are counted later."""
        most = HELD_ROWS_MAX if self.mode == "sampled" else None
        for scored in outcome.scored:
            if not len(scored.inputs):
                continue
            chosen = _spread(len(scored.inputs)) if self.mode == "sampled" else np.arange(len(scored.inputs))
            if labels.only is not None:
                self._hold(labels.label(labels.only), scored, chosen, most)
                continue
            places = chosen if len(scored.inputs) == len(scored.indexes) else _places(scored)[chosen]
            codes = labels.of(scored.indexes[places])
            for code, _ in labels.present(codes):
                self._hold(labels.label(code), scored, chosen[codes == code], most)

    def _hold(self, label: Label, scored: Sampled, rows: NDArray[np.intp], most: int | None) -> None:
        """Holds rows, of each label at most `most` until they are published."""
        counters = self._counters_of(scored.model)
        sample = self._samples.get(label)
        if sample is not None and sample.counters is not counters:  # another baseline came
            self._count_sample(label, self._samples.pop(label))
            sample = None
        if sample is None:
            sample = self._samples[label] = _Sample(counters)
        if most is not None:
            rows = rows[: max(0, most - sample.rows)]
        if not len(rows):
            return
        if counters.features is None:
            self._learn(scored, rows)
        # A slice of all rows is no copy.
        sample.add(scored, slice(None) if len(rows) == len(scored.inputs) else rows, len(rows))

    # ------------------------------------------------------------------ learned baselines

    def _learn(self, scored: Sampled, rows: NDArray[np.intp]) -> None:
        """Keeps rows of a version without a baseline; of the first `LEARNED_ROWS` of them one is made."""
        version = scored.model.manifest.model_id, scored.model.manifest.version
        if version in self._learned or not self._learns:
            return
        lesson = self._lessons.get(version)
        if lesson is None or lesson.schema is not scored.model.features:
            if len(self._lessons) >= LESSONS_MAX:
                return
            lesson = self._lessons[version] = _Lesson(scored.model.features)
        counter = self._counters_of(scored.model).predictions
        lesson.blocks.append(scored.inputs[rows])
        lesson.rows += len(rows)
        lesson.predictions = lesson.predictions.plus(counter.count(scored.arrays, rows))
        if lesson.rows >= lesson.rows_wanted:
            del self._lessons[version]
            self._learned.add(version)
            self._propose(version, lesson)

    def _propose(self, version: tuple[str, int], lesson: _Lesson) -> None:
        baseline = make_baseline(
            lesson.schema, concatenate(lesson.blocks), lesson.predictions, int(self._clock() * 1000), "learned"
        )
        try:
            value = encode_baseline(baseline)
        except TooLargeError as error:
            log.warning("baseline_not_learned", model=version[0], version=version[1], reason=error.message)
            return
        log.info("baseline_learned", model=version[0], version=version[1], rows=baseline.rows)
        self._proposals.append((str(BaselineKey(*version, learned=True)).encode(), value, []))

    def _count_samples(self) -> None:
        for label, sample in self._samples.items():
            self._count_sample(label, sample)
        self._samples.clear()

    def _count_sample(self, label: Label, sample: _Sample) -> None:
        sample.count()
        minute = int(self._clock()) // WINDOW_S
        self.later(
            WindowStats(**label._asdict(), minute=minute, predictions=sample.predictions, features=sample.features)
        )

    def _counters_of(self, model: ServedModel) -> _Counters:
        manifest = model.manifest
        version = manifest.model_id, manifest.version
        found = self._counters.get(version)
        baseline = self._baseline_of(*version)
        revision = baseline.revision if baseline is not None else None
        if found is None or found.schema is not model.features or _revision(found) != revision:
            if len(self._counters) >= VERSIONS_MAX:
                self._counters.clear()
            features = FeatureCounter(model.features, baseline) if baseline is not None else None
            if baseline is not None:
                self._lessons.pop(version, None)
            found = self._counters[version] = _Counters(model.features, PredictionCounter(model), features)
        return found


def _revision(counters: _Counters) -> int | None:
    return counters.features.revision if counters.features is not None else None


def _spread(rows: int) -> NDArray[np.intp]:
    """Rows at equal distances: intp (up to `SAMPLED_ROWS_MAX`,)."""
    if rows <= SAMPLED_ROWS_MAX:
        return np.arange(rows)
    return np.arange(SAMPLED_ROWS_MAX) * rows // SAMPLED_ROWS_MAX


def _places(scored: ScoredRows) -> NDArray[np.intp]:
    """The place of the request of each row: intp (rows,)."""
    return np.repeat(np.arange(len(scored.counts)), scored.counts)


def _grouped(keys: NDArray[np.int64]) -> tuple[list[int], NDArray[np.intp]]:
    """The keys that occur, and for each place which of them it has. There are few."""
    counts = np.bincount(keys)
    present = np.flatnonzero(counts)
    places = np.zeros(len(counts), np.intp)
    places[present] = np.arange(len(present))
    return present.tolist(), places[keys]

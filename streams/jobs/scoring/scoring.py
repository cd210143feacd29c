"""Scores chunks of jobs, with the same checks, models and postprocessing as for requests.

`ChunkScorer.prepare` reads the rows; each `ChunkGroup.predict` may be called inline or in a thread; `ChunkBatch.finish`
returns one encoded result per chunk, in order. Small chunks of the same version are scored as one matrix. A failed row
has a typed error in its chunk's result and never affects other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from inferd.schemas.codecs import MSGPACK, Codec, codec_named
from inferd.schemas.errors import (
    InferenceError,
    InternalError,
    InvalidValueError,
    JobExpiredError,
    ModelServingError,
    TooLargeError,
)
from inferd.schemas.jobs import Chunk, ChunkResult, decode_chunk_result, job_message_limits, row_batch, rows_of
from inferd.schemas.limits import Limits
from inferd.schemas.requests import Output
from inferd.streams.inference import (
    Arrays,
    Inputs,
    ModelCatalog,
    OwnRuntime,
    PinnedModelId,
    ServedModel,
    Version,
    concatenate,
    internal_error,
)
from inferd.streams.inference.features import plain_rows, scorable_rows
from inferd.streams.jobs.scoring.pinned_model import (
    is_final,
    is_known,
    model_of,
)
from inferd.streams.jobs.scoring.results import ChunkDraft

ProcessBatch = Callable[[str, list[Any]], Sequence[Any]]
"""(model id, rows as lists or dicts) -> a prediction or an exception for each row."""

GROUP_VALUES_MAX = 4_000_000
"""Maximum output values per group, unless a single chunk has more: 32 MB of float64."""
_CALL_ROWS_MIN = 512
"""Minimum rows per predict call, if there are that many."""
_FAULTS_KEPT = 8
"""Maximum number of errors kept if a model raises for every row."""


@dataclass(frozen=True, slots=True)
class ChunkWork:
    """A chunk with everything needed to score it."""

    chunk: Chunk
    rows: bytes
    """The rows carried by the chunk, or `rows_of(…).cut(…)` of its source."""
    codec: Codec = MSGPACK
    """Of `rows`."""
    previous: bytes | None = None
    """For a retry: the latest result of the chunk. Without it, every row is scored again."""
    rejection: ModelServingError | None = None
    """The error of each row if the source can no longer be read."""


def chunk_work(
    chunk: Chunk, source: tuple[bytes | None, Codec] | None, previous: bytes | None, limits: Limits
) -> ChunkWork:
    """The work of a chunk.

    `source`: value and codec of the message that `chunk.source` names, None if it no longer exists; `previous`: value
    of the result that `chunk.previous` names, likewise. Both are ignored if the chunk names none.
    """
    if chunk.rows is not None:
        return ChunkWork(chunk, chunk.rows, codec_named(chunk.rows_encoding), previous)
    try:
        if chunk.source is None or source is None:
            raise JobExpiredError("the message that had the row is past the retention of jobs")
        batch = rows_of(*source, limits)
        return ChunkWork(chunk, batch.cut(chunk.source.start, chunk.source.stop), batch.codec, previous)
    except ModelServingError as error:
        return ChunkWork(chunk, b"", MSGPACK, previous, error)


@dataclass(slots=True, eq=False)
class ChunkGroup:
    """The rows of chunks that one version scores with the same outputs."""

    in_thread: ClassVar[bool] = False
    """Whether the duration of `predict` is unbounded, so that it always runs in a thread."""

    model: ServedModel
    outputs: tuple[Output, ...]
    drafts: list[ChunkDraft] = field(default_factory=list)
    blocks: list[Inputs] = field(default_factory=list)
    rows: int = 0
    arrays: list[tuple[slice, Arrays]] = field(default_factory=list)
    """Output arrays of consecutive ranges of rows."""
    errors: dict[int, ModelServingError] = field(default_factory=dict)
    """Errors of rows for which the model raised."""
    faults: list[Exception] = field(default_factory=list)

    @property
    def to_score(self) -> int:
        """Number of rows that the model must score."""
        return self.rows

    def add(self, draft: ChunkDraft, inputs: Inputs) -> None:
        self.drafts.append(draft)
        self.blocks.append(inputs)
        self.rows += len(inputs)

    def predict(self) -> None:
        """Runs the model over all rows; an exception becomes the error of the rows that cause it."""
        start = 0
        for inputs in _joined(self.blocks):
            self._predict(inputs, start)
            start += len(inputs)

    def _predict(self, inputs: Inputs, start: int) -> None:
        """Predicts rows; the first one is row `start` of the group."""
        try:
            arrays = self.model.runtime.predict(inputs, self.model.postprocessor.needed(self.outputs))
            self.arrays.append((slice(start, start + len(inputs)), arrays))
        except InvalidValueError as error:
            if not self._predicted_in_halves(inputs, start):
                self.errors[start] = error
        except ModelServingError as error:
            self.errors.update(dict.fromkeys(range(start, start + len(inputs)), error))
        except Exception as fault:  # noqa: BLE001  # whatever a runtime raises is the outcome of its own rows
            if not self._predicted_in_halves(inputs, start):
                self.errors[start] = internal_error(fault)
                self.faults += [fault] if len(self.faults) < _FAULTS_KEPT else []

    def _predicted_in_halves(self, inputs: Inputs, start: int) -> bool:
        """Predicts the two halves of the rows separately, so that only the invalid rows fail; False for one row."""
        if len(inputs) == 1:
            return False
        half = len(inputs) // 2
        self._predict(inputs[:half], start)
        self._predict(inputs[half:], start + half)
        return True

    def deliver(self) -> None:
        """Passes each draft the outcomes of its rows."""
        columns = self._columns()
        start = 0
        for draft in self.drafts:
            stop = start + draft.expected
            errors = {row - start: error for row, error in self.errors.items() if start <= row < stop}
            draft.take({output: values[start:stop] for output, values in columns.items()}, errors)
            start = stop

    def _columns(self) -> dict[Output, list[Any]]:
        """The values of each output; None for rows for which the model raised."""
        if len(self.arrays) == 1 and not self.errors:
            return self._finite_columns(*self.arrays[0])
        columns: dict[Output, list[Any]] = {output: [None] * self.rows for output in self.outputs}
        for rows, arrays in self.arrays:
            for output, values in self._finite_columns(rows, arrays).items():
                columns[output][rows] = values
        return columns

    def _finite_columns(self, rows: slice, arrays: Arrays) -> dict[Output, list[Any]]:
        columns = self.model.postprocessor.columns(arrays, self.outputs)
        unfit = self.model.postprocessor.check(arrays)
        for place in () if unfit is None else np.flatnonzero(unfit).tolist():
            self.errors[rows.start + place] = InvalidValueError("the model's output for it is not a finite number")
        return columns


@dataclass(slots=True, eq=False)
class UserCodeChunk(ChunkGroup):
    """The rows of one chunk that user code scores."""

    in_thread: ClassVar[bool] = True

    process: ProcessBatch = field(kw_only=True)
    model_id: PinnedModelId = field(kw_only=True)
    plain: list[Any] = field(kw_only=True)
    outcomes: Sequence[Any] = ()

    def predict(self) -> None:
        """Calls the user code; an exception becomes the error of every row."""
        try:
            self.outcomes = list(self.process(self.model_id, self.plain)) if self.plain else []
            if len(self.outcomes) != self.rows:
                raise InternalError(f"process_batch returned {len(self.outcomes)} outcomes for {self.rows} rows")
        except ModelServingError as error:
            self.outcomes = [error] * self.rows
        except Exception as fault:  # noqa: BLE001  # users' code may raise anything
            self.faults.append(fault)
            self.outcomes = [internal_error(fault)] * self.rows

    def deliver(self) -> None:
        (draft,) = self.drafts
        failed: dict[int, ModelServingError] = {}
        values = [_plain(outcome) for outcome in self.outcomes]
        for place, value in enumerate(values):
            if isinstance(value, Exception):
                failed[place] = _error(value, draft)
            elif isinstance(value, float) and not math.isfinite(value):
                failed[place] = InvalidValueError("the prediction is not a finite number")
        draft.take({"prediction": values}, failed)


class ChunkBatch:
    """Chunks being scored."""

    def __init__(self, drafts: list[ChunkDraft], groups: list[ChunkGroup], limits: Limits) -> None:
        self.groups = groups
        self.faults: list[Exception] = []
        """Unexpected exceptions, to be logged with their traceback. Complete after `finish`."""
        self._drafts = drafts
        self._limits = limits

    @property
    def rows(self) -> int:
        """Rows that models score."""
        return sum(group.rows for group in self.groups)

    def finish(self) -> list[bytes]:
        """The encoded result of each chunk; every group must have been predicted."""
        for group in self.groups:
            group.deliver()
            self.faults += group.faults
        results = [draft.encode(self._limits) for draft in self._drafts]
        for draft in self._drafts:
            self.faults += draft.faults
        return results


class ChunkScorer:
    """Scores chunks of one tenant's jobs."""

    def __init__(self, catalog: ModelCatalog, limits: Limits, process_batch: ProcessBatch | None = None) -> None:
        self._catalog = catalog
        self._limits = limits
        self._row_limits = job_message_limits(limits)
        self._process_batch = process_batch

    def prepare(self, works: Sequence[ChunkWork]) -> ChunkBatch:
        """Reads the rows of every chunk; a chunk whose version does not serve gets its typed error."""
        groups: list[ChunkGroup] = []
        drafts: list[ChunkDraft] = []
        for work in works:
            draft = ChunkDraft(work.chunk, _previous(work, self._limits))
            drafts.append(draft)
            try:
                self._prepare(work, draft, groups)
            except ModelServingError as error:
                draft.fail(error)
            except Exception as fault:  # noqa: BLE001  # no chunk may stop its partition
                draft.faults.append(fault)
                draft.fail(internal_error(fault))
        return ChunkBatch(drafts, groups, self._limits)

    def version_of(self, chunk: Chunk) -> Version | None:
        """The version of a chunk, loaded or not; None if it is not known with the same content."""
        return self._catalog.version(chunk.model_id, chunk.version) if is_known(self._catalog, chunk) else None

    def waiting_for(self, chunk: Chunk) -> Literal["unknown", "loading"] | None:
        """Why the version of a chunk does not serve yet; None if it serves, or never will."""
        try:
            model_of(self._catalog, chunk)
        except InferenceError:
            if is_final(self._catalog, chunk):
                return None
            return "loading" if is_known(self._catalog, chunk) else "unknown"
        return None

    def _prepare(self, work: ChunkWork, draft: ChunkDraft, groups: list[ChunkGroup]) -> None:
        if work.rejection is not None:
            raise work.rejection
        rows = work.rows
        if draft.places is not None:
            rows = row_batch(rows, work.codec, self._row_limits).pick(draft.places)
        # Rows of a tensor are a tensor, whatever the codec of their message.
        model = model_of(self._catalog, work.chunk)
        own = model.runtime.process if isinstance(model.runtime, OwnRuntime) else None
        if (process := self._process_batch or own) is not None:
            self._add_own(work, draft, rows, model, process, groups)
            return
        model.check_outputs(work.chunk.outputs)
        if not draft.numbers:
            return
        values = sum(model.runtime.values_per_row(output) for output in work.chunk.outputs) * len(draft.numbers)
        if values > self._limits.result_bytes_max:
            raise TooLargeError(
                f"the result of the chunk would have {values} values, which do not fit into "
                f"{self._limits.result_bytes_max} bytes: ask for fewer outputs or smaller chunks (chunk_rows)"
            )
        scorable = scorable_rows(rows, work.codec, model.features, self._row_limits, draft.numbers)
        draft.expect(len(scorable.inputs), scorable.places, scorable.errors)
        if len(scorable.inputs):
            _group(groups, model, work.chunk.outputs, values).add(draft, scorable.inputs)

    def _add_own(
        self,
        work: ChunkWork,
        draft: ChunkDraft,
        data: bytes,
        model: ServedModel,
        process: ProcessBatch,
        groups: list[ChunkGroup],
    ) -> None:
        """The rows of a chunk for user code instead of a model."""
        if work.chunk.outputs != ("prediction",):
            raise InvalidValueError("outputs: user-defined code returns only predictions")
        rows, errors = plain_rows(data, work.codec, self._row_limits, draft.numbers)
        places = [place for place in range(len(draft.numbers)) if place not in errors]
        draft.expect(len(rows), np.array(places, dtype=np.intp), errors)
        # Calls of the model by user code use the version of the job.
        model_id = PinnedModelId.of(work.chunk.model_id, model)
        groups.append(
            UserCodeChunk(
                model, work.chunk.outputs, [draft], rows=len(rows), process=process, model_id=model_id, plain=rows
            )
        )


def _joined(blocks: Sequence[Inputs]) -> Iterator[Inputs]:
    """`blocks` with small ones joined: copying them is cheaper than another call."""
    waiting: list[Inputs] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= _CALL_ROWS_MIN:
            yield waiting[0] if len(waiting) == 1 else concatenate(waiting)
            waiting = []
    if waiting:
        yield waiting[0] if len(waiting) == 1 else concatenate(waiting)


def _group(groups: list[ChunkGroup], model: ServedModel, outputs: tuple[Output, ...], values: int) -> ChunkGroup:
    """The latest group of a version and outputs, if it has room for more values."""
    per_row = sum(model.runtime.values_per_row(output) for output in outputs)
    for group in reversed(groups):
        if group.model is model and group.outputs == outputs:
            if group.rows * per_row + values <= GROUP_VALUES_MAX:
                return group
            break
    groups.append(ChunkGroup(model, outputs))
    return groups[-1]


def _previous(work: ChunkWork, limits: Limits) -> ChunkResult | None:
    """The result that a retry starts from, if it has the same rows and version."""
    chunk = work.chunk
    if work.previous is None:
        return None
    try:
        previous = decode_chunk_result(work.previous, codec_named(chunk.encoding), limits)
    except InferenceError:
        return None
    same = (previous.job_id, previous.chunk, previous.first_row, previous.digest, tuple(previous.outputs))
    if same != (chunk.job_id, chunk.chunk, chunk.first_row, chunk.digest, chunk.outputs):
        return None
    return previous if len(previous.outputs["prediction"]) == chunk.row_count else None


def _error(outcome: Exception, draft: ChunkDraft) -> ModelServingError:
    if isinstance(outcome, ModelServingError):
        return outcome
    draft.faults.append(outcome)
    return internal_error(outcome)


def _plain(value: Any) -> Any:
    """A prediction of user code in a form that can be encoded: numpy values become Python values."""
    return value.tolist() if hasattr(value, "tolist") else value

"""Micro-batches: turns bytes of records into results, grouped by model version and outputs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, TypeVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.codec import encode_result
from inferd.schemas.codecs import Codec
from inferd.schemas.errors import (
    InternalError,
    InvalidValueError,
    ModelServingError,
    TooLargeError,
)
from inferd.schemas.headers import NO_HEADERS, RequestHeaders
from inferd.schemas.limits import Limits
from inferd.schemas.protocols import Exchange
from inferd.schemas.requests import Failure, Output, Prediction, default_id, result_identity
from inferd.streams.inference.cache import PredictionCache, RowLookup, distinct_rows
from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.encoded_headers import EncodedHeaders
from inferd.streams.inference.inputs import Inputs, concatenate
from inferd.streams.inference.outcome import CACHE_HIT, CACHE_MISS, Members, Outcome, Reply
from inferd.streams.inference.record_block import RecordBlock, joined_records, record_keys
from inferd.streams.inference.result_template import ResultTemplate
from inferd.streams.inference.row_errors import RowErrors
from inferd.streams.inference.runtime import Arrays
from inferd.streams.inference.scored_rows import ScoredRows
from inferd.streams.inference.shadow_marks import ShadowMarks
from inferd.streams.inference.spans import AsciiTexts, Indexes, Spans
from inferd.streams.inference.variants import VariantMarks
from inferd.streams.inference.work import Converted, Work


@dataclass(slots=True)
class Group:
    """The requests of a micro-batch for the same version, outputs and codec.

    Request i of the group is record `indexes[i]` with `counts[i]` rows; its result is a single value if `singles[i]`,
    else a list. The lists are parallel, because one object per request would take longer than scoring its row.
    """

    in_thread: ClassVar[bool] = False
    """Whether the duration of `predict` is unbounded, so that it always runs in a thread."""

    model: ServedModel
    outputs: tuple[Output, ...]
    codec: Codec
    indexes: list[int] = field(default_factory=list)
    ids: Sequence[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    singles: list[bool] = field(default_factory=list)
    blocks: list[Inputs] = field(default_factory=list)
    rows: int = 0
    to_score: int = 0
    """Number of rows that the model must score, as known so far: without cached rows, and without duplicates."""
    looked_up: bool = False
    """Whether the version has a cache, and was looked up there."""
    lookup: RowLookup | None = None
    arrays: Arrays | None = None
    error: ModelServingError | None = None
    fault: Exception | None = None
    """An unexpected exception, which is logged with its traceback."""
    _places: Indexes | None = None
    alone: list[Group] = field(default_factory=list)
    """Its requests one by one, if the model raised for all of them together."""

    def add(self, index: int, request_id: str, inputs: Inputs, *, single: bool) -> None:
        """Adds a request and its rows."""
        self._extend([index], [request_id], [len(inputs)], [single], inputs)

    def add_several(
        self, indexes: Indexes, ids: Sequence[str], inputs: Inputs, counts: list[int] | None = None
    ) -> None:
        """Adds requests. `counts`: how many rows each lists; None if each is a row itself."""
        first, single = not self.indexes, counts is None
        self._extend(indexes.tolist(), ids, counts or [1] * len(indexes), [single] * len(indexes), inputs)
        self._places = indexes if first else None

    def _extend(
        self, indexes: Sequence[int], ids: Sequence[str], counts: list[int], singles: list[bool], inputs: Inputs
    ) -> None:
        self.ids = joined_ids(self.ids, ids)
        self.indexes += indexes
        self.counts += counts
        self.singles += singles
        self.blocks.append(inputs)
        self.rows += len(inputs)
        self.to_score = self.rows

    def finish(self, _batch: MicroBatch) -> bool:
        """Writes the group's results into the batch, if the group encodes its own. This class does not, and returns
        False."""
        return False

    @property
    def places(self) -> Indexes:
        """`indexes` as an array."""
        if self._places is None or len(self._places) != len(self.indexes):
            self._places = np.array(self.indexes, np.intp)
        return self._places

    @property
    def inputs(self) -> Inputs:
        """All rows."""
        if len(self.blocks) > 1:
            self.blocks = [concatenate(self.blocks)]
        return self.blocks[0]

    @property
    def one_row_each(self) -> bool:
        return self.counts.count(1) == len(self.counts)

    @property
    def members(self) -> Members:
        """The records of the group, and its version."""
        manifest = self.model.manifest
        return Members(manifest.model_id, manifest.version, self.places, self.counts, self.one_row_each)

    def look_up(self, lookup: RowLookup) -> None:
        """Looks up the rows in the cache."""
        self.lookup, self.looked_up, self.to_score = lookup, True, len(lookup.to_score)

    def predict(self) -> None:
        """Scores the rows that are not cached. An exception becomes the error of the requests that caused it."""
        inputs = self.inputs
        try:
            self.arrays = self._answer(inputs, self.model.postprocessor.needed(self.outputs))
        except InvalidValueError as error:
            self._reject(inputs, error)
        except ModelServingError as error:
            self.error, self.lookup = error, None
        except Exception as fault:  # noqa: BLE001  # whatever a runtime raises is the outcome of its own requests
            self.lookup = None
            if len(self.indexes) > 1:
                self.alone = self._predict_alone(inputs)
            else:
                self.error, self.fault = internal_error(fault), fault

    def _answer(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """The output arrays of all rows. Equal rows are scored once."""
        predict, lookup = self.model.runtime.predict, self.lookup
        if lookup is not None:
            scored = predict(_rows(inputs, lookup.to_score), outputs) if self.to_score else {}
            if (arrays := lookup.merge(scored)) is not None:
                return arrays
            self.lookup = None
        distinct = distinct_rows(inputs)
        if distinct is None:
            self.to_score = len(inputs)
            return predict(inputs, outputs)
        places, inverse = distinct
        self.to_score = len(places)
        return {name: rows[inverse] for name, rows in predict(_rows(inputs, places), outputs).items()}

    def _reject(self, inputs: Inputs, error: InvalidValueError) -> None:
        """Handles a row that the model rejects: its request gets the error; the others are scored without it."""
        self.lookup = None
        if len(self.indexes) > 1:
            self.alone = self._predict_alone(inputs)
            return
        self.error = error
        if len(inputs) > 1:
            # Only distinct rows were scored. Score all of them, so that the error has the row number in the request.
            try:
                self.model.runtime.predict(inputs, self.model.postprocessor.needed(self.outputs))
            except ModelServingError as of_request:
                self.error = of_request

    def _predict_alone(self, inputs: Inputs) -> list[Group]:
        """Scores each request in its own group."""
        groups = []
        for place, rows in enumerate(self.spans()):
            group = Group(self.model, self.outputs, self.codec)
            group.add(self.indexes[place], self.ids[place], inputs[rows], single=self.singles[place])
            group.predict()
            groups.append(group)
        return groups

    def scored(self) -> Iterator[ScoredRows]:
        """The requests that the model has scored, with their rows and its values."""
        for group in self.alone or (self,):
            if group.arrays is not None:
                yield ScoredRows(
                    group.model, group.places, group.ids, group.counts, group.singles, group.outputs, group.inputs,
                    group.arrays,
                )  # fmt: skip

    def by_request(self, column: list[Any]) -> list[Any]:
        """The value of each request, of a column with a value for each row: a list if it lists rows."""
        if self.rows == len(self.indexes) and all(self.singles):
            return column
        spans = zip(self.spans(), self.singles, strict=True)
        return [column[rows.start] if single else column[rows] for rows, single in spans]

    def spans(self) -> Iterator[slice]:
        """The row range of each request."""
        return (slice(stop - count, stop) for count, stop in zip(self.counts, accumulate(self.counts), strict=True))


def joined_ids(first: Sequence[str], then: Sequence[str]) -> Sequence[str]:
    """The ids of both. Extends `first` if it is a list."""
    if isinstance(then, AsciiTexts) and not first:
        return then
    if not isinstance(first, list):
        return [*first, *then]
    first.extend(then)
    return first


G = TypeVar("G", bound=Group)


class MicroBatch:
    """Records being scored, with their groups and results."""

    def __init__(self, work: Work, limits: Limits) -> None:
        records = joined_records([records for _, records in work]) if work else []
        # Of a list a copy: records in other protocols are replaced.
        self.records = records if isinstance(records, RecordBlock) else list(records)
        self._keys: list[bytes | None] | None = None
        self.groups: list[Group] = []
        self.headers: dict[int, RequestHeaders] = {}
        self.propagated: EncodedHeaders | None = None
        """Headers for results that are in none of `headers`."""
        self.row_errors: dict[int, RowErrors] = {}
        """Row errors of requests with the header `row-errors`."""
        self.variants = VariantMarks()
        """Which alias chose the version of a record."""
        self.shadows = ShadowMarks()
        """Which records shadow versions are to score."""
        self._limits = limits
        self._partitions = [partition for partition, _ in work]
        self._starts = list(accumulate((len(records) for _, records in work), initial=0))
        self.values: list[bytes] = [b""] * len(self.records)
        """The encoded result of each record."""
        self._rendered: list[tuple[Indexes, Spans]] = []
        """Results that were rendered together, with the indexes of their records; `values` does not have them yet."""
        self.failures: dict[int, ModelServingError] = {}
        self.unready: dict[int, str] = {}
        """Records that cannot be scored yet, and why."""
        self._asked: dict[int, str] = {}
        self._faults: list[Exception] = []
        self._by_key: dict[Hashable, Group] = {}
        self._exchanges: dict[int, Exchange] = {}
        self._changes: dict[int, dict[bytes, bytes | None]] = {}

    @property
    def keys(self) -> list[bytes | None]:
        """The key of each record."""
        if self._keys is None:
            self._keys = record_keys(self.records)
        return self._keys

    @property
    def rows(self) -> int:
        """Number of rows of all groups."""
        return sum(group.rows for group in self.groups)

    def group(self, model: ServedModel, outputs: tuple[Output, ...], codec: Codec) -> Group:
        """The group for a version, outputs and codec; created if absent."""
        return self.keyed((id(model), outputs, codec), lambda: Group(model, outputs, codec))

    def keyed(self, key: Hashable, make: Callable[[], G]) -> G:
        """The group with a key; created with `make` if absent."""
        group = self._by_key.get(key)
        if group is None:
            group = self._by_key[key] = make()
            self.groups.append(group)
        return cast(G, group)

    def headers_of(self, index: int) -> RequestHeaders:
        return self.headers.get(index, NO_HEADERS)

    def exchange(self, index: int, exchange: Exchange, request: bytes | None) -> None:
        """Replaces record `index`, which is in another protocol, by our `request`; its result is answered in kind."""
        self._exchanges[index] = exchange
        self.headers[index] = msgspec.structs.replace(self.headers_of(index), codec=exchange.codec)
        if isinstance(self.records, RecordBlock):
            self.records = list(self.records)
        self.records[index] = Converted.of(self.records[index], request)

    def partition_of(self, index: int) -> int:
        """The partition number of record `index`."""
        return self._partitions[bisect_right(self._starts, index) - 1]

    def id_of(self, index: int, given: str | None) -> str:
        return given if given is not None else default_id(self.partition_of(index), self.records[index].offset)

    def fail(self, index: int, error: ModelServingError, request_id: str | None, model_id: str | None) -> None:
        """Sets a typed error as the result of record `index`."""
        failure = Failure.of(error, self.id_of(index, request_id), model_id)
        self.failures[index] = error
        if model_id is not None:
            self._asked[index] = model_id
        self.values[index] = encode_result(failure, self.headers_of(index).codec)

    def has_failed(self, index: int) -> bool:
        return index in self.failures

    def fault(self, fault: Exception) -> None:
        """Records an exception that was not caused by a record."""
        self._faults.append(fault)

    def look_up(self, cache: PredictionCache, now_ms: int, fill_direct: int | None) -> None:
        """Looks up the rows of all groups whose version has a cache. An exception of the cache fails no request."""
        for group in self.groups:
            if group.model.manifest.cache is None or group.in_thread:
                continue
            try:
                partitions = self._partitions_of(group)
                lookup = cache.lookup(group.model, group.outputs, group.inputs, partitions, now_ms, fill_direct)
            except Exception as fault:  # noqa: BLE001  # the model can answer without
                self.fault(fault)
            else:
                if lookup is not None:
                    group.look_up(lookup)

    def _partitions_of(self, group: Group) -> NDArray[np.intp]:
        """The partition number of each row."""
        places = np.searchsorted(self._starts, group.places, side="right") - 1
        numbers = np.array(self._partitions, dtype=np.intp)[places]
        return numbers if group.one_row_each else np.repeat(numbers, group.counts)

    def finish(self) -> Outcome:
        """The outcome, with one encoded result per record. All groups must have been scored."""
        for group in self.groups:
            if not group.finish(self):
                self.finish_group(group)
        if self._exchanges or self.failures:
            self._unpack()
        replies = {index: self._reply(index, exchange) for index, exchange in self._exchanges.items()}
        values = self._all_values()
        counts: dict[tuple[str, int], tuple[int, int]] = {}
        for group in self.groups:
            manifest = group.model.manifest
            requests, rows = counts.get((manifest.model_id, manifest.version), (0, 0))
            counts[manifest.model_id, manifest.version] = (requests + len(group.indexes), rows + group.rows)
        changes = {number: list(changed.items()) for number, changed in self._changes.items()}
        return Outcome(
            values, self.headers, self.failures, self.rows, self._faults, counts, changes, self._marks(),
            self._asked, replies, self.unready, variants=self.variants.finish(len(self.records)),
            shadows=self.shadows.finish(len(self.records)),
            scored=[rows for group in self.groups for rows in group.scored()],
            members=[group.members for group in self.groups], propagated=self.propagated,
            block=self.records if isinstance(self.records, RecordBlock) else None,
        )  # fmt: skip

    def _unpack(self) -> None:
        """Moves results that were rendered together to `values`."""
        for indexes, results in self._rendered:
            for index, result in zip(indexes.tolist(), results, strict=True):
                self.values[index] = result
        self._rendered.clear()

    def _all_values(self) -> Sequence[bytes]:
        """The result of each record: spans if all of them were rendered together with others."""
        if self._rendered and sum(len(results) for _, results in self._rendered) == len(self.records):
            return Spans.merge(self._rendered)
        self._unpack()
        return self.values

    def _reply(self, index: int, exchange: Exchange) -> Reply:
        """Replaces the result of a record in another protocol by the answer in kind."""
        answer = exchange.answer(self.values[index])
        if len(answer.value) > self._limits.result_bytes_max and index not in self.failures:
            request_id, model_id = result_identity(self.values[index], exchange.codec)
            self.fail(index, self._too_large(len(answer.value)), request_id, model_id)
            answer = exchange.answer(self.values[index])
        reply = Reply(exchange, self.values[index], answer.headers)
        self.values[index] = answer.value
        return reply

    def _marks(self) -> bytes:
        """The value of `Outcome.cache_marks`. Errors have no mark, because they are never cached."""
        groups = [group for group in self.groups if group.looked_up]
        if not groups:
            return b""
        marks = np.zeros(len(self.records), dtype=np.uint8)
        for group in groups:
            marks[group.places] = CACHE_MISS
            if group.lookup is not None:
                found = group.lookup.found
                hits = found if group.one_row_each else [found[rows].all() for rows in group.spans()]
                marks[group.places[hits]] = CACHE_HIT
        marks[list(self.failures)] = 0
        return marks.tobytes()

    def _fill(self, lookup: RowLookup, unfit: NDArray[np.bool_] | None) -> None:
        try:
            changes = lookup.changes(unfit)
        except Exception as fault:  # noqa: BLE001  # the answers are there all the same
            self.fault(fault)
            return
        for number, changed in changes.items():
            self._changes.setdefault(number, {}).update(changed)

    def put(self, group: Group, place: int, result: bytes) -> None:
        """Sets the result of request `place` of the group; an error instead if the result is too large."""
        self.values[group.indexes[place]] = result
        if len(result) > self._limits.result_bytes_max:
            self._check_batch_size(group, place, len(result))

    def finish_group(self, group: Group) -> None:
        """Sets the results of a group that was scored, and adds its rows to the cache."""
        for single in group.alone:
            self.finish_group(single)
        if group.alone:
            return
        if group.fault is not None:
            self.fault(group.fault)
        if group.arrays is None:
            error = group.error or InternalError("the group was never predicted")
            for place in range(len(group.indexes)):
                self.fail_member(group, place, error)
            return
        unfit = group.model.postprocessor.check(group.arrays)
        if group.lookup is not None:
            self._fill(group.lookup, unfit)
        self.place(group, group.model.postprocessor.columns(group.arrays, group.outputs), unfit)

    def place(self, group: Group, columns: dict[Output, list[Any]], unfit: NDArray[np.bool_] | None) -> None:
        """Sets the results of a group. `columns`: by output, the values of all rows; `unfit`: bool (rows,), the rows
        with an output that is not finite; None if there are none."""
        template = ResultTemplate(group.model.manifest, group.outputs, group.codec)
        if unfit is None and self.row_errors.keys().isdisjoint(group.indexes):
            values = [group.by_request(columns[output]) for output in group.outputs]
            results = template.render_columns(group.ids, values)
            if isinstance(results, Spans) and results.bytes_max <= self._limits.result_bytes_max:
                self._rendered.append((group.places, results))
                return
            for place, (index, result) in enumerate(zip(group.indexes, results, strict=True)):
                self.values[index] = result
                if len(result) > self._limits.result_bytes_max:
                    self._check_batch_size(group, place, len(result))
        else:
            self._place_rows(group, template, columns, unfit)

    def _place_rows(self, group: Group, template: ResultTemplate, columns: dict[Output, list[Any]], unfit: Any) -> None:
        for place, rows in enumerate(group.spans()):
            if (index := group.indexes[place]) in self.row_errors:
                parts = [columns[output][rows] for output in group.outputs]
                self.put_rows(
                    index, group.ids[place], group.model, group.outputs, parts, None if unfit is None else unfit[rows]
                )
                continue
            if unfit is not None and unfit[rows].any():
                row = int(np.argmax(unfit[rows]))
                error = InvalidValueError(f"the model's output for row {row} is not a finite number")
                self.fail_member(group, place, error)
                continue
            parts = [columns[output][rows] for output in group.outputs]
            values = [part[0] for part in parts] if group.singles[place] else parts
            self.put(group, place, template.render(group.ids[place], values))

    def put_rows(
        self,
        index: int,
        request_id: str,
        model: ServedModel,
        outputs: tuple[Output, ...],
        parts: Sequence[Sequence[Any]],
        unfit: NDArray[np.bool_] | None = None,
    ) -> None:
        """Sets the result of record `index`: the values of scored rows, and the errors of the others."""
        columns, errors = self.row_errors[index].columns(outputs, parts, unfit)
        manifest = model.manifest
        prediction = Prediction(request_id, manifest.model_id, manifest.version, manifest.sha256, columns, errors)
        result = self.values[index] = encode_result(prediction, self.headers_of(index).codec)
        if len(result) > self._limits.result_bytes_max:
            self.fail(index, self._too_large(len(result)), request_id, manifest.model_id)

    def _too_large(self, size: int) -> TooLargeError:
        limit = self._limits.result_bytes_max
        return TooLargeError(f"the result has {size} bytes, the limit is {limit}: ask for fewer rows or outputs")

    def _check_batch_size(self, group: Group, place: int, size: int) -> None:
        self.fail_member(group, place, self._too_large(size))

    def fail_member(self, group: Group, place: int, error: ModelServingError) -> None:
        """Sets a typed error as the result of request `place` of the group."""
        self.fail(group.indexes[place], error, group.ids[place], group.model.manifest.model_id)


def _rows(inputs: Inputs, places: NDArray[np.intp]) -> Inputs:
    """The rows at `places`; all rows if there are as many places as rows."""
    return inputs if len(places) == len(inputs) else inputs[places]


def internal_error(fault: Exception) -> InternalError:
    """The error of requests whose scoring raised an unexpected exception."""
    return InternalError(f"{type(fault).__name__} while scoring; the worker's log has the traceback")

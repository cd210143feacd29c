"""A micro-batch of requests -> one outcome each: decode, group by model, predict, encode.

`Scorer.prepare` decodes and checks; each `Group.predict` may be called inline or in a thread; `MicroBatch.finish`
gives one encoded result a record, in order. A record that fails has a typed error as its result and never disturbs
another one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Protocol, cast

import msgspec
import numpy as np

from schemas.codec import (
    DECODE_ERRORS,
    decode_msgpack_envelope,
    decode_request,
    encode_result,
    parse_reference,
    request_identity,
)
from schemas.errors import (
    DeadlineExceededError,
    InferenceError,
    InternalError,
    InvalidHeaderError,
    InvalidIdError,
    InvalidValueError,
    MalformedError,
    ModelServingError,
    ReplyToRefusedError,
    TooDeepError,
    TooLargeError,
    UnsupportedContentTypeError,
)
from schemas.headers import NO_HEADERS, Encoding, RequestHeaders, parse_headers, readable_headers
from schemas.limits import Limits
from schemas.requests import DEFAULT_OUTPUTS, OUTPUTS, Output, PredictionRequest, default_id
from schemas.results import Failure
from streams.inference.catalog import ModelCatalog, ServedModel
from streams.inference.encoding import ResultTemplate
from streams.inference.runtime import Arrays, Matrix
from streams.inference.vectorised import gather, valid_ids

UNDECODABLE: Final = (
    MalformedError,
    TooLargeError,
    TooDeepError,
    UnsupportedContentTypeError,
    InvalidIdError,
    InvalidHeaderError,
)
"""Errors of records that could not be decoded: these are copied to the dead letters besides being answered."""


class Record(Protocol):
    """What scoring reads of a fetched record; one that could not be read in full has its `refusal` besides."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


Work = Sequence[tuple[int, Sequence[Record]]]
"""Records of a micro-batch: (partition number, records of it in order), …"""


@dataclass(slots=True)
class Group:
    """The requests of a micro-batch that one version answers with the same outputs, in the same encoding.

    Request i of the group is record `indexes[i]`, has `counts[i]` rows of the matrix, and answers with a bare value
    where `singles[i]`. Parallel lists, because an object a request costs more than the model takes for its row.
    """

    model: ServedModel
    outputs: tuple[Output, ...]
    encoding: Encoding
    indexes: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    singles: list[bool] = field(default_factory=list)
    blocks: list[Matrix] = field(default_factory=list)
    rows: int = 0
    arrays: Arrays | None = None
    error: ModelServingError | None = None
    fault: Exception | None = None
    """What was raised that is not the requests' fault; the log wants its traceback."""
    alone: list[Group] = field(default_factory=list)
    """Its requests one by one, where the model raised for all of them together."""

    def add(self, index: int, request_id: str, matrix: Matrix, *, single: bool) -> None:
        """A request and its rows."""
        self._extend([index], [request_id], [len(matrix)], [single], matrix)

    def add_singles(self, indexes: Sequence[int], ids: Sequence[str], matrix: Matrix) -> None:
        """Requests of one bare row each."""
        self._extend(indexes, ids, [1] * len(indexes), [True] * len(indexes), matrix)

    def _extend(
        self, indexes: Sequence[int], ids: Sequence[str], counts: list[int], singles: list[bool], matrix: Matrix
    ) -> None:
        self.indexes += indexes
        self.ids += ids
        self.counts += counts
        self.singles += singles
        self.blocks.append(matrix)
        self.rows += len(matrix)

    def predict(self) -> None:
        """Runs the model over all rows; what it raises is kept as the error of the requests that are to blame."""
        matrix = self.blocks[0] if len(self.blocks) == 1 else np.concatenate(self.blocks)
        try:
            self.arrays = self.model.runtime.predict(matrix, self.model.postprocessor.needed(self.outputs))
        except ModelServingError as error:
            self.error = error
        except Exception as fault:  # noqa: BLE001  # whatever a runtime raises is the outcome of its own requests
            if len(self.indexes) > 1:
                self.alone = self._predict_alone(matrix)
            else:
                self.error, self.fault = _internal(fault), fault

    def _predict_alone(self, matrix: Matrix) -> list[Group]:
        """Each request as a group of its own, predicted."""
        groups = []
        for place, rows in enumerate(self.spans()):
            group = Group(self.model, self.outputs, self.encoding)
            group.add(self.indexes[place], self.ids[place], matrix[rows], single=self.singles[place])
            group.predict()
            groups.append(group)
        return groups

    def spans(self) -> Iterator[slice]:
        """The rows of each request."""
        return (slice(stop - count, stop) for count, stop in zip(self.counts, accumulate(self.counts), strict=True))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scored micro-batch came to; `values[i]` answers record i."""

    values: list[bytes]
    headers: dict[int, RequestHeaders]
    """Of the records that have any."""
    failures: dict[int, ModelServingError]
    rows: int
    faults: list[Exception]
    by_model: dict[tuple[str, int], tuple[int, int]]
    """(model id, version) -> (requests, rows)."""

    def __add__(self, other: Outcome) -> Outcome:
        """The outcome of this micro-batch's records followed by those of `other`."""
        shift = len(self.values)
        counts = dict(self.by_model)
        for model, (requests, rows) in other.by_model.items():
            have = counts.get(model, (0, 0))
            counts[model] = (have[0] + requests, have[1] + rows)
        return Outcome(
            self.values + other.values,
            self.headers | {shift + index: headers for index, headers in other.headers.items()},
            self.failures | {shift + index: error for index, error in other.failures.items()},
            self.rows + other.rows,
            self.faults + other.faults,
            counts,
        )


class MicroBatch:
    """Records on their way from bytes to results."""

    def __init__(self, work: Work, limits: Limits) -> None:
        self.records = [record for _, records in work for record in records]
        self.groups: list[Group] = []
        self.headers: dict[int, RequestHeaders] = {}
        self._limits = limits
        self._partitions = [partition for partition, _ in work]
        self._starts = list(accumulate((len(records) for _, records in work), initial=0))
        self._values: list[bytes] = [b""] * len(self.records)
        self._failures: dict[int, ModelServingError] = {}
        self._faults: list[Exception] = []
        self._by_key: dict[tuple[int, tuple[Output, ...], Encoding], Group] = {}

    @property
    def rows(self) -> int:
        """Rows of all groups."""
        return sum(group.rows for group in self.groups)

    def group(self, model: ServedModel, outputs: tuple[Output, ...], encoding: Encoding) -> Group:
        """The group of a version, outputs and encoding; a new one where there is none yet."""
        key = (id(model), outputs, encoding)
        group = self._by_key.get(key)
        if group is None:
            group = self._by_key[key] = Group(model, outputs, encoding)
            self.groups.append(group)
        return group

    def headers_of(self, index: int) -> RequestHeaders:
        return self.headers.get(index, NO_HEADERS)

    def id_of(self, index: int, given: str | None) -> str:
        if given is not None:
            return given
        partition = self._partitions[bisect_right(self._starts, index) - 1]
        return default_id(partition, self.records[index].offset)

    def fail(self, index: int, error: ModelServingError, request_id: str | None, model_id: str | None) -> None:
        """Makes a typed error the result of record `index`."""
        failure = Failure.of(error, self.id_of(index, request_id), model_id)
        self._failures[index] = error
        self._values[index] = encode_result(failure, self.headers_of(index).encoding)

    def has_failed(self, index: int) -> bool:
        return index in self._failures

    def fault(self, fault: Exception) -> None:
        """Notes an exception that no record is to blame for."""
        self._faults.append(fault)

    def finish(self) -> Outcome:
        """One encoded result a record; every group must have been predicted."""
        for group in self.groups:
            self._finish_group(group)
        counts: dict[tuple[str, int], tuple[int, int]] = {}
        for group in self.groups:
            manifest = group.model.manifest
            requests, rows = counts.get((manifest.model_id, manifest.version), (0, 0))
            counts[manifest.model_id, manifest.version] = (requests + len(group.indexes), rows + group.rows)
        return Outcome(self._values, self.headers, self._failures, self.rows, self._faults, counts)

    def _finish_group(self, group: Group) -> None:
        for single in group.alone:
            self._finish_group(single)
        if group.alone:
            return
        if group.fault is not None:
            self.fault(group.fault)
        if group.arrays is None:
            error = group.error or InternalError("the group was never predicted")
            for place in range(len(group.indexes)):
                self._fail_member(group, place, error)
            return
        unfit = group.model.postprocessor.check(group.arrays)
        columns = group.model.postprocessor.columns(group.arrays, group.outputs)
        template = ResultTemplate(group.model.manifest, group.outputs, group.encoding)
        if unfit is None and len(group.outputs) == 1 and group.rows == len(group.indexes) and all(group.singles):
            results = template.render_column(group.ids, columns[group.outputs[0]])
            for place, (index, result) in enumerate(zip(group.indexes, results, strict=True)):
                self._values[index] = result
                if len(result) > self._limits.result_bytes_max:
                    self._refuse_size(group, place, len(result))
        else:
            self._place(group, template, columns, unfit)

    def _place(self, group: Group, template: ResultTemplate, columns: dict[Output, list[Any]], unfit: Any) -> None:
        for place, rows in enumerate(group.spans()):
            if unfit is not None and unfit[rows].any():
                row = int(np.argmax(unfit[rows]))
                error = InvalidValueError(f"the model's output for row {row} is not a finite number")
                self._fail_member(group, place, error)
                continue
            parts = [columns[output][rows] for output in group.outputs]
            values = [part[0] for part in parts] if group.singles[place] else parts
            result = template.render(group.ids[place], values)
            self._values[group.indexes[place]] = result
            if len(result) > self._limits.result_bytes_max:
                self._refuse_size(group, place, len(result))

    def _refuse_size(self, group: Group, place: int, size: int) -> None:
        limit = self._limits.result_bytes_max
        error = TooLargeError(f"the result has {size} bytes, the limit is {limit}: ask for fewer rows or outputs")
        self._fail_member(group, place, error)

    def _fail_member(self, group: Group, place: int, error: ModelServingError) -> None:
        self.fail(group.indexes[place], error, group.ids[place], group.model.manifest.model_id)


class Scorer:
    """Scores the requests of one tenant."""

    def __init__(self, catalog: ModelCatalog, limits: Limits, reply_to_allowed: Collection[str] = ()) -> None:
        self._catalog = catalog
        self._limits = limits
        self._reply_to_allowed = frozenset(reply_to_allowed)

    def prepare(self, work: Work, now_ms: int) -> MicroBatch:
        """Decodes and checks every record; `now_ms` (Unix milliseconds) decides about deadlines."""
        batch = MicroBatch(work, self._limits)
        odd, buckets = self._sort(batch, now_ms)
        for (model_id, *outputs), bucket in buckets.items():
            odd += self._gather_bucket(batch, model_id, tuple(outputs), bucket)
        for index in odd:
            self._prepare_one(batch, index)
        return batch

    def refuse(self, work: Work, error: ModelServingError) -> Outcome:
        """The outcome of records that cannot even be looked at without raising: `error`, each."""
        batch = MicroBatch(work, self._limits)
        for index in range(len(batch.records)):
            batch.fail(index, error, None, None)
        return batch.finish()

    def _sort(self, batch: MicroBatch, now_ms: int) -> tuple[list[int], dict[tuple[str, ...], _Bucket]]:
        """Which records need the typed decoder, and, by model and outputs, those that may do without it."""
        decode, bytes_max = decode_msgpack_envelope, self._limits.message_bytes_max
        odd: list[int] = []
        buckets: dict[tuple[str, ...], _Bucket] = {}
        for index, record in enumerate(batch.records):
            if record.headers and not self._usual_headers(batch, index, record, now_ms):
                if not batch.has_failed(index):
                    odd.append(index)
                continue
            value = record.value
            try:
                envelope = decode(value)  # type: ignore[arg-type]  # None raises TypeError: odd
            except (*DECODE_ERRORS, TypeError):
                odd.append(index)
                continue
            given = (envelope.id is not msgspec.UNSET) + (envelope.outputs is not msgspec.UNSET)
            # A one-byte map header that counts exactly the fields that are set: no field came twice.
            if value[0] != 0x82 + given or len(value) > bytes_max:  # type: ignore[index,arg-type]
                odd.append(index)
                continue
            key = (envelope.model_id,) if envelope.outputs is msgspec.UNSET else (envelope.model_id, *envelope.outputs)
            bucket = buckets.get(key)
            if bucket is None:
                bucket = buckets[key] = _Bucket()
            bucket.indexes.append(index)
            bucket.ids.append(envelope.id if envelope.id is not msgspec.UNSET else batch.id_of(index, None))
            bucket.raws.append(envelope.input_data)
        return odd, buckets

    def _usual_headers(self, batch: MicroBatch, index: int, record: Record, now_ms: int) -> bool:
        """Reads the headers; whether the record may still be decoded with the others."""
        try:
            _check_readable(record)
            headers = parse_headers(record.headers, self._limits)
        except InferenceError as error:
            batch.headers[index] = readable_headers(record.headers, self._limits)
            batch.fail(index, error, None, None)
            return False
        batch.headers[index] = headers
        if (refusal := self._refusal(headers, now_ms)) is not None:
            # Not to the topic that was refused, and not with headers that would send it there.
            batch.headers[index] = msgspec.structs.replace(headers, reply_to=None) if headers.reply_to else headers
            self._refuse(batch, index, record, None, refusal)
            return False
        return headers.encoding == "msgpack"

    def _refusal(self, headers: RequestHeaders, now_ms: int) -> InferenceError | None:
        """What the headers alone already rule out."""
        if headers.reply_to is not None and headers.reply_to not in self._reply_to_allowed:
            return ReplyToRefusedError(
                f"header reply-to: {headers.reply_to!r} is not on the list of allowed topics (INFERD_REPLY_TO_ALLOWED)"
            )
        if headers.deadline_ms is not None and headers.deadline_ms < now_ms:
            return _too_late(headers.deadline_ms, now_ms)
        return None

    def _gather_bucket(
        self, batch: MicroBatch, model_id: str, outputs: tuple[str, ...], bucket: _Bucket
    ) -> Sequence[int]:
        """Adds the requests that have the common layout to their group; gives the others back."""
        model = self._usual_model(model_id, outputs)
        if model is None or not valid_ids(bucket.ids, self._limits.id_chars_max):
            return bucket.indexes
        matrix, fits = gather(bucket.raws, model.features.n_features)
        flagged = model.features.check(matrix) if len(matrix) else None
        if flagged is not None:
            matrix = np.ascontiguousarray(matrix[~flagged])
            fits = np.ones(len(bucket.raws), dtype=np.bool_) if fits is None else fits
            fits[fits] = ~flagged
        if fits is None:
            indexes, ids, left = bucket.indexes, bucket.ids, []
        else:
            indexes = [i for i, fit in zip(bucket.indexes, fits, strict=True) if fit]
            ids = [i for i, fit in zip(bucket.ids, fits, strict=True) if fit]
            left = [i for i, fit in zip(bucket.indexes, fits, strict=True) if not fit]
        if indexes:
            asked = cast(tuple[Output, ...], outputs) or DEFAULT_OUTPUTS
            batch.group(model, asked, "msgpack").add_singles(indexes, ids, matrix)
        return left

    def _usual_model(self, model_id: str, outputs: tuple[str, ...]) -> ServedModel | None:
        """The version that answers, if that is simple; None leaves it, and any error, to the typed path."""
        try:
            reference = parse_reference(model_id)
            if self._catalog.splits(reference):
                return None
            model = self._catalog.resolve(reference)
        except InferenceError:
            return None
        usual = len(set(outputs)) == len(outputs) and all(o in OUTPUTS and model.runtime.supports(o) for o in outputs)
        return model if usual and model.features.plain else None

    def _prepare_one(self, batch: MicroBatch, index: int) -> None:
        """The typed path: every check one after the other, each error with its place."""
        record = batch.records[index]
        encoding = batch.headers_of(index).encoding
        request: PredictionRequest | None = None
        try:
            _check_readable(record)
            request = decode_request(record.value, encoding, self._limits)
            request_id = batch.id_of(index, request.id)
            model = self._catalog.resolve(request.model, record.key or request_id.encode())
            _check_outputs(model, request.outputs)
            matrix = model.features.matrix(request.input_data)
            self._check_result_size(model, request.outputs, len(matrix))
        except InferenceError as error:
            self._refuse(batch, index, record, request, error)
        except Exception as fault:  # noqa: BLE001  # no record may stop its partition
            batch.fault(fault)
            self._refuse(batch, index, record, request, _internal(fault))
        else:
            single = getattr(request.input_data, "single", False)
            batch.group(model, request.outputs, encoding).add(index, request_id, matrix, single=single)

    def _check_result_size(self, model: ServedModel, outputs: Sequence[Output], rows: int) -> None:
        """Before anything is allocated for it: a value takes a byte at least."""
        values = rows * sum(model.runtime.values_per_row(output) for output in outputs)
        if values > self._limits.result_bytes_max:
            raise TooLargeError(
                f"the result would have {values} values, which do not fit into {self._limits.result_bytes_max} bytes: "
                "ask for fewer rows or outputs"
            )

    def _refuse(
        self, batch: MicroBatch, index: int, record: Record, request: PredictionRequest | None, error: InferenceError
    ) -> None:
        if request is not None:
            batch.fail(index, error, request.id, str(request.model))
        else:
            encoding = batch.headers_of(index).encoding
            batch.fail(index, error, *request_identity(record.value, encoding, self._limits))


@dataclass(slots=True)
class _Bucket:
    """Requests to one model with the same outputs, not yet decoded further than their envelope."""

    indexes: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    raws: list[msgspec.Raw] = field(default_factory=list)


def halve(work: Work) -> tuple[Work, Work] | None:
    """Two micro-batches of half the records each; None where there is only one record."""
    if len(work) > 1:
        return work[: len(work) // 2], work[len(work) // 2 :]
    ((partition, records),) = work
    half = len(records) // 2
    return ([(partition, records[:half])], [(partition, records[half:])]) if half else None


def _check_readable(record: Record) -> None:
    refusal: InferenceError | None = getattr(record, "refusal", None)
    if refusal is not None:
        raise refusal


def _check_outputs(model: ServedModel, outputs: Sequence[Output]) -> None:
    for output in outputs:
        if not model.runtime.supports(output):
            manifest = model.manifest
            raise InvalidValueError(
                f"outputs: {manifest.model_id}:{manifest.version} (objective {manifest.objective}) gives no {output!r}"
            )


def _too_late(deadline_ms: int, now_ms: int) -> DeadlineExceededError:
    return DeadlineExceededError(f"the deadline passed {now_ms - deadline_ms} ms before the request was scored")


def _internal(fault: Exception) -> InternalError:
    return InternalError(f"{type(fault).__name__} while scoring; the worker's log has the traceback")

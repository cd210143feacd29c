"""Scores a micro-batch of requests: decode, group by model, predict, encode.

`Scorer.prepare` decodes and checks. Each `Group.predict` may be called inline or in a thread. `MicroBatch.finish`
returns one encoded result per record, in order. A record that fails has a typed error as its result, and does not
affect the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Final, Literal

import msgspec
import numpy as np

from inferd.schemas.codec import (
    DECODE_ERRORS,
    check_envelope,
    decode_envelope,
    decode_request,
    parse_reference,
    request_identity,
)
from inferd.schemas.codecs import Codec, Decoders
from inferd.schemas.errors import (
    InferenceError,
    InvalidHeaderError,
    InvalidIdError,
    MalformedError,
    ModelServingError,
    TooDeepError,
    TooLargeError,
    UnsupportedContentTypeError,
)
from inferd.schemas.headers import RequestHeaders
from inferd.schemas.limits import Limits
from inferd.schemas.models import CHAMPION, main_version
from inferd.schemas.protocols import Exchanges
from inferd.schemas.requests import (
    DEFAULT_OUTPUTS,
    ENVELOPE_DECODERS,
    ModelReference,
    Output,
    OutputNames,
    PredictionRequest,
    in_result_order,
    repeats_key,
)
from inferd.streams.inference.buckets import Bucket, Leg, routing_keys, strings_at
from inferd.streams.inference.cache import PredictionCache
from inferd.streams.inference.catalog import ModelCatalog, ServedModel
from inferd.streams.inference.features import ENCODINGS, ID_BYTES, FeatureSchema, valid_ids
from inferd.streams.inference.kernels import EnvelopeKernel, PlainRequests, UnavailableError, library
from inferd.streams.inference.micro_batch import MicroBatch, internal_error
from inferd.streams.inference.needed_versions import NeededVersions
from inferd.streams.inference.outcome import Outcome
from inferd.streams.inference.record_block import record_values
from inferd.streams.inference.request_headers import HeaderReader, check_readable
from inferd.streams.inference.row_errors import OF_ROWS, RowErrors, rows_apart
from inferd.streams.inference.spans import AsciiTexts, Indexes
from inferd.streams.inference.user_code import (
    Ask,
    AskRows,
    custom_group,
    group_of_rows,
)
from inferd.streams.inference.variants import VariantName, alias_choice
from inferd.streams.inference.work import Record, Work

UNDECODABLE: Final = (
    MalformedError,
    TooLargeError,
    TooDeepError,
    UnsupportedContentTypeError,
    InvalidIdError,
    InvalidHeaderError,
)
"""Errors of records that could not be decoded: these are copied to the dead letters besides being answered."""
OnStep = Callable[[Literal["validate", "preprocess", "lookup"]], None]
"""Called at the end of a step, with its name."""


_OUTPUT_NAMES = Decoders(OutputNames)
_Read = tuple[list[int], list[str], list[bytes]]
"""Indexes, ids and `input_data` of requests."""


class Scorer:
    """Scores the requests of one tenant."""

    kernel_min: ClassVar[int] = 8
    """Fewer requests are decoded faster one by one."""

    def __init__(
        self,
        catalog: ModelCatalog,
        limits: Limits,
        reply_to_allowed: Collection[str] = (),
        ask: Ask | None = None,
        ask_rows: AskRows | None = None,
        exchanges: Exchanges | None = None,
    ) -> None:
        """User code, if configured: `ask` answers every request instead of the model; `ask_rows` answers the rows of
        all requests of a micro-batch that ask only for `prediction`. `exchanges` opens requests in other protocols."""
        self._exchanges = exchanges or Exchanges(limits)
        self._catalog = catalog
        self.limits = limits
        self._headers = HeaderReader(limits, self._exchanges, reply_to_allowed)
        self._ask, self._ask_rows = ask, ask_rows
        self._kernel = _envelope_kernel(limits)
        self._last_features: dict[Codec, FeatureSchema] = {}
        """Those of most requests of a micro-batch in a codec: the rows of the next ones are probably alike."""

    def prepare(
        self,
        work: Work,
        now_ms: int,
        cache: PredictionCache | None = None,
        fill_direct: int | None = None,
        on_step: OnStep = lambda _step: None,
    ) -> MicroBatch:
        """Decodes and checks every record, and looks up its rows in the cache. `now_ms` (Unix milliseconds) is the time
        for deadlines and cache expiry.

        Rows of partition -1 belong to HTTP requests; their answers are stored in the cache of partition `fill_direct`.
        `on_step` is called after each step: `validate` (headers, deadlines, envelopes), `preprocess` (rows checked
        against the features and converted to matrices), `lookup`.
        """
        batch = MicroBatch(work, self.limits)
        others, buckets = self._sort(batch, now_ms)
        on_step("validate")
        for bucket in buckets:
            others += self._gather_bucket(batch, bucket)
        for index in sorted(others):  # user code is called in the order of the records
            self._prepare_one(batch, index)
        on_step("preprocess")
        if cache is not None:
            batch.look_up(cache, now_ms, fill_direct)
            on_step("lookup")
        return batch

    def version_of(self, reference: str | None, key: bytes | None) -> tuple[str, int] | None:
        """Model id and version that a request refers to; None if they are not deployed.

        `key`: the record key. Without it the version of a split cannot be determined: None.
        """
        try:
            asked = parse_reference(reference or "")
            if key is None and self._catalog.splits(asked):
                return None
            manifest = self._catalog.candidates(asked, key or b"")[0].manifest
        except InferenceError:
            return None
        return manifest.model_id, manifest.version

    def needed_versions(self, now_ms: int) -> NeededVersions:
        """Determines the version for each record of a micro-batch."""
        return NeededVersions(self._catalog, self._exchanges, now_ms)

    def reject(self, work: Work, error: ModelServingError) -> Outcome:
        """The outcome if scoring fails even for single records: `error` for each."""
        batch = MicroBatch(work, self.limits)
        for index, record in enumerate(batch.records):
            if record.headers:
                self._headers.salvage(batch, index, record)
            batch.fail(index, error, None, None)
        return batch.finish()

    def _sort(self, batch: MicroBatch, now_ms: int) -> tuple[list[int], list[Bucket]]:
        """Splits the records into those for the typed decoder, and buckets for the fast path."""
        others: list[int] = []
        buckets: list[Bucket] = []
        for codec, indexes in self._headers.by_codec(batch, now_ms, others).items():
            left = self._read_plain(batch, codec, indexes, buckets)
            self._read_envelopes(batch, codec, left, buckets, others)
        return others, buckets

    def _read_plain(self, batch: MicroBatch, codec: Codec, indexes: list[int], buckets: list[Bucket]) -> list[int]:
        """Reads requests in the plain layout with the kernel; returns the indexes of the others."""
        encoding = ENCODINGS.get(codec)
        if self._kernel is None or encoding is None or len(indexes) < self.kernel_min:
            return indexes
        guess = self._last_features.get(codec)
        rows = guess.kernel_for(codec, self.limits) if guess is not None else None
        given = np.array(indexes, np.intp)
        found, left = self._kernel.read(encoding, strings_at(given, record_values(batch.records)), rows)
        for plain in found:
            outputs = _outputs_of(plain, codec)
            if outputs is None:
                left += plain.indexes.tolist()
                continue
            places = given[plain.indexes]
            ids = _ids_of(batch, places, plain.ids)
            buckets.append(Bucket(codec, plain.model_id, outputs, places, ids, plain.data, plain.counts, plain.read))
        return [indexes[place] for place in left]

    def _read_envelopes(
        self,
        batch: MicroBatch,
        codec: Codec,
        indexes: list[int],
        buckets: list[Bucket],
        others: list[int],
    ) -> None:
        bytes_max, decode = self.limits.message_bytes_max, ENVELOPE_DECODERS[codec]
        found: dict[tuple[str, tuple[str, ...]], _Read] = {}
        for index in indexes:
            value = batch.records[index].value
            try:
                envelope = decode(value)
            except (*DECODE_ERRORS, TypeError):  # None raises TypeError
                others.append(index)
                continue
            if len(value) > bytes_max or envelope.outputs == [] or repeats_key(value, envelope, codec):  # type: ignore[arg-type]
                others.append(index)
                continue
            outputs = () if envelope.outputs is msgspec.UNSET else tuple(envelope.outputs)
            read = found.setdefault((envelope.model_id, outputs), ([], [], []))
            request_id = envelope.id if envelope.id is not msgspec.UNSET else batch.id_of(index, None)
            read[0].append(index)
            read[1].append(request_id)
            read[2].append(bytes(envelope.input_data))
        buckets += [
            Bucket(codec, *asked, np.array(places, np.intp), ids, data) for asked, (places, ids, data) in found.items()
        ]

    def _gather_bucket(self, batch: MicroBatch, bucket: Bucket) -> Sequence[int]:
        """Adds the requests in the common layout to their groups; returns the indexes of the others."""
        # The kernel has checked ids that are spans.
        if not isinstance(bucket.ids, AsciiTexts) and not valid_ids(bucket.ids, self.limits.id_chars_max):
            bucket, others = bucket.split([valid_ids([each], self.limits.id_chars_max) for each in bucket.ids])
            return [*others.indexes.tolist(), *self._gather_bucket(batch, bucket)]
        left: list[int] = []
        for legs, part in self._by_schema(batch, bucket):
            if not legs:
                left += part.indexes.tolist()
                continue
            features = legs[0].model.features
            inputs, fits = part.gather(features, self.limits)
            if 2 * len(part.ids) > len(batch.records):
                self._last_features[bucket.codec] = features
            left += part.indexes[~fits].tolist()
            read = part if fits.all() else part.take(np.flatnonzero(fits))
            readable = legs if read is part else [leg.among(fits) for leg in legs]
            for leg in filter(len, readable):  # a group without rows cannot be scored
                group = batch.group(leg.model, in_result_order(bucket.outputs) or DEFAULT_OUTPUTS, bucket.codec)
                leg.add_to(group, read, inputs)
        return left

    def _by_schema(self, batch: MicroBatch, bucket: Bucket) -> Sequence[tuple[Sequence[Leg], Bucket]]:
        """The versions that score the requests of a bucket; rows of versions with the same features are read together.

        No versions for requests that need the typed path, which also raises any error.
        """
        legs = [leg for leg in self._legs(batch, bucket) if self._is_usual(leg.model, bucket.outputs)]
        parts: dict[bytes, list[Leg]] = {}
        for leg in self._readable(batch, bucket, legs):
            parts.setdefault(leg.model.features.identity, []).append(leg)
        unread, found = np.ones(len(bucket.ids), np.bool_), list[tuple[Sequence[Leg], Bucket]]()
        for alike in parts.values():
            if sum(map(len, alike)) == len(bucket.ids):
                return [(alike, bucket)]
            read = np.zeros(len(bucket.ids), np.bool_)
            for leg in alike:
                read[leg.places] = True
            unread &= ~read
            found.append(([leg.among(read) for leg in alike], bucket.take(np.flatnonzero(read))))
        return [*found, ((), bucket.take(np.flatnonzero(unread)))] if unread.any() else found

    def _readable(self, batch: MicroBatch, bucket: Bucket, legs: Sequence[Leg]) -> Sequence[Leg]:
        """The legs without requests that list too many rows, or whose results have errors of single rows."""
        if bucket.counts is None:
            return legs
        apart = [index for index, headers in batch.headers.items() if headers.row_errors]
        together, kept = ~np.isin(bucket.indexes, apart), list[Leg]()
        for leg in legs:
            fit = together & (bucket.counts <= self._rows_max(leg.model, bucket.outputs))
            kept.append(Leg(leg.model, leg.places[fit[leg.places]]))
        return list(filter(len, kept))

    def _rows_max(self, model: ServedModel, outputs: tuple[str, ...]) -> int:
        """How many rows a request may list: the bounds that the typed path checks."""
        limits, values = self.limits, _result_values(model, outputs or DEFAULT_OUTPUTS, 1)
        of_values = limits.values_max // max(1, model.features.n_features)
        return min(limits.rows_max, of_values, limits.result_bytes_max // max(1, values))

    def _legs(self, batch: MicroBatch, bucket: Bucket) -> list[Leg]:
        """The versions that score requests of a bucket, without those that cannot score now."""
        if self._ask is not None or not bucket.ids:
            return []
        try:
            reference = parse_reference(bucket.model_id)
        except InferenceError:
            return []
        alias, name = self._catalog.alias_behind(reference), reference.alias or CHAMPION
        if alias is not None:
            batch.variants.add(alias_choice(name, alias.revision, "champion"), bucket.indexes)
            batch.shadows.add(reference, alias, alias.revision, bucket.indexes)
        if alias is None or alias.split is None:
            model = self._model_or_none(reference)
            return [Leg(model, np.arange(len(bucket.ids)))] if model is not None else []
        numbers = self._catalog.split_versions(reference, routing_keys(batch, bucket))
        legs, main = [], main_version(alias)
        for number in self._catalog.split_numbers(reference):
            places = np.flatnonzero(numbers == number)
            if not len(places):
                continue
            if number != main:
                choice = alias_choice(name, alias.revision, "canary")
                batch.variants.add(choice, bucket.indexes[places])
            model = self._model_or_none(ModelReference(reference.name, version=number))
            if model is not None:
                legs.append(Leg(model, places))
        return legs

    def _resolve(self, batch: MicroBatch, index: int, reference: ModelReference, request_id: str) -> ServedModel:
        """The version for a request on the typed path; raises as `ModelCatalog.resolve` does."""
        key = batch.records[index].key or request_id.encode()
        alias = self._catalog.alias_behind(reference)
        if alias is None:
            return self._catalog.resolve(reference, key)
        batch.shadows.add(reference, alias, alias.revision, (index,))
        name = reference.alias or CHAMPION
        if alias.split is None:
            batch.variants.add(alias_choice(name, alias.revision, "champion"), (index,))
            return self._catalog.resolve(reference, key)
        number = int(self._catalog.split_versions(reference, (key,))[0])
        variant: VariantName = "champion" if number == main_version(alias) else "canary"
        batch.variants.add(alias_choice(name, alias.revision, variant), (index,))
        return self._catalog.resolve(ModelReference(reference.name, version=number))

    def _model_or_none(self, reference: ModelReference) -> ServedModel | None:
        try:
            return self._catalog.resolve(reference)
        except InferenceError:
            return None

    def _is_usual(self, model: ServedModel, outputs: tuple[str, ...]) -> bool:
        """Whether the plain path can answer with these outputs of a model."""
        usual = len(set(outputs)) == len(outputs) and all(map(model.has_output, outputs))
        return usual and _result_values(model, outputs or DEFAULT_OUTPUTS, 1) <= self.limits.result_bytes_max

    def _prepare_one(self, batch: MicroBatch, index: int) -> None:
        """The typed path: all checks in sequence, with the location in each error."""
        record = batch.records[index]
        codec = batch.headers_of(index).codec
        request: PredictionRequest | None = None
        try:
            check_readable(record)
            request = decode_request(record.value, codec, self.limits)
            request_id = batch.id_of(index, request.id)
            model = self._resolve(batch, index, request.model, request_id)
            model.check_outputs(request.outputs)
            if self._ask is not None:
                _reject_row_errors(batch.headers_of(index))
            if self._ask_rows is not None and request.outputs == DEFAULT_OUTPUTS:
                group = group_of_rows(batch, self._ask_rows, model, request, codec)
                group.add_request(index, request_id, request.input_data)
                return
            if self._ask is not None:
                batch.groups.append(custom_group(self._ask, model, request, index, request_id, codec))
                return
            inputs = model.features.inputs(request.input_data)
            self._check_result_size(model, request.outputs, len(inputs))
        except InferenceError as error:
            if not (isinstance(error, OF_ROWS) and self._answer_rows_apart(batch, index, record)):
                self._reject(batch, index, record, request, error)
        except Exception as fault:  # noqa: BLE001  # no record may stop its partition
            batch.fault(fault)
            self._reject(batch, index, record, request, internal_error(fault))
        else:
            single = getattr(request.input_data, "single", False)
            if batch.headers_of(index).row_errors and not single:
                batch.row_errors[index] = RowErrors(len(inputs))
            batch.group(model, request.outputs, codec).add(index, request_id, inputs, single=single)

    def _answer_rows_apart(self, batch: MicroBatch, index: int, record: Record) -> bool:
        """Handles a rejected request with the header `row-errors`: only its invalid rows get errors. False if not
        applicable."""
        headers = batch.headers_of(index)
        if not headers.row_errors or self._ask is not None:
            return False
        try:
            envelope = decode_envelope(record.value, headers.codec, self.limits)
            given_id, reference, outputs = check_envelope(envelope, self.limits)
            request_id = batch.id_of(index, given_id)
            model = self._resolve(batch, index, reference, request_id)
            model.check_outputs(outputs)
            found = rows_apart(record.value, headers.codec, model.features, self.limits)
            if found is None:
                return False
            self._check_result_size(model, outputs, found[1].count)
        except InferenceError:
            return False
        inputs, batch.row_errors[index] = found
        if len(inputs):
            batch.group(model, outputs, headers.codec).add(index, request_id, inputs, single=False)
        else:
            batch.put_rows(index, request_id, model, outputs, [[] for _ in outputs])
        return True

    def _check_result_size(self, model: ServedModel, outputs: Sequence[Output], rows: int) -> None:
        """Checks the size before memory is allocated: each value takes at least one byte."""
        values = _result_values(model, outputs, rows)
        if values > self.limits.result_bytes_max:
            raise TooLargeError(
                f"the result would have {values} values, which do not fit into {self.limits.result_bytes_max} bytes: "
                "ask for fewer rows or outputs"
            )

    def _reject(
        self, batch: MicroBatch, index: int, record: Record, request: PredictionRequest | None, error: InferenceError
    ) -> None:
        if request is not None:
            batch.fail(index, error, request.id, str(request.model))
        else:
            codec = batch.headers_of(index).codec
            batch.fail(index, error, *request_identity(record.value, codec, self.limits))


def _ids_of(batch: MicroBatch, indexes: Indexes, given: AsciiTexts | list[str | None]) -> Sequence[str]:
    """The ids of the records at `indexes`, with default ids where none is given."""
    return given if isinstance(given, AsciiTexts) else list(map(batch.id_of, indexes.tolist(), given))


def _outputs_of(plain: PlainRequests, codec: Codec) -> tuple[str, ...] | None:
    """The outputs that requests ask for, () by default; None if the typed path has to say what is wrong with them."""
    if plain.outputs is None:
        return ()
    try:
        return tuple(_OUTPUT_NAMES[codec](plain.outputs)) or None
    except DECODE_ERRORS:
        return None


def _envelope_kernel(limits: Limits) -> EnvelopeKernel | None:
    try:
        return EnvelopeKernel(library(), ID_BYTES, limits.id_chars_max, limits.message_bytes_max)
    except UnavailableError:
        return None


def _result_values(model: ServedModel, outputs: Sequence[Output], rows: int) -> int:
    return rows * sum(model.runtime.values_per_row(output) for output in outputs)


def _reject_row_errors(headers: RequestHeaders) -> None:
    if headers.row_errors:
        raise InvalidHeaderError(
            "header row-errors: the user-defined predictor of this worker answers whole requests; omit it"
        )

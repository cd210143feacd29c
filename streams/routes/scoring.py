"""Scores micro-batches of a route: reads the values, predicts, and writes the records of the sink."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.cloud_events import Place, source_of
from inferd.schemas.codec import parse_reference
from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import InferenceError, InvalidValueError, ModelNotReadyError, ModelServingError
from inferd.schemas.limits import Limits
from inferd.schemas.models import main_version
from inferd.schemas.requests import ModelReference, Output, default_id
from inferd.schemas.routes import Route
from inferd.streams.inference import (
    Group,
    Inputs,
    MicroBatch,
    ModelCatalog,
    OnStep,
    Outcome,
    Record,
    ServedModel,
    Version,
    Work,
    alias_headers,
    concatenate,
    internal_error,
)
from inferd.streams.inference.cache import HTTP_PARTITION, PredictionCache
from inferd.streams.routes.formats import (
    Described,
    Document,
    FailedRecord,
    Headers,
    Pending,
    RowReader,
    Schemas,
    Scored,
    Sources,
)
from inferd.streams.routes.plan import RoutePlan

_NO_DOCUMENT = Document(())
"""Of records whose row was read at once."""


_ROW = re.compile(r"\A(?:input_data: )?row [0-9]+[,:] ")


class RouteBatch(MicroBatch):
    """Records of a route that are scored together. A result is the value of a record of the sink.

    A record that fails has an empty value, or in a route with `on_error: sink` the original one with the error.
    """

    def __init__(self, work: Work, topic: str, source: str, limits: Limits, *, errors_to_sink: bool) -> None:
        """`source`: who writes, as `Place` has it."""
        # Rows are looked up in the cache as those of HTTP requests: no partition of a route has one.
        super().__init__([(HTTP_PARTITION, [record for _, records in work for record in records])], limits)
        self.sink_headers: dict[int, Headers] = {}
        """The headers of records of the sink that do not have those of their sources."""
        self._work, self._topic, self._source = work, topic, source
        self.documents: list[Document | None] = [None] * len(self.records)
        """What was read of each record; None if it could not be read."""
        self.plans: dict[int, RoutePlan] = {}
        """By the identity of the model version."""
        self._errors_to_sink = errors_to_sink

    def read(self, indexes: Sequence[int]) -> tuple[Sequence[Record], Sequence[Document]]:
        """Records that could be read, and what was read of them."""
        if len(indexes) == len(self.records):  # they are in order
            return self.records, cast(Sequence[Document], self.documents)
        documents = cast(Sequence[Document], [self.documents[index] for index in indexes])
        return [self.records[index] for index in indexes], documents

    def row_counts(self, indexes: Sequence[int]) -> list[int] | None:
        """How many rows records have that could be read; None in formats whose records have one each."""
        documents = [self.documents[index] for index in indexes[:1]]
        if any(document is None or document.rows is None for document in documents):
            return None
        return [len(document.rows or ()) for index in indexes if (document := self.documents[index]) is not None]

    def place_of(self, index: int) -> Place:
        """Where a record is."""
        start = 0
        for partition, records in self._work:
            if index < start + len(records):
                record = records[index - start]
                return Place(self._source, self._topic, partition, record.offset, record.timestamp)
            start += len(records)
        raise IndexError(index)

    def finish(self) -> Outcome:
        return replace(super().finish(), sink_headers=self.sink_headers)

    def fail(self, index: int, error: ModelServingError, request_id: str | None, model_id: str | None) -> None:
        """A record has no prediction. Its error does not say "row 0" unless the format's records have several rows."""
        document = self.documents[index]
        several = document is not None and document.rows is not None
        message = error.message if several else _ROW.sub("", error.message)
        self.failures[index] = error if message == error.message else type(error)(message)
        if model_id is not None:
            self._asked[index] = model_id
        self.values[index] = b""
        self.sink_headers.pop(index, None)

    def fail_member(self, group: Group, place: int, error: ModelServingError) -> None:
        """A record of a group has no prediction."""
        index, manifest = group.indexes[place], group.model.manifest
        self.fail(index, error, None, f"{manifest.model_id}:{manifest.version}")
        self.describe(index, self.plans[id(group.model)], manifest.model_id, manifest.version)

    def describe(self, index: int, plan: RoutePlan, model_id: str | None = None, version: int | None = None) -> None:
        """Sets the value of a record that failed, if it goes to the sink."""
        document = self.documents[index]
        if not self._errors_to_sink or document is None:
            return
        records = [self.records[index]]
        try:
            carried = plan.carried(records, [document])
        except InferenceError:
            carried = []
        source = Sources(records, [document], carried, lambda _: self.place_of(index))
        written = plan.writer.failure(source, FailedRecord(self.failures[index], model_id, version))
        if not isinstance(written, InferenceError):
            self._put(index, written)

    def place(self, group: Group, columns: dict[Output, list[Any]], unfit: NDArray[np.bool_] | None) -> None:
        """Writes the values of a group that was scored."""
        plan, indexes = self.plans[id(group.model)], group.indexes
        if not all(group.singles):
            columns, unfit = _by_record(group, columns, unfit)
        places: Sequence[int] = range(len(indexes))
        if unfit is not None and unfit.any():
            for place in np.flatnonzero(unfit).tolist():
                self.fail_member(group, place, InvalidValueError("the model's output is not a finite number"))
            places = np.flatnonzero(~unfit).tolist()
            columns = {output: list(compress(values, ~unfit)) for output, values in columns.items()}
            indexes = [indexes[place] for place in places]
        records, documents = self.read(indexes)
        manifest = group.model.manifest
        scored = Scored(
            manifest.model_id, manifest.version, group.outputs, [columns[output] for output in group.outputs],
            manifest.sha256,
        )  # fmt: skip
        carried = plan.carried(records, documents)
        sources = Sources(records, documents, carried, lambda place: self.place_of(indexes[place]))
        written = plan.writer.predictions(sources, scored)
        if len(indexes) == len(self.records) and set(map(type, written)) == {bytes}:
            self.values = cast(list[bytes], written)
            return
        for place, index, value in zip(places, indexes, written, strict=True):
            if isinstance(value, InferenceError):
                self.fail_member(group, place, value)
            else:
                self._put(index, value)

    def _put(self, index: int, written: bytes | Described | Pending) -> None:
        if isinstance(written, bytes):
            self.values[index] = written
        elif isinstance(written, Described):
            self.values[index], self.sink_headers[index] = written.value, written.headers
        else:
            self.unready[index] = written.reason


def _by_record(
    group: Group, columns: dict[Output, list[Any]], unfit: NDArray[np.bool_] | None
) -> tuple[dict[Output, list[Any]], NDArray[np.bool_] | None]:
    """For each record of several rows: the lists of its values, and whether one of these is unfit."""
    spans = list(group.spans())
    of_records: dict[Output, list[Any]] = {
        output: [values[span] for span in spans] for output, values in columns.items()
    }
    return of_records, None if unfit is None else np.array([unfit[span].any() for span in spans], np.bool_)


class RouteScorer:
    """Scores the records of one route."""

    def __init__(
        self,
        route: Route,
        catalog: ModelCatalog,
        limits: Limits,
        group: str,
        schemas: Schemas | None = None,
    ) -> None:
        """`group`: the consumer group, which writes the records of the sink."""
        self.route = route
        self.limits = limits
        self._source = source_of(group)
        self._catalog = catalog
        self._schemas = schemas
        self._reference = parse_reference(route.model)
        self._plans: dict[int, RoutePlan] = {}

    def fit(self) -> str | None:
        """Why records wait: the model cannot be used now, or does not fit the route. None if they can be scored."""
        try:
            for version in self.versions():
                if version.served is not None:
                    self._plan(version.served)
        except InferenceError as error:
            return error.message
        return None

    def versions(self) -> list[Version]:
        """The versions that may score the next records, loaded or not. Raises what `ModelCatalog.choose` raises."""
        if not self._catalog.splits(self._reference):
            return [self._catalog.choose(self._reference)]
        return [
            found
            for number in self._catalog.split_numbers(self._reference)
            if (found := self._catalog.version(self._reference.name, number)) is not None
        ]

    def of_topic(self, topic: str) -> TopicScorer:
        """Scores the records of one source topic."""
        return TopicScorer(self, topic)

    def prepare(
        self,
        topic: str,
        work: Work,
        now_ms: int,
        cache: PredictionCache | None = None,
        fill_direct: int | None = None,
        on_step: OnStep = lambda _step: None,
    ) -> RouteBatch:
        """Reads and checks every record, and looks up its row in the cache. Records have values: no tombstones."""
        batch = self._batch(topic, work)
        rejected = _rejected(batch.records)
        for index, error in rejected.items():
            batch.fail(index, error, None, None)
        for model, indexes in self._by_model(batch, work):
            self._read(batch, model, [index for index in indexes if index not in rejected] if rejected else indexes)
        on_step("validate")
        on_step("preprocess")
        if cache is not None:
            batch.look_up(cache, now_ms, fill_direct)
            on_step("lookup")
        return batch

    def reject(self, topic: str, work: Work, error: ModelServingError) -> Outcome:
        """The outcome if scoring fails even for single records: `error` for each."""
        batch = self._batch(topic, work)
        for index in range(len(batch.records)):
            batch.fail(index, error, None, None)
        return batch.finish()

    def version_of(self, asked: str | None) -> tuple[str, int] | None:
        """Model id and version of a failed record; None if no version was chosen."""
        if asked is None:
            return None
        name, _, version = asked.rpartition(":")
        return name, int(version)

    def _batch(self, topic: str, work: Work) -> RouteBatch:
        errors_to_sink = self.route.on_error == "sink"
        return RouteBatch(work, topic, self._source, self.limits, errors_to_sink=errors_to_sink)

    def _plan(self, model: ServedModel) -> RoutePlan:
        """The plan for a version, made when it is first needed; `InferenceError` if the route does not fit."""
        plan = self._plans.get(id(model))
        if plan is None or plan.model is not model:
            plan = RoutePlan(self.route, model, self._schemas, self.limits)
            used = {id(version.served) for version in self._catalog.versions()}
            self._plans = {key: each for key, each in self._plans.items() if key in used} | {id(model): plan}
        return plan

    def _by_model(self, batch: RouteBatch, work: Work) -> list[tuple[ServedModel, list[int]]]:
        """The version for each record. Records whose version cannot be used now are not ready."""
        every = range(len(batch.records))
        try:
            if not self._catalog.splits(self._reference):
                self._mark(batch, None)
                return [(self._usable(self._catalog.choose(self._reference)), list(every))]
            keys = [
                record.key or default_id(partition, record.offset).encode()
                for partition, part in work
                for record in part
            ]  # fmt: skip
            numbers = self._catalog.split_versions(self._reference, keys)
            self._mark(batch, numbers)
            return [
                (
                    self._usable(self._catalog.choose(ModelReference(self._reference.name, version=number))),
                    np.flatnonzero(numbers == number).tolist(),
                )
                for number in np.unique(numbers).tolist()
            ]
        except InferenceError as error:
            batch.unready |= dict.fromkeys(every, error.message)
            return []

    def _mark(self, batch: RouteBatch, numbers: NDArray[np.int64] | None) -> None:
        """Notes which variant of an alias scores each record; `numbers` are the versions of a split."""
        alias = self._catalog.alias_behind(self._reference)
        if alias is None:
            return
        batch.variants.add(alias_headers(alias.revision, "champion"), range(len(batch.records)))
        if numbers is not None:
            others = np.flatnonzero(numbers != main_version(alias))
            batch.variants.add(alias_headers(alias.revision, "canary"), others.tolist())

    def _usable(self, version: Version) -> ServedModel:
        if version.served is None:
            manifest = version.manifest
            raise ModelNotReadyError(f"{manifest.model_id}:{manifest.version} is {version.state}")
        self._plan(version.served)
        return version.served

    def _read(self, batch: RouteBatch, model: ServedModel, indexes: list[int]) -> None:
        """Reads the records of one version, and adds their rows to its group."""
        plan = batch.plans[id(model)] = self._plan(model)
        parts: list[tuple[list[int], Inputs]] = []
        if plan.row_reader is not None:
            usual, indexes, inputs = _usual(plan.row_reader, batch, indexes)
            parts.append((usual, inputs))
        if indexes and (documented := self._documented(batch, plan, indexes)):
            parts.append(self._converted(batch, plan, documented))
        found = [index for part, _ in parts for index in part]
        if not found:
            return
        inputs = concatenate([inputs for _, inputs in parts])
        if len(parts) > 1:  # results are written in the order of the records
            order = np.argsort(found)
            found, inputs = np.array(found)[order].tolist(), inputs[order]
        group = batch.group(plan.model, plan.outputs, MSGPACK)
        counts = batch.row_counts(found)
        if counts is None:
            group.add_singles(found, [""] * len(found), inputs)
        else:
            group.add_several(found, counts, inputs)

    def _documented(self, batch: RouteBatch, plan: RoutePlan, indexes: list[int]) -> list[int]:
        """Reads the documents of records; which of these could be read."""
        found = plan.reader.read([batch.records[index] for index in indexes])
        if len(indexes) == len(batch.records) and set(map(type, found)) == {Document}:
            batch.documents = cast(list[Document | None], found)
            return indexes
        for index, read in zip(indexes, found, strict=True):
            if isinstance(read, Document):
                batch.documents[index] = read
            elif isinstance(read, Pending):
                batch.unready[index] = read.reason
            else:
                batch.fail(index, read, None, None)
        return [index for index in indexes if batch.documents[index] is not None]

    def _converted(self, batch: RouteBatch, plan: RoutePlan, indexes: list[int]) -> tuple[list[int], Inputs]:
        """The rows of documents, and which records have one."""
        try:
            return indexes, self._inputs(batch, plan, indexes)
        except Exception:  # noqa: BLE001  # the record that causes it is found one by one
            found = [(index, rows) for index in indexes if (rows := self._alone(batch, plan, index)) is not None]
        inputs = concatenate([rows for _, rows in found]) if found else plan.model.features.no_inputs()
        return [index for index, _ in found], inputs

    def _inputs(self, batch: RouteBatch, plan: RoutePlan, indexes: Sequence[int]) -> Inputs:
        records, documents = batch.read(indexes)
        plan.carried(records, documents)
        return plan.model.features.of_values(plan.rows(*_each_row(records, documents)))

    def _alone(self, batch: RouteBatch, plan: RoutePlan, index: int) -> Inputs | None:
        """The row of a record; None if it is invalid, which is then its result."""
        manifest = plan.model.manifest
        asked = f"{manifest.model_id}:{manifest.version}"
        try:
            return self._inputs(batch, plan, [index])
        except InferenceError as error:
            batch.fail(index, error, None, asked)
        except Exception as fault:  # noqa: BLE001  # no record may stop its partition
            batch.fault(fault)
            batch.fail(index, internal_error(fault), None, asked)
        batch.describe(index, plan, manifest.model_id, manifest.version)
        return None


@dataclass(frozen=True, slots=True)
class TopicScorer:
    """Scores the records of one source topic of a route."""

    scorer: RouteScorer
    topic: str

    def prepare(
        self,
        work: Work,
        now_ms: int,
        cache: PredictionCache | None = None,
        fill_direct: int | None = None,
        on_step: OnStep = lambda _step: None,
    ) -> RouteBatch:
        """See `RouteScorer.prepare`."""
        return self.scorer.prepare(self.topic, work, now_ms, cache, fill_direct, on_step)

    def reject(self, work: Work, error: ModelServingError) -> Outcome:
        """See `RouteScorer.reject`."""
        return self.scorer.reject(self.topic, work, error)


def _each_row(records: Sequence[Record], documents: Sequence[Document]) -> tuple[Sequence[Record], Sequence[Document]]:
    """A record and a document for each row."""
    if not documents or documents[0].rows is None:
        return records, documents
    rows = [
        (record, Document(values, headers=document.headers))
        for record, document in zip(records, documents, strict=True)
        for values in document.rows or ()
    ]
    return [record for record, _ in rows], [document for _, document in rows]


def _usual(reader: RowReader, batch: RouteBatch, indexes: list[int]) -> tuple[list[int], list[int], Inputs]:
    """The records that are read without documents, the others, and the rows of the former."""
    values = [batch.records[index].value or b"" for index in indexes]
    matrix, fits = reader.rows(values)
    if len(matrix) == len(batch.records):
        batch.documents = [_NO_DOCUMENT] * len(indexes)
        return indexes, [], matrix
    usual = list(compress(indexes, fits))
    for index in usual:
        batch.documents[index] = _NO_DOCUMENT
    return usual, list(compress(indexes, ~fits)), matrix


def _rejected(records: Sequence[Record]) -> dict[int, InferenceError]:
    """The records that could not be read when they were fetched."""
    if not any(hasattr(type_, "rejection") for type_ in set(map(type, records))):
        return {}
    return {
        index: error
        for index, record in enumerate(records)
        if (error := getattr(record, "rejection", None)) is not None
    }  # fmt: skip

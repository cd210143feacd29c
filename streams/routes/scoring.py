"""Scores micro-batches of a route: reads the values, predicts, and writes the records of the sink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import cast

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.cloud_events import source_of
from inferd.schemas.codec import parse_reference
from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import InferenceError, ModelNotReadyError, ModelServingError
from inferd.schemas.limits import Limits
from inferd.schemas.models import CHAMPION, main_version
from inferd.schemas.requests import ModelReference, default_id
from inferd.schemas.routes import Route
from inferd.streams.inference import (
    Inputs,
    ModelCatalog,
    OnStep,
    Outcome,
    Record,
    ServedModel,
    Version,
    Work,
    alias_choice,
    concatenate,
    internal_error,
)
from inferd.streams.inference.cache import PredictionCache
from inferd.streams.routes.batch import RouteBatch
from inferd.streams.routes.formats import (
    Document,
    Pending,
    RowReader,
    Schemas,
)
from inferd.streams.routes.plan import RoutePlan

_NO_DOCUMENT = Document(())
"""Of records whose row was read at once."""


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
        name = self._reference.alias or CHAMPION
        batch.variants.add(alias_choice(name, alias.revision, "champion"), range(len(batch.records)))
        batch.shadows.add(self._reference, alias, alias.revision, range(len(batch.records)))
        if numbers is not None:
            others = np.flatnonzero(numbers != main_version(alias))
            batch.variants.add(alias_choice(name, alias.revision, "canary"), others.tolist())

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
        group.add_several(np.array(found, np.intp), [""] * len(found), inputs, batch.row_counts(found))

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

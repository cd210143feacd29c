"""Micro-batches of a route: what was read of records, and the records of the sink."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.cloud_events import Place
from inferd.schemas.errors import InferenceError, InvalidValueError, ModelServingError
from inferd.schemas.limits import Limits
from inferd.schemas.requests import Output
from inferd.streams.inference import Group, MicroBatch, Outcome, Record, Work
from inferd.streams.inference.cache import HTTP_PARTITION
from inferd.streams.routes.formats import Described, Document, FailedRecord, Headers, Pending, Scored, Sources
from inferd.streams.routes.plan import RoutePlan

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

"""The format `cloudevents`, over the formats of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import msgspec

from inferd.schemas.cloud_events import RELATED, encode_event, headers_of_attributes, replace_data, result_attributes
from inferd.schemas.codecs import CONTENT_TYPE
from inferd.schemas.errors import InferenceError, InvalidValueError, UnsupportedContentTypeError
from inferd.schemas.headers import CLOUD_EVENT
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.routes import CONTENT_TYPES, Format, Path, Route, Sink
from inferd.streams.routes.formats.cloud_events.event import Event, describes_event, open_event
from inferd.streams.routes.formats.format import (
    ByDocument,
    Described,
    Document,
    FailedRecord,
    Pending,
    Reader,
    RecordFormat,
    Schemas,
    Scored,
    SourceRecord,
    Sources,
    Value,
    Writer,
    Written,
)

_OF_DATA = ("schema", "registry", "message")
"""Options of the data's format."""
T = TypeVar("T")


class CloudEventsFormat:
    """A `RecordFormat`."""

    name = "cloudevents"

    def __init__(self, formats: Iterable[RecordFormat]) -> None:
        """`formats`: those that data may have."""
        self._formats = {each.name: each for each in formats}

    def check(self, route: Route) -> None:
        options = route.source.format
        if options.data is None:
            for name in _OF_DATA:
                if getattr(options, name):
                    raise InvalidValueError(f"format cloudevents: {name!r} goes with 'data', the format of the data")
            return
        if options.data not in self._formats:
            known = ", ".join(self._formats)
            raise InvalidValueError(f"format cloudevents: data {options.data[:80]!r}: expected one of {known}")
        source = msgspec.structs.replace(route.source, format=_of_data(options, options.data))
        self._formats[options.data].check(msgspec.structs.replace(route, source=source))

    def reader(
        self,
        options: Format,
        paths: Sequence[Path],
        new_field: str | None,
        schemas: Schemas | None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Reader:
        def make(name: str) -> Reader:
            return self._formats[name].reader(_of_data(options, name), paths, new_field, schemas, limits)

        return EventReader(_ByFormat(options.data, make))

    def writer(self, options: Format, sink: Sink, schemas: Schemas | None) -> Writer:
        def make(name: str) -> Writer:
            return self._formats[name].writer(_of_data(options, name), sink, schemas)

        writers = _ByFormat(options.data, make)
        return EventEnricher(writers) if sink.mode == "enrich" else EventResults(writers)


def _of_data(options: Format, name: str) -> Format:
    return msgspec.structs.replace(options, name=name, data=None)


class _ByFormat(Generic[T]):
    """The readers or writers of data by the name of its format, made when they are needed first."""

    def __init__(self, given: str | None, make: Callable[[str], T]) -> None:
        """`given`: the only format, which is then made at once."""
        self.given = given
        self._make = make
        self._made: dict[str, T | InferenceError] = {}
        if given is not None:
            self._made[given] = make(given)

    def get(self, name: str) -> T | InferenceError:
        made = self._made.get(name)
        if made is None:
            try:
                made = self._make(name)
            except InvalidValueError as error:
                made = UnsupportedContentTypeError(f"CloudEvent: its data cannot be read: {error.message}")
            self._made[name] = made
        return made


class EventReader(ByDocument):
    """Reads values at paths into the data of events."""

    def __init__(self, readers: _ByFormat[Reader]) -> None:
        self._readers = readers

    def read(self, records: Sequence[SourceRecord]) -> Sequence[Document | InferenceError | Pending]:
        opened = [open_event(record, self._readers.given) for record in records]
        read: list[Document | InferenceError | Pending | None] = [
            each if isinstance(each, InferenceError) else None for each in opened
        ]
        events = {index: each for index, each in enumerate(opened) if isinstance(each, Event)}
        for name, indexes in _by_format(events).items():
            reader = self._readers.get(name)
            if isinstance(reader, InferenceError):
                found: Sequence[Document | InferenceError | Pending] = [reader] * len(indexes)
            else:
                found = reader.read([events[index].data for index in indexes])
            for index, each in zip(indexes, found, strict=True):
                read[index] = _document(events[index], each) if isinstance(each, Document) else each
        return [each for each in read if each is not None]


def _document(event: Event, of_data: Document) -> Document:
    # Without a schema of the data the event has all that its writer needs.
    event = event if of_data.schema is None else msgspec.structs.replace(event, schema=of_data.schema)
    return Document(of_data.values, event, event.headers if event.structured else None)


class _EventWriter:
    """Writes the data of events by the writers of its formats."""

    def __init__(self, writers: _ByFormat[Writer]) -> None:
        self._writers = writers

    def predictions(self, sources: Sources, scored: Scored) -> Sequence[Written]:
        events: dict[int, Event] = dict(enumerate(document.schema for document in sources.documents))
        written: dict[int, Written] = {}
        for name, indexes in _by_format(events).items():
            some = indexes if len(indexes) < len(events) else None
            data = self._data(name, _data_of(sources, events, indexes), _some(scored, some))
            written.update(zip(indexes, data, strict=True))
        return [
            self._event(sources, index, written[index], scored.model_id, failed=False) for index in range(len(events))
        ]

    def failure(self, source: Sources, failed: FailedRecord) -> Written:
        event: Event = source.documents[0].schema
        writer = self._writers.get(event.data_format)
        if isinstance(writer, InferenceError):
            return writer
        data = writer.failure(_data_of(source, {0: event}, [0]), failed)
        return self._event(source, 0, data, failed.model_id, failed=True)

    def _data(self, name: str, data: Sources, scored: Scored) -> Sequence[Written]:
        writer = self._writers.get(name)
        return [writer] * len(data.records) if isinstance(writer, InferenceError) else writer.predictions(data, scored)

    def _event(self, sources: Sources, index: int, data: Written, model_id: str | None, *, failed: bool) -> Written:
        raise NotImplementedError


class EventEnricher(_EventWriter):
    """Writes the original event, with one more field in its data."""

    def _event(self, sources: Sources, index: int, data: Written, model_id: str | None, *, failed: bool) -> Written:
        event: Event = sources.documents[index].schema
        if not event.structured or not isinstance(data, bytes):
            return data
        return replace_data(sources.records[index].value or b"", data)


class EventResults(_EventWriter):
    """Writes results as events of their own, in the mode of the original."""

    def _event(self, sources: Sources, index: int, data: Written, model_id: str | None, *, failed: bool) -> Written:
        if not isinstance(data, bytes):
            return data
        event: Event = sources.documents[index].schema
        attributes = result_attributes(sources.place_of(index), model_id, event.attributes, failed=failed)
        attributes[RELATED] = event.attributes["id"]
        data_type = CONTENT_TYPES[event.data_format][0]
        kept = [(name, value) for name, value in sources.records[index].headers if not describes_event(name)]
        if event.structured:
            return Described(encode_event(attributes, data, data_type), [(CONTENT_TYPE, CLOUD_EVENT.encode()), *kept])
        return Described(data, [(CONTENT_TYPE, data_type.encode()), *headers_of_attributes(attributes), *kept])


def _by_format(events: Mapping[int, Event]) -> dict[str, list[int]]:
    """The indexes of the events by the format of their data."""
    found: dict[str, list[int]] = {}
    for index, event in events.items():
        found.setdefault(event.data_format, []).append(index)
    return found


def _data_of(sources: Sources, events: Mapping[int, Event], indexes: Sequence[int]) -> Sources:
    """The data of some events as records of its format."""
    documents = sources.documents
    carried: Sequence[Sequence[Value]] = [sources.carried[index] for index in indexes] if sources.carried else []
    return Sources(
        [events[index].data for index in indexes],
        [Document(documents[index].values, events[index].schema) for index in indexes],
        carried,
        lambda place: sources.place_of(indexes[place]),
    )


def _some(scored: Scored, indexes: Sequence[int] | None) -> Scored:
    """The predictions for some of the records; None: for all."""
    if indexes is None:
        return scored
    return replace(scored, columns=[[column[index] for index in indexes] for column in scored.columns])

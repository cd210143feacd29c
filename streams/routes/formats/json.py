"""JSON: objects of any shape. The added field is spliced in before the closing brace."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.schemas.codecs import JSON
from inferd.schemas.routes import Format, Path, Sink
from inferd.streams.routes.formats.format import (
    Document,
    FailedRecord,
    Reader,
    Schemas,
    Scored,
    SourceRecord,
    Value,
    Writer,
    Written,
)
from inferd.streams.routes.formats.result_fields import (
    encoded_results,
    failure_fields,
    prediction_fields,
    result_pieces,
)
from inferd.streams.routes.formats.typed_tree import TreeReader, check_no_options

_WHITESPACE = b" \t\r\n"
_CLOSING = ord("}")
_EMPTY = b"{" + _WHITESPACE


class JsonFormat:
    """A `RecordFormat`."""

    name = "json"

    def check(self, options: Format) -> None:
        check_no_options(options)

    def reader(self, options: Format, paths: Sequence[Path], new_field: str | None, schemas: Schemas | None) -> Reader:
        return TreeReader(JSON, paths, new_field)

    def writer(self, options: Format, sink: Sink, schemas: Schemas | None) -> Writer:
        return JsonEnricher(sink.field) if sink.mode == "enrich" else JsonResults(tuple(sink.carry))


class JsonEnricher:
    """Writes the original object plus one field."""

    def __init__(self, field: str) -> None:
        self._field = JSON.encode(field) + b":"

    def predictions(
        self,
        records: Sequence[SourceRecord],
        documents: Sequence[Document],
        scored: Scored,
        carried: Sequence[Sequence[Value]],
    ) -> Sequence[Written]:
        values = [record.value or b"" for record in records]
        opened = [
            # Nearly all objects end with a brace after a value.
            value[:-1] + b"," if value[-1] == _CLOSING and value[-2] not in _EMPTY else _opened(value)
            for value in values
        ]
        if (pieces := result_pieces(scored, JSON)) is None:
            encoded = map(JSON.encode, prediction_fields(scored))
            return [begin + self._field + fields + b"}" for begin, fields in zip(opened, encoded, strict=True)]
        head, tail = self._field + pieces[0], pieces[1] + b"}"
        encode = JSON.encode
        return [begin + head + encode(value) + tail for begin, value in zip(opened, scored.columns[0], strict=True)]

    def failure(
        self, record: SourceRecord, document: Document, failed: FailedRecord, carried: Sequence[Value]
    ) -> Written:
        return _opened(record.value or b"") + self._field + JSON.encode(failure_fields(failed)) + b"}"


class JsonResults:
    """Writes objects of the carried fields and those of the result."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def predictions(
        self,
        records: Sequence[SourceRecord],
        documents: Sequence[Document],
        scored: Scored,
        carried: Sequence[Sequence[Value]],
    ) -> Sequence[Written]:
        if carried:
            fields = zip(carried, prediction_fields(scored), strict=True)
            return [JSON.encode({**dict(zip(self._names, values, strict=True)), **result}) for values, result in fields]
        return encoded_results(scored, JSON)

    def failure(
        self, record: SourceRecord, document: Document, failed: FailedRecord, carried: Sequence[Value]
    ) -> Written:
        return JSON.encode({**dict(zip(self._names, carried, strict=False)), **failure_fields(failed)})


def _opened(value: bytes) -> bytes:
    """An object without its closing brace, ready for another field."""
    if value[-1] == _CLOSING and value[-2] not in _EMPTY:
        return value[:-1] + b","
    members = value.rstrip(_WHITESPACE)[:-1]
    return members if members.strip(_WHITESPACE) == b"{" else members + b","


JSON_FORMAT = JsonFormat()

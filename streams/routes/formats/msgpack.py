"""MessagePack: maps of any shape. The added field is appended; only the header of the map changes."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.schemas.codecs import MSGPACK, header
from inferd.schemas.errors import TooLargeError
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
from inferd.streams.routes.formats.result_fields import encoded_results, failure_fields, prediction_fields
from inferd.streams.routes.formats.typed_tree import TreeReader, check_no_options

_FIXED_MAP = range(0x80, 0x8F)
"""First bytes of maps with up to 14 fields: one more field adds 1 to the byte."""


class MsgpackFormat:
    """A `RecordFormat`."""

    name = "msgpack"

    def check(self, options: Format) -> None:
        check_no_options(options)

    def reader(self, options: Format, paths: Sequence[Path], new_field: str | None, schemas: Schemas | None) -> Reader:
        return TreeReader(MSGPACK, paths, new_field)

    def writer(self, options: Format, sink: Sink, schemas: Schemas | None) -> Writer:
        return MsgpackEnricher(sink.field) if sink.mode == "enrich" else MsgpackResults(tuple(sink.carry))


class MsgpackEnricher:
    """Writes the original map plus one field."""

    def __init__(self, field: str) -> None:
        self._field = MSGPACK.encode(field)

    def predictions(
        self,
        records: Sequence[SourceRecord],
        documents: Sequence[Document],
        scored: Scored,
        carried: Sequence[Sequence[Value]],
    ) -> Sequence[Written]:
        values = [record.value or b"" for record in records]
        fields = encoded_results(scored, MSGPACK)
        return [_appended(value, self._field + field) for value, field in zip(values, fields, strict=True)]

    def failure(
        self, record: SourceRecord, document: Document, failed: FailedRecord, carried: Sequence[Value]
    ) -> Written:
        return _appended(record.value or b"", self._field + MSGPACK.encode(failure_fields(failed)))


class MsgpackResults:
    """Writes maps of the carried fields and those of the result."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def predictions(
        self,
        records: Sequence[SourceRecord],
        documents: Sequence[Document],
        scored: Scored,
        carried: Sequence[Sequence[Value]],
    ) -> Sequence[Written]:
        if not carried:
            return encoded_results(scored, MSGPACK)
        fields = zip(carried, prediction_fields(scored), strict=True)
        return [MSGPACK.encode({**dict(zip(self._names, values, strict=True)), **result}) for values, result in fields]

    def failure(
        self, record: SourceRecord, document: Document, failed: FailedRecord, carried: Sequence[Value]
    ) -> Written:
        return MSGPACK.encode({**dict(zip(self._names, carried, strict=False)), **failure_fields(failed)})


def _appended(value: bytes, field: bytes) -> Written:
    """A map with one more field."""
    if value[0] in _FIXED_MAP:
        return bytes((value[0] + 1,)) + value[1:] + field
    _, count, body = header(value)
    if count + 1 >= 2**32:
        return TooLargeError("record: the map has no room for another field")
    return _map_header(count + 1) + value[body:] + field


def _map_header(count: int) -> bytes:
    return b"\xde" + count.to_bytes(2, "big") if count < 2**16 else b"\xdf" + count.to_bytes(4, "big")


MSGPACK_FORMAT = MsgpackFormat()

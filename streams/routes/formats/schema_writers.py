"""Writers of formats with schemas, over the encoder of each format."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from inferd.schemas.errors import InferenceError, InvalidValueError
from inferd.schemas.requests import OUTPUTS, Output
from inferd.schemas.routes import Format, Path, Sink
from inferd.streams.routes.formats.field_names import check_field_names
from inferd.streams.routes.formats.format import (
    FailedRecord,
    Pending,
    Schemas,
    Scored,
    Sources,
    Value,
    Writer,
    Written,
)
from inferd.streams.routes.formats.registered_schema import RegisteredSchema, SchemaKind
from inferd.streams.routes.formats.registry_header import header_of, registry_of
from inferd.streams.routes.formats.result_fields import failure_fields, prediction_fields
from inferd.streams.routes.formats.subjects import subject_of


@dataclass(frozen=True, slots=True)
class WrittenSchema:
    """The schema of values that are written."""

    name: str
    """Full name of the record or message."""
    schema: RegisteredSchema
    detail: Any = None
    """What the encoder needs besides."""


class SchemaEncoder(Protocol):
    """How a format encodes what is added to records."""

    @property
    def before_results(self) -> bytes:
        """What follows the header of a registry in the mode `result`."""

    def key(self, document_schema: Any) -> Hashable:
        """What identifies the schema of a document; None is that of results."""

    def widened(self, document_schema: Any, field: str) -> WrittenSchema:
        """The schema of a document with one more field. `InferenceError` if there can be none."""

    def results(self, topic: str, carried: Sequence[str]) -> WrittenSchema:
        """The schema of results."""

    def result(self, fields: dict[str, Any]) -> bytes:
        """The fields of a result. `InvalidValueError` if they cannot be encoded."""

    def template(self, model_id: str, version: int, only: Output) -> Callable[[Any], bytes]:
        """Encodes the fields of results from their only output. The function raises as `result` does."""

    def added(self, widened: WrittenSchema, result: bytes) -> bytes:
        """The added field, which is appended to the original."""

    def with_carried(self, carried: Sequence[Value], result: bytes) -> bytes:
        """A result with carried fields."""


@dataclass(frozen=True, slots=True)
class SchemaSource:
    """What is known of records before there is one: their schema."""

    encoder: SchemaEncoder
    document_schema: Any
    """What the encoder needs of it."""
    is_only_text: Callable[[Path], bool]
    """Whether all values at a path are text. Raises `InferenceError` if it leads to no value in any record."""


@runtime_checkable
class SchemaFormat(Protocol):
    """A `RecordFormat` whose records have a schema."""

    @property
    def kind(self) -> SchemaKind: ...

    def sources(self, schema: RegisteredSchema, options: Format, where: str) -> Sequence[SchemaSource]:
        """Each kind of record that a schema describes: one in Avro, one a message in Protobuf. `where` names the schema
        in messages. `InvalidValueError` for a schema that cannot be used."""


def schema_writer(encoder: SchemaEncoder, options: Format, sink: Sink, schemas: Schemas | None) -> Writer:
    """The writer for a sink. `InvalidValueError` for names of fields that formats with schemas do not allow."""
    check_field_names(sink)
    registry = registry_of(schemas, options) if options.schema is None or options.registry else None
    return SchemaEnricher(encoder, sink, registry) if sink.mode == "enrich" else SchemaResults(encoder, sink, registry)


class _Headers:
    """The schemas of written values, and their headers. A schema is registered when it is needed first."""

    def __init__(self, sink: Sink, schemas: Schemas | None) -> None:
        self._sink, self._schemas = sink, schemas
        self._known: dict[Hashable, tuple[bytes, WrittenSchema]] = {}

    def get(
        self, key: Hashable, make: Callable[[], WrittenSchema]
    ) -> tuple[bytes, WrittenSchema] | InferenceError | Pending:
        """The header and the schema; the header is empty without a registry."""
        known = self._known.get(key)
        if known is not None:
            return known
        try:
            made = make()
        except InferenceError as error:
            return error
        header = b""
        if self._schemas is not None:
            subject = subject_of(self._sink.subjects, self._sink.topic, made.name)
            schema_id = self._schemas.register(subject, made.schema)
            if not isinstance(schema_id, int):
                return schema_id
            header = header_of(schema_id)
        self._known[key] = header, made
        return self._known[key]


class SchemaEnricher:
    """Writes the original record plus one field, under the widened schema."""

    def __init__(self, encoder: SchemaEncoder, sink: Sink, schemas: Schemas | None) -> None:
        self._encoder, self._field = encoder, sink.field
        self._headers = _Headers(sink, schemas)

    def predictions(self, sources: Sources, scored: Scored) -> Sequence[Written]:
        results = _encoded(self._encoder, scored)
        return [self._written(sources, index, result) for index, result in enumerate(results)]

    def failure(self, source: Sources, failed: FailedRecord) -> Written:
        return self._written(source, 0, self._encoder.result(failure_fields(failed)))

    def _written(self, sources: Sources, index: int, result: bytes | InferenceError) -> Written:
        if isinstance(result, InferenceError):
            return result
        encoder, schema = self._encoder, sources.documents[index].schema
        found = self._headers.get(encoder.key(schema), lambda: encoder.widened(schema, self._field))
        if not isinstance(found, tuple):
            return found
        header, widened = found
        return b"".join((header, (sources.records[index].value or b"")[len(header) :], encoder.added(widened, result)))


class SchemaResults:
    """Writes the carried fields and the fields of the result, under a schema of inferd's own."""

    def __init__(self, encoder: SchemaEncoder, sink: Sink, schemas: Schemas | None) -> None:
        self._encoder, self._topic, self._carried = encoder, sink.topic, tuple(sink.carry)
        self._headers = _Headers(sink, schemas)

    def predictions(self, sources: Sources, scored: Scored) -> Sequence[Written]:
        results = _encoded(self._encoder, scored)
        pairs = zip(sources.carried or [()] * len(results), results, strict=True)
        return [self._written(values, result) for values, result in pairs]

    def failure(self, source: Sources, failed: FailedRecord) -> Written:
        # What is carried may be what cannot be read.
        carried = source.carried[0] if source.carried else [None] * len(self._carried)
        return self._written(carried, self._encoder.result(failure_fields(failed)))

    def _written(self, carried: Sequence[Value], result: bytes | InferenceError) -> Written:
        if isinstance(result, InferenceError):
            return result
        found = self._headers.get(None, lambda: self._encoder.results(self._topic, self._carried))
        if not isinstance(found, tuple):
            return found
        before = found[0] + self._encoder.before_results if found[0] else b""
        return before + self._encoder.with_carried(carried, result)


def _encoded(encoder: SchemaEncoder, scored: Scored) -> Sequence[bytes | InferenceError]:
    """The fields of the result of each record."""
    only = scored.outputs[0] if len(scored.outputs) == 1 else None
    if only not in OUTPUTS:
        return [_tried(encoder.result, fields) for fields in prediction_fields(scored)]
    encode = encoder.template(scored.model_id, scored.version, only)
    return [_tried(encode, value) for value in scored.columns[0]]


def _tried(encode: Callable[[Any], bytes], value: Any) -> bytes | InferenceError:
    try:
        return encode(value)
    except InvalidValueError as error:
        return error

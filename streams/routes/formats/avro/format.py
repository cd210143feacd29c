"""The format `avro`: with a schema registry, or with a schema that the route gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from inferd.schemas.errors import InferenceError, InvalidValueError, MalformedError, SchemaMismatchError
from inferd.schemas.requests import OUTPUTS
from inferd.schemas.routes import Format, Path, Sink
from inferd.streams.routes.formats.avro.decoder import AvroDecoder
from inferd.streams.routes.formats.avro.encoder import (
    PRESENT,
    encode_carried,
    encode_output,
    encode_result,
    result_template,
)
from inferd.streams.routes.formats.avro.paths import Constant, Found, Place, find
from inferd.streams.routes.formats.avro.result_schema import full_name, result_schema, widened
from inferd.streams.routes.formats.avro.schema import AvroSchema, Record, parse_avro
from inferd.streams.routes.formats.field_names import check_field_name
from inferd.streams.routes.formats.format import (
    Document,
    FailedRecord,
    Pending,
    Reader,
    Schemas,
    Scored,
    SourceRecord,
    Value,
    Writer,
    Written,
)
from inferd.streams.routes.formats.registered_schema import RegisteredSchema
from inferd.streams.routes.formats.registry_header import HEADER_BYTES, header_of, registry_of, schema_id_of
from inferd.streams.routes.formats.result_fields import failure_fields, prediction_fields
from inferd.streams.routes.formats.subjects import subject_of

_parsed = lru_cache(maxsize=1_024)(parse_avro)


class AvroFormat:
    """Records of an Avro schema."""

    name = "avro"

    def check(self, options: Format) -> None:
        if options.schema is not None:
            parse_avro(options.schema)
        elif options.registry:
            raise InvalidValueError("format avro: 'registry' goes with a schema; the registry has the others")
        if options.message is not None:
            raise InvalidValueError("format avro has no option 'message'")

    def reader(self, options: Format, paths: Sequence[Path], new_field: str | None, schemas: Schemas | None) -> Reader:
        if options.schema is None or options.registry:
            given = None if options.schema is None else parse_avro(options.schema).root
            return RegistryReader(registry_of(schemas, options), paths, given, new_field)
        return GivenReader(RegisteredSchema("AVRO", options.schema), paths, new_field)

    def writer(self, options: Format, sink: Sink, schemas: Schemas | None) -> Writer:
        for name in (sink.field, *sink.carry):
            check_field_name(name)
        registry = registry_of(schemas, options) if options.schema is None or options.registry else None
        headers = _Headers(registry, sink)
        return AvroEnricher(headers) if sink.mode == "enrich" else AvroResults(headers, tuple(sink.carry))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the records of one writer's schema are read."""

    schema: RegisteredSchema
    decoder: AvroDecoder
    slots: Sequence[int] | None
    """Of the values that are decoded; None: all, in their order."""
    constants: Sequence[Value]

    def read(self, value: bytes, start: int) -> Document | InferenceError:
        """The values of a record."""
        decoded = self.decoder.decode(value, start)
        if isinstance(decoded, InferenceError):
            return decoded
        if self.slots is None:
            return Document(decoded, self.schema)
        values = list(self.constants)
        for slot, each in zip(self.slots, decoded, strict=True):
            values[slot] = each
        return Document(values, self.schema)


def _plan(
    schema: RegisteredSchema, paths: Sequence[Path], reader: Record | None, new_field: str | None
) -> _Plan | InferenceError:
    where = "the route's schema" if schema.schema_id is None else f"schema {schema.schema_id}"
    if schema.kind != "AVRO":
        return SchemaMismatchError(f"record: {where} is of the kind {schema.kind}, expected AVRO")
    try:
        writer = _parsed(schema.text, schema.imported)
        if new_field is not None:
            widened(writer.json, new_field)
        found: Sequence[Found] = [find(path, writer.root, reader, where) for path in paths]
    except InvalidValueError as error:
        return SchemaMismatchError(f"record: {where}: {error.message}")
    except InferenceError as error:
        return error
    slots = [slot for slot, each in enumerate(found) if isinstance(each, Place)]
    decoder = AvroDecoder(writer.root, [each for each in found if isinstance(each, Place)])
    constants = [each.value if isinstance(each, Constant) else None for each in found]
    return _Plan(schema, decoder, None if len(slots) == len(found) else slots, constants)


class RegistryReader:
    """Reads records with the header of a schema registry."""

    def __init__(self, schemas: Schemas, paths: Sequence[Path], reader: Record | None, new_field: str | None) -> None:
        self._schemas, self._paths, self._new_field = schemas, paths, new_field
        self._expected = reader
        self._plans: dict[int, _Plan | InferenceError] = {}

    def read(self, records: Sequence[SourceRecord]) -> Sequence[Document | InferenceError | Pending]:
        return [self._read(record.value) for record in records]

    def _read(self, value: bytes | None) -> Document | InferenceError | Pending:
        schema_id = schema_id_of(value)
        if isinstance(schema_id, MalformedError):
            return schema_id
        plan = self._plans.get(schema_id)
        if plan is None:
            schema = self._schemas.get(schema_id)
            if not isinstance(schema, RegisteredSchema):
                return schema
            plan = self._plans[schema_id] = _plan(schema, self._paths, self._expected, self._new_field)
        assert value is not None
        return plan if isinstance(plan, InferenceError) else plan.read(value, HEADER_BYTES)


class GivenReader:
    """Reads records of one schema, without a header."""

    def __init__(self, schema: RegisteredSchema, paths: Sequence[Path], new_field: str | None) -> None:
        plan = _plan(schema, paths, None, new_field)
        if isinstance(plan, InferenceError):
            raise InvalidValueError(plan.message)
        self._plan = plan

    def read(self, records: Sequence[SourceRecord]) -> Sequence[Document | InferenceError | Pending]:
        return [
            self._plan.read(record.value, 0) if record.value else MalformedError("record: the value is empty")
            for record in records
        ]


class _Headers:
    """The headers of written values: the ids of their schemas, which are registered when they are needed first."""

    def __init__(self, schemas: Schemas | None, sink: Sink) -> None:
        self._schemas = schemas
        self.sink = sink
        self._known: dict[Any, bytes] = {}

    @property
    def bytes_before(self) -> int:
        """Bytes of an original value before its record."""
        return 0 if self._schemas is None else HEADER_BYTES

    def widened(self, schema: RegisteredSchema) -> bytes | InferenceError | Pending:
        """The header of enriched records of a writer's schema."""
        if self._schemas is None:
            return b""
        known = self._known.get(schema.schema_id)
        return known if known is not None else self._register_widened(self._schemas, schema)

    def results(self, carried: Sequence[str]) -> bytes | InferenceError | Pending:
        """The header of results."""
        if self._schemas is None:
            return b""
        known = self._known.get(None)
        if known is not None:
            return known
        text, name = result_schema(self.sink.topic, carried)
        return self._register(self._schemas, None, name, RegisteredSchema("AVRO", text))

    def _register_widened(self, schemas: Schemas, schema: RegisteredSchema) -> bytes | InferenceError | Pending:
        written: AvroSchema = _parsed(schema.text, schema.imported)
        try:
            text = widened(written.json, self.sink.field)
        except InferenceError as error:
            return error
        wider = RegisteredSchema("AVRO", text, schema.references)
        return self._register(schemas, schema.schema_id, full_name(written.json), wider)

    def _register(
        self, schemas: Schemas, key: Any, name: str, schema: RegisteredSchema
    ) -> bytes | InferenceError | Pending:
        schema_id = schemas.register(subject_of(self.sink.subjects, self.sink.topic, name), schema)
        if not isinstance(schema_id, int):
            return schema_id
        header = self._known[key] = header_of(schema_id)
        return header


def _encoded_results(scored: Scored) -> Sequence[bytes | InferenceError]:
    """The fields of the result of each record."""
    only = scored.outputs[0] if len(scored.outputs) == 1 else None
    if only not in OUTPUTS:
        return [_tried(fields) for fields in prediction_fields(scored)]
    head, tail = result_template({"model_id": scored.model_id, "version": scored.version}, only)
    encoded: list[bytes | InferenceError] = []
    for value in scored.columns[0]:
        try:
            encoded.append(head + encode_output(value) + tail)
        except InvalidValueError as error:
            encoded.append(error)
    return encoded


def _tried(fields: Mapping[str, Any]) -> bytes | InferenceError:
    try:
        return encode_result(fields)
    except InvalidValueError as error:
        return error


class AvroEnricher:
    """Writes the original record plus one field, under the widened schema."""

    def __init__(self, headers: _Headers) -> None:
        self._headers = headers

    def predictions(
        self,
        records: Sequence[SourceRecord],
        documents: Sequence[Document],
        scored: Scored,
        carried: Sequence[Sequence[Value]],
    ) -> Sequence[Written]:
        return [
            self._written(record, document, result)
            for record, document, result in zip(records, documents, _encoded_results(scored), strict=True)
        ]

    def failure(
        self, record: SourceRecord, document: Document, failed: FailedRecord, carried: Sequence[Value]
    ) -> Written:
        return self._written(record, document, encode_result(failure_fields(failed)))

    def _written(self, record: SourceRecord, document: Document, result: bytes | InferenceError) -> Written:
        if isinstance(result, InferenceError):
            return result
        header = self._headers.widened(document.schema)
        if not isinstance(header, bytes):
            return header
        return b"".join((header, (record.value or b"")[self._headers.bytes_before :], PRESENT, result))


class AvroResults:
    """Writes the carried fields and the fields of the result, under a schema of inferd's own."""

    def __init__(self, headers: _Headers, carried: Sequence[str]) -> None:
        self._headers, self._carried = headers, carried

    def predictions(
        self,
        records: Sequence[SourceRecord],
        documents: Sequence[Document],
        scored: Scored,
        carried: Sequence[Sequence[Value]],
    ) -> Sequence[Written]:
        results = _encoded_results(scored)
        return [
            self._written(values, result)
            for values, result in zip(carried or [()] * len(results), results, strict=True)
        ]

    def failure(
        self, record: SourceRecord, document: Document, failed: FailedRecord, carried: Sequence[Value]
    ) -> Written:
        return self._written(carried, encode_result(failure_fields(failed)))

    def _written(self, carried: Sequence[Value], result: bytes | InferenceError) -> Written:
        if isinstance(result, InferenceError):
            return result
        header = self._headers.results(self._carried)
        return header + encode_carried(carried) + result if isinstance(header, bytes) else header


AVRO_FORMAT = AvroFormat()

"""The format `avro`: with a schema registry, or with a schema that the route gives."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from inferd.schemas.errors import InferenceError, InvalidValueError, MalformedError, SchemaMismatchError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests import Output
from inferd.schemas.routes import Format, Path, Route, Sink
from inferd.streams.routes.formats.avro.decoder import AvroDecoder
from inferd.streams.routes.formats.avro.encoder import (
    PRESENT,
    encode_carried,
    encode_output,
    encode_result,
    result_template,
)
from inferd.streams.routes.formats.avro.paths import Constant, Found, Place, find, is_only_text
from inferd.streams.routes.formats.avro.result_schema import full_name, result_schema, widened
from inferd.streams.routes.formats.avro.schema import AvroSchema, Record, parse_avro
from inferd.streams.routes.formats.field_names import check_field_names
from inferd.streams.routes.formats.format import (
    ByDocument,
    Document,
    Pending,
    Reader,
    Schemas,
    SourceRecord,
    Value,
    Writer,
)
from inferd.streams.routes.formats.options import check_options
from inferd.streams.routes.formats.registered_schema import RegisteredSchema, SchemaKind
from inferd.streams.routes.formats.registry_header import HEADER_BYTES, registry_of, schema_id_of
from inferd.streams.routes.formats.schema_writers import SchemaSource, WrittenSchema, schema_writer

_parsed = lru_cache(maxsize=1_024)(parse_avro)


class AvroFormat:
    """Records of an Avro schema."""

    name = "avro"
    kind: SchemaKind = "AVRO"

    def check(self, route: Route) -> None:
        check_options(route, ("schema", "registry"))
        check_field_names(route.sink)
        options = route.source.format
        if options.schema is not None:
            parse_avro(options.schema)
        elif options.registry:
            raise InvalidValueError("format avro: 'registry' goes with a schema; the registry has the others")

    def reader(
        self,
        options: Format,
        paths: Sequence[Path],
        new_field: str | None,
        schemas: Schemas | None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Reader:
        if options.schema is None or options.registry:
            given = None if options.schema is None else parse_avro(options.schema).root
            return RegistryReader(registry_of(schemas, options), paths, given, new_field)
        return GivenReader(RegisteredSchema("AVRO", options.schema), paths, new_field)

    def writer(self, options: Format, sink: Sink, schemas: Schemas | None) -> Writer:
        return schema_writer(AvroEncoder(), options, sink, schemas)

    def sources(self, schema: RegisteredSchema, options: Format, where: str) -> Sequence[SchemaSource]:
        """See `SchemaFormat`."""
        writer = _parsed(schema.text, schema.imported).root
        reader = parse_avro(options.schema).root if options.schema is not None and options.registry else None
        return [SchemaSource(AvroEncoder(), schema, lambda path: is_only_text(path, writer, reader, where))]


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


class RegistryReader(ByDocument):
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


class GivenReader(ByDocument):
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


class AvroEncoder:
    """A `SchemaEncoder`."""

    before_results = b""

    def key(self, document_schema: RegisteredSchema) -> Hashable:
        return (document_schema.schema_id,)

    def widened(self, document_schema: RegisteredSchema, field: str) -> WrittenSchema:
        written: AvroSchema = _parsed(document_schema.text, document_schema.imported)
        text = widened(written.json, field)
        return WrittenSchema(full_name(written.json), RegisteredSchema("AVRO", text, document_schema.references))

    def results(self, topic: str, carried: Sequence[str]) -> WrittenSchema:
        text, name = result_schema(topic, carried)
        return WrittenSchema(name, RegisteredSchema("AVRO", text))

    def result(self, fields: dict[str, Any]) -> bytes:
        return encode_result(fields)

    def template(self, model_id: str, version: int, only: Output) -> Callable[[Any], bytes]:
        head, tail = result_template({"model_id": model_id, "version": version}, only)
        return lambda value: head + encode_output(value) + tail

    def added(self, widened: WrittenSchema, result: bytes) -> bytes:
        return PRESENT + result

    def with_carried(self, carried: Sequence[Value], result: bytes) -> bytes:
        return encode_carried(carried) + result


AVRO_FORMAT = AvroFormat()

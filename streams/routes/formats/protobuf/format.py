"""The format `protobuf`: with a schema registry, or with a schema that the route gives."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from inferd.schemas.errors import InferenceError, InvalidValueError, MalformedError, SchemaMismatchError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests import Output
from inferd.schemas.routes import Format, Path, Route, Sink
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
from inferd.streams.routes.formats.protobuf.encoder import (
    delimited,
    encode_carried,
    encode_output,
    encode_result,
)
from inferd.streams.routes.formats.protobuf.schema import (
    RESULT_NUMBERS,
    ProtobufSchema,
    parse_schema,
    result_schema,
    widened,
)
from inferd.streams.routes.formats.protobuf.values import getter, is_only_text
from inferd.streams.routes.formats.registered_schema import RegisteredSchema, SchemaKind
from inferd.streams.routes.formats.registry_header import HEADER_BYTES, registry_of, schema_id_of
from inferd.streams.routes.formats.schema_writers import SchemaSource, WrittenSchema, schema_writer

INDEXES_MAX = 32
FIRST = b"\0"
"""The indexes of the first message."""
_parsed = lru_cache(maxsize=1_024)(parse_schema)


class ProtobufFormat:
    """Records that are messages of a Protobuf schema."""

    name = "protobuf"
    kind: SchemaKind = "PROTOBUF"

    def check(self, route: Route) -> None:
        check_options(route, ("schema", "registry", "message"))
        check_field_names(route.sink)
        options = route.source.format
        if options.schema is not None:
            _ = _given(options)
        elif options.registry:
            raise InvalidValueError("format protobuf: 'registry' goes with a schema; the registry has the others")
        elif options.message is not None:
            raise InvalidValueError("format protobuf: 'message' names one of the given schema; a registry needs none")

    def reader(
        self,
        options: Format,
        paths: Sequence[Path],
        new_field: str | None,
        schemas: Schemas | None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Reader:
        if options.schema is None or options.registry:
            given = None if options.schema is None else _given(options)[1]
            return RegistryReader(registry_of(schemas, options), paths, given, new_field)
        schema, message = _given(options)
        try:
            writers = _Writers(schema, schema.indexes_of(options.message))
            return GivenReader(_Plan.make(writers, message, paths, new_field, "the route's schema"))
        except SchemaMismatchError as error:
            raise InvalidValueError(error.message) from None

    def writer(self, options: Format, sink: Sink, schemas: Schemas | None) -> Writer:
        return schema_writer(ProtobufEncoder(), options, sink, schemas)

    def sources(self, schema: RegisteredSchema, options: Format, where: str) -> Sequence[SchemaSource]:
        """See `SchemaFormat`."""
        parsed = _parsed(replace(schema, schema_id=None))
        if options.schema is not None and not options.registry:
            return [_source(_Writers(parsed, parsed.indexes_of(options.message)), None, where)]
        expected = _given(options)[1] if options.schema is not None and options.registry else None
        messages = parsed.file.descriptor.message_type
        if len(messages) == 1:
            return [_source(_Writers(parsed, (0,), schema), expected, where)]
        return [
            _source(_Writers(parsed, (index,), schema), expected, f"message {message.name} of {where}")
            for index, message in enumerate(messages)
        ]


def _given(options: Format) -> tuple[ProtobufSchema, Descriptor]:
    schema = _parsed(RegisteredSchema("PROTOBUF", options.schema or ""))
    return schema, schema.message(schema.indexes_of(options.message))


@dataclass(frozen=True, slots=True)
class _Writers:
    """The schema of a record's writer, and the indexes of its message."""

    schema: ProtobufSchema
    indexes: tuple[int, ...]
    registered: RegisteredSchema | None = None

    @property
    def key(self) -> tuple[int | None, tuple[int, ...]]:
        return (None if self.registered is None else self.registered.schema_id), self.indexes


def _source(writers: _Writers, expected: Descriptor | None, where: str) -> SchemaSource:
    message = expected or writers.schema.message(writers.indexes)
    return SchemaSource(ProtobufEncoder(), writers, lambda path: is_only_text(path, message, where))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the records of one writer's message are read."""

    writers: _Writers
    parse: Callable[[bytes], Any]
    getters: Sequence[Callable[[Any], Value]]

    @classmethod
    def make(
        cls, writers: _Writers, message: Descriptor, paths: Sequence[Path], new_field: str | None, where: str
    ) -> _Plan:
        """`message`: in whose terms paths are. Raises `SchemaMismatchError`."""
        if new_field is not None:
            widened(writers.schema, writers.indexes, new_field)
        getters = [getter(path, message, where) for path in paths]
        return cls(writers, GetMessageClass(message).FromString, getters)

    def read(self, value: bytes) -> Document | InferenceError:
        """The values of a record without its header."""
        try:
            message = self.parse(value)
        except DecodeError:
            return MalformedError("record: the value is not a message of its schema")
        return Document([get(message) for get in self.getters], self.writers)


class GivenReader(ByDocument):
    """Reads records of one schema, without a header."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan

    def read(self, records: Sequence[SourceRecord]) -> Sequence[Document | InferenceError | Pending]:
        return [self._plan.read(record.value or b"") for record in records]


class RegistryReader(ByDocument):
    """Reads records with the header of a schema registry and the indexes of their message."""

    def __init__(
        self, schemas: Schemas, paths: Sequence[Path], expected: Descriptor | None, new_field: str | None
    ) -> None:
        self._schemas, self._paths, self._expected, self._new_field = schemas, paths, expected, new_field
        self._plans: dict[tuple[int, tuple[int, ...]], _Plan | InferenceError] = {}

    def read(self, records: Sequence[SourceRecord]) -> Sequence[Document | InferenceError | Pending]:
        return [self._read(record.value) for record in records]

    def _read(self, value: bytes | None) -> Document | InferenceError | Pending:
        schema_id = schema_id_of(value)
        if isinstance(schema_id, MalformedError):
            return schema_id
        assert value is not None
        try:
            indexes, start = indexes_at(value, HEADER_BYTES)
        except (IndexError, ValueError):
            return MalformedError("record: the indexes of its message are broken")
        plan = self._plans.get((schema_id, indexes))
        if plan is None:
            schema = self._schemas.get(schema_id)
            if not isinstance(schema, RegisteredSchema):
                return schema
            plan = self._plans[schema_id, indexes] = self._plan(schema, indexes)
        return plan if isinstance(plan, InferenceError) else plan.read(value[start:])

    def _plan(self, schema: RegisteredSchema, indexes: tuple[int, ...]) -> _Plan | InferenceError:
        where = f"schema {schema.schema_id}"
        if schema.kind != "PROTOBUF":
            return SchemaMismatchError(f"record: {where} is of the kind {schema.kind}, expected PROTOBUF")
        try:
            parsed = _parsed(replace(schema, schema_id=None))
            message = parsed.message(indexes)
            writers = _Writers(parsed, indexes, schema)
            return _Plan.make(writers, self._expected or message, self._paths, self._new_field, where)
        except InvalidValueError as error:
            return SchemaMismatchError(f"record: {where}: {error.message}")
        except InferenceError as error:
            return error


def indexes_at(value: bytes, at: int) -> tuple[tuple[int, ...], int]:
    """The indexes of a record's message, and the position after them. `ValueError` or `IndexError` if broken."""
    count, at = _zigzag(value, at)
    if count == 0:
        return (0,), at
    if not 0 < count <= INDEXES_MAX:
        raise ValueError(count)
    indexes = []
    for _ in range(count):
        index, at = _zigzag(value, at)
        indexes.append(index)
    return tuple(indexes), at


def _zigzag(value: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = value[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        if shift >= 35:
            raise ValueError(number)


class ProtobufEncoder:
    """A `SchemaEncoder`. The detail of a widened schema is the number of the added field."""

    before_results = FIRST

    def key(self, document_schema: _Writers) -> Hashable:
        return document_schema.key

    def widened(self, document_schema: _Writers, field: str) -> WrittenSchema:
        schema, indexes, registered = document_schema.schema, document_schema.indexes, document_schema.registered
        text, number = widened(schema, indexes, field)
        references = () if registered is None else registered.references
        wider = RegisteredSchema("PROTOBUF", text, references)
        return WrittenSchema(schema.message(indexes).full_name, wider, number)

    def results(self, topic: str, carried: Sequence[str]) -> WrittenSchema:
        text, name = result_schema(topic, carried)
        return WrittenSchema(name, RegisteredSchema("PROTOBUF", text))

    def result(self, fields: dict[str, Any]) -> bytes:
        return encode_result(fields)

    def template(self, model_id: str, version: int, only: Output) -> Callable[[Any], bytes]:
        number, tail = RESULT_NUMBERS[only], encode_result({"model_id": model_id, "version": version})
        return lambda value: delimited(number, encode_output(value)) + tail

    def added(self, widened: WrittenSchema, result: bytes) -> bytes:
        return delimited(widened.detail, result)

    def with_carried(self, carried: Sequence[Value], result: bytes) -> bytes:
        return result + encode_carried(carried)


PROTOBUF_FORMAT = ProtobufFormat()

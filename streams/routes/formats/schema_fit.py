"""Whether a route fits the schema of its source, before there is a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from inferd.schemas.errors import InferenceError, InvalidValueError, SchemaMismatchError
from inferd.schemas.routes import Format, Path, Route, parse_path
from inferd.streams.routes.formats.registered_schema import RegisteredSchema
from inferd.streams.routes.formats.registry import format_named
from inferd.streams.routes.formats.schema_writers import SchemaFormat, SchemaSource
from inferd.streams.routes.formats.subjects import subject_of


@dataclass(frozen=True, slots=True)
class SinkSchema:
    """The schema of what a route would write, and its subject."""

    subject: str
    schema: RegisteredSchema


def needed_paths(route: Route, features: Sequence[str]) -> Mapping[str, Path]:
    """What a route reads of a record's value, by how messages name it. `features`: those of its model."""
    needed = {
        f"feature {name!r}": parse_path(route.features[name]) if name in route.features else Path(name, (name,))
        for name in features
        if name not in route.constants
    }
    needed |= {f"carried field {name!r}": parse_path(text) for name, text in route.sink.carry.items()}
    return {what: path for what, path in needed.items() if path.special is None}


def has_schema(route: Route) -> bool:
    """Whether the records of a route have a schema."""
    return isinstance(format_named(data_format(route).name), SchemaFormat)


def is_from_registry(route: Route) -> bool:
    """Whether the schemas of a route's records are in a registry."""
    options = data_format(route)
    return has_schema(route) and (options.schema is None or options.registry)


def data_format(route: Route) -> Format:
    """The format of the values that paths lead into."""
    options = route.source.format
    return options if options.data is None else msgspec.structs.replace(options, name=options.data, data=None)


def check_given_schema(route: Route, features: Sequence[str]) -> None:
    """`SchemaMismatchError`, naming field and path, if a route does not fit the schema that it gives itself."""
    options = data_format(route)
    record_format = format_named(options.name)
    if options.schema is None or options.registry or not isinstance(record_format, SchemaFormat):
        return
    for what, path in needed_paths(route, features).items():
        try:
            record_format.reader(options, [path], _new_field(route), None)
        except InvalidValueError as error:
            raise SchemaMismatchError(_message(what, error)) from None


def sink_schema(schema: RegisteredSchema, subject: str, route: Route, features: Sequence[str]) -> SinkSchema:
    """What the sink of a route gets for records of `schema`, the latest of `subject`.

    `SchemaMismatchError`, naming field, schema and subject, if the records do not have what the route reads.
    """
    options = data_format(route)
    record_format = format_named(options.name)
    where = f"schema {schema.schema_id}, the latest of subject {subject},"
    assert isinstance(record_format, SchemaFormat)
    if schema.kind != record_format.kind:
        raise SchemaMismatchError(f"{where} is of the kind {schema.kind}, expected {record_format.kind}")
    try:
        sources = record_format.sources(schema, options, where)
    except InvalidValueError as error:
        raise SchemaMismatchError(f"{where} cannot be used: {error.message}") from None
    if not sources:
        raise SchemaMismatchError(f"{where} has no message")
    needed = needed_paths(route, features)
    misfits = [_misfits(source, needed) for source in sources]
    # The message that has most of the paths is the one that is meant.
    least = min(range(len(sources)), key=lambda place: len(misfits[place]))
    if misfits[least]:
        raise SchemaMismatchError(misfits[least][0])
    try:
        return _sink_schema(sources[least], route)
    except InferenceError as error:
        raise SchemaMismatchError(_message(where.removesuffix(","), error)) from None


def _misfits(source: SchemaSource, needed: Mapping[str, Path]) -> list[str]:
    misfits = []
    for what, path in needed.items():
        try:
            source.locate(path)
        except InferenceError as error:
            misfits.append(_message(what, error))
    return misfits


def _sink_schema(source: SchemaSource, route: Route) -> SinkSchema:
    sink, encoder = route.sink, source.encoder
    if sink.mode == "enrich":
        written = encoder.widened(source.document_schema, sink.field)
    else:
        written = encoder.results(sink.topic, tuple(sink.carry))
    return SinkSchema(subject_of(sink.subjects, sink.topic, written.name), written.schema)


def _new_field(route: Route) -> str | None:
    return route.sink.field if route.sink.mode == "enrich" else None


def _message(what: str, error: InferenceError) -> str:
    return f"{what}: {error.message.removeprefix('record: ')}"

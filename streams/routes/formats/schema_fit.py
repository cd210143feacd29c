"""Whether a route fits the schema of its source, before there is a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from inferd.schemas.errors import InferenceError, InvalidValueError, SchemaMismatchError
from inferd.schemas.models import Feature
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


@dataclass(frozen=True, slots=True)
class _Needed:
    """A value that a route reads of a record."""

    what: str
    """By this messages name it."""
    path: Path
    is_number: bool = False


def _needed(route: Route, features: Sequence[Feature]) -> list[_Needed]:
    needed = [
        _Needed(f"feature {each.name!r}", _path_of(route, each.name), _is_number(each))
        for each in features
        if each.name not in route.constants
    ]
    needed += [_Needed(f"carried field {name!r}", parse_path(text)) for name, text in route.sink.carry.items()]
    return [each for each in needed if each.path.special is None]


def _is_number(feature: Feature) -> bool:
    return feature.dtype not in ("text", "category") and feature.described_categories is None


def _path_of(route: Route, feature: str) -> Path:
    return parse_path(route.features[feature]) if feature in route.features else Path(feature, (feature,))


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


def check_given_schema(route: Route, features: Sequence[Feature]) -> None:
    """`SchemaMismatchError`, naming field and path, if a route does not fit the schema that it gives itself."""
    options = data_format(route)
    record_format = format_named(options.name)
    if options.schema is None or options.registry or not isinstance(record_format, SchemaFormat):
        return
    _ = _fitted(RegisteredSchema(record_format.kind, options.schema), "the route's schema", route, features)


def sink_schema(schema: RegisteredSchema, subject: str, route: Route, features: Sequence[Feature]) -> SinkSchema:
    """What the sink of a route gets for records of `schema`, the latest of `subject`.

    `SchemaMismatchError`, naming field, schema and subject, if the records do not have what the route reads.
    """
    return _fitted(schema, f"schema {schema.schema_id}, the latest of subject {subject},", route, features)


def _fitted(schema: RegisteredSchema, where: str, route: Route, features: Sequence[Feature]) -> SinkSchema:
    options = data_format(route)
    record_format = format_named(options.name)
    assert isinstance(record_format, SchemaFormat)
    if schema.kind != record_format.kind:
        raise SchemaMismatchError(f"{where} is of the kind {schema.kind}, expected {record_format.kind}")
    try:
        sources = record_format.sources(schema, options, where)
    except InvalidValueError as error:
        raise SchemaMismatchError(f"{where} cannot be used: {error.message}") from None
    if not sources:
        raise SchemaMismatchError(f"{where} has no message")
    needed = _needed(route, features)
    misfits = [_misfits(source, needed, where) for source in sources]
    # The message that has most of the paths is the one that is meant.
    least = min(range(len(sources)), key=lambda place: len(misfits[place]))
    if misfits[least]:
        raise SchemaMismatchError(misfits[least][0])
    try:
        return _sink_schema(sources[least], route)
    except InferenceError as error:
        raise SchemaMismatchError(_message(where.removesuffix(","), error)) from None


def _misfits(source: SchemaSource, needed: Sequence[_Needed], where: str) -> list[str]:
    misfits = []
    for each in needed:
        try:
            only_text = source.is_only_text(each.path)
        except InferenceError as error:
            misfits.append(_message(each.what, error))
            continue
        if only_text and each.is_number:
            misfits.append(f"{each.what}: path {each.path}: {where} has text there, the model expects a number")
    return misfits


def _sink_schema(source: SchemaSource, route: Route) -> SinkSchema:
    sink, encoder = route.sink, source.encoder
    if sink.mode == "enrich":
        written = encoder.widened(source.document_schema, sink.field)
    else:
        written = encoder.results(sink.topic, tuple(sink.carry))
    return SinkSchema(subject_of(sink.subjects, sink.topic, written.name), written.schema)


def _message(what: str, error: InferenceError) -> str:
    return f"{what}: {error.message.removeprefix('record: ')}"

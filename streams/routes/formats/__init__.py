"""Formats of the records of routes. Pure and synchronous; schemas come from a `Schemas`, which does the I/O."""

from inferd.streams.routes.formats.format import (
    Described,
    Document,
    FailedRecord,
    Headers,
    Pending,
    Reader,
    RecordFormat,
    RowReader,
    Schemas,
    Scored,
    SourceRecord,
    Sources,
    Value,
    Writer,
    Written,
)
from inferd.streams.routes.formats.registered_schema import Reference, RegisteredSchema, SchemaKind
from inferd.streams.routes.formats.registry import all_formats, format_named, register, unregister
from inferd.streams.routes.formats.schema_fit import (
    SinkSchema,
    check_given_schema,
    has_schema,
    is_from_registry,
    sink_schema,
)
from inferd.streams.routes.formats.subjects import subject_of

__all__ = [
    "Described",
    "Document",
    "FailedRecord",
    "Headers",
    "Pending",
    "Reader",
    "RecordFormat",
    "Reference",
    "RegisteredSchema",
    "RowReader",
    "SchemaKind",
    "Schemas",
    "Scored",
    "SinkSchema",
    "SourceRecord",
    "Sources",
    "Value",
    "Writer",
    "Written",
    "all_formats",
    "check_given_schema",
    "format_named",
    "has_schema",
    "is_from_registry",
    "register",
    "sink_schema",
    "subject_of",
    "unregister",
]

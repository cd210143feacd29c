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
    "SourceRecord",
    "Sources",
    "Value",
    "Writer",
    "Written",
    "all_formats",
    "format_named",
    "register",
    "subject_of",
    "unregister",
]

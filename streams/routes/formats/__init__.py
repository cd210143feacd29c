"""Formats of the records of routes. Pure and synchronous; schemas come from a `Schemas`, which does the I/O."""

from inferd.streams.routes.formats.format import (
    Document,
    FailedRecord,
    Pending,
    Reader,
    RecordFormat,
    Schemas,
    Scored,
    SourceRecord,
    Value,
    Writer,
    Written,
)
from inferd.streams.routes.formats.registry import all_formats, format_named, register, unregister

__all__ = [
    "Document",
    "FailedRecord",
    "Pending",
    "Reader",
    "RecordFormat",
    "Schemas",
    "Scored",
    "SourceRecord",
    "Value",
    "Writer",
    "Written",
    "all_formats",
    "format_named",
    "register",
    "unregister",
]

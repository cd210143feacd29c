"""The interface of a format: reads the needed values of records, and writes records of the sink."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.cloud_events import Place
from inferd.schemas.errors import InferenceError, ModelServingError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests import Output
from inferd.schemas.routes import Format, Path, Route, Sink
from inferd.streams.inference import FeatureSchema, Matrix
from inferd.streams.routes.formats.registered_schema import RegisteredSchema

Headers = Sequence[tuple[str, bytes | None]]
Value = float | int | bool | str | None
"""A value of a record. None: it is null or missing."""


class SourceRecord(Protocol):
    """What formats use of a fetched record."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Document(msgspec.Struct, gc=False):
    """What was read of one record."""

    values: Sequence[Value]
    """The values at the paths of the reader, in their order."""
    schema: Any = None
    """What the writer needs of the record's schema; None for formats without one."""
    headers: Callable[[], Headers] | None = None
    """The headers that paths lead to; None: those of the record."""
    rows: Sequence[Sequence[Value]] | None = None
    """For formats whose records have several rows: the values of each, instead of `values`."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A record cannot be read or written yet: a schema is being asked for. It is tried again later."""

    reason: str
    """What is awaited, and from whom: shown in the status."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Predictions of one model version for some records."""

    model_id: str
    version: int
    outputs: tuple[Output, ...]
    """The requested outputs, in the order of a result."""
    columns: Sequence[Sequence[Any]]
    """For each output, its value for each record: a number, text, boolean, or lists and maps of these. For records of
    several rows a list of them."""
    digest: str = ""
    """SHA-256 of the model file."""


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """Why a record has no prediction."""

    error: ModelServingError
    model_id: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Records that were read, for a writer. The sequences are parallel."""

    records: Sequence[SourceRecord]
    documents: Sequence[Document]
    carried: Sequence[Sequence[Value]]
    """The values of the carried fields of each record; empty unless the sink carries fields."""
    place_of: Callable[[int], Place]
    """Where a record is, by its index."""

    def values(self) -> list[bytes]:
        """The values of the records."""
        return [record.value or b"" for record in self.records]


@dataclass(frozen=True, slots=True)
class Described:
    """The value of a record of the sink, with headers of its own."""

    value: bytes
    headers: Headers
    """All of them: none of the source's record is added."""


Written = bytes | Described | InferenceError | Pending
"""The value of a record of the sink, or why there is none (yet). Bytes: with the headers of the source's record."""


class Schemas(Protocol):
    """The schemas of a registry. Every call returns at once; what is not known is asked for in the background."""

    def get(self, schema_id: int) -> RegisteredSchema | InferenceError | Pending:
        """The schema with this id; an error if the registry does not have it."""

    def register(self, subject: str, schema: RegisteredSchema) -> int | InferenceError | Pending:
        """The id of a schema under a subject, which is registered if it is not there."""


class RowReader(Protocol):
    """Reads rows of a model directly, without a document for each record."""

    def rows(self, values: Sequence[bytes]) -> tuple[Matrix, NDArray[np.bool_]]:
        """The rows of the records with these values that can be read so, float64 (readable records, features); and
        bool (records,), which these are. The others, and all errors, are left to the `Reader`."""


class Reader(Protocol):
    """Reads the values at some paths. It never raises because of a record."""

    def row_reader(self, features: FeatureSchema) -> RowReader | None:
        """A reader of rows, if the paths are those of the features in their order; None if there is none for them."""

    def read(self, records: Sequence[SourceRecord]) -> Sequence[Document | InferenceError | Pending]:
        """One result for each record. No record is a tombstone."""


class ByDocument:
    """The base of readers without a `RowReader`."""

    def row_reader(self, _features: FeatureSchema) -> RowReader | None:
        return None


class Writer(Protocol):
    """Writes the values of the sink's records. It never raises because of a record.

    In the mode `enrich` a value is the original one, byte for byte, plus one field at its end. In the mode `result` it
    is the carried fields and the fields of the result.
    """

    def predictions(self, sources: Sources, scored: Scored) -> Sequence[Written]:
        """One value for each record."""

    def failure(self, source: Sources, failed: FailedRecord) -> Written:
        """The value for the only record of `source`, which was read, but not scored."""


class RecordFormat(Protocol):
    """A format of records, by its name in routes."""

    @property
    def name(self) -> str: ...

    def check(self, route: Route) -> None:
        """`InvalidValueError` for options that the format does not have, or a schema that it cannot read."""

    def reader(
        self,
        options: Format,
        paths: Sequence[Path],
        new_field: str | None,
        schemas: Schemas | None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Reader:
        """A reader of the values at `paths`, which all are in the record's value.

        `new_field`: the name of the field that will be added. A record that has it already is a `SchemaMismatchError`.
        `limits`: of the rows and values of one record, in formats whose records have several rows. `InvalidValueError`
        for a path that no record of the given schema has.
        """

    def writer(self, options: Format, sink: Sink, schemas: Schemas | None) -> Writer:
        """A writer for the sink."""

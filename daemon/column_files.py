"""Writes columns to files: NDJSON, CSV and Parquet. A file gets its final name once it is complete."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from inferd.daemon.row_files import Format
from inferd.schemas.errors import ServerError

if TYPE_CHECKING:
    from pyarrow import DataType, Table

GROUP_ROWS = 65_536
"""Rows of a row group of a Parquet file."""
UNTYPED_BLOCKS_MAX = 256
"""After so many blocks without a value in a column, it becomes float64."""

Columns = Mapping[str, Sequence[Any]]
"""Columns of the same length, by name; None is a missing value."""


class ColumnWriter(Protocol):
    """Writes blocks of rows; all blocks have the columns of the first one."""

    def write(self, columns: Columns) -> None:
        """Writes a block of rows."""

    def close(self) -> None:
        """Completes the file."""

    def discard(self) -> None:
        """Removes the incomplete file."""


class ParquetColumns:
    """A Parquet file. The types of its columns are those of the first rows."""

    def __init__(self, path: Path, texts: Collection[str] = ()) -> None:
        """`texts`: columns of text, which may have no value for long."""
        self._path, self._part = path, _part_of(path)
        self._texts = texts
        self._types: dict[str, DataType] | None = None
        self._waiting: list[Columns] = []
        self._rows = 0
        self._writer: Any = None

    def write(self, columns: Columns) -> None:
        self._waiting.append(columns)
        self._rows += len(next(iter(columns.values())))
        if self._rows >= GROUP_ROWS and (self._types_known() or len(self._waiting) > UNTYPED_BLOCKS_MAX):
            self._flush()

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._part.replace(self._path)

    def discard(self) -> None:
        self._part.unlink(missing_ok=True)

    def _types_known(self) -> bool:
        return self._types is not None or all(
            any(any(value is not None for value in block[name]) for block in self._waiting)
            for name in self._waiting[0]
            if name not in self._texts
        )

    def _flush(self) -> None:
        import pyarrow
        from pyarrow import parquet

        waiting, self._waiting, self._rows = self._waiting, [], 0
        if not waiting:
            return
        columns = {name: [value for block in waiting for value in block[name]] for name in waiting[0]}
        try:
            table = self._table(columns)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            raise ServerError(
                f"the values do not fit the columns of a Parquet file ({error}): use .ndjson instead"
            ) from None
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._part, table.schema)
        self._writer.write_table(table)

    def _table(self, columns: dict[str, list[Any]]) -> Table:
        import pyarrow

        if self._types is None:
            found = {name: pyarrow.infer_type(values) for name, values in columns.items()}
            unknown = {name: pyarrow.float64() for name, type_ in found.items() if type_ == pyarrow.null()}
            self._types = found | unknown | dict.fromkeys(self._texts, pyarrow.string())
        return pyarrow.table({name: pyarrow.array(values, self._types[name]) for name, values in columns.items()})


class TextColumns:
    """A CSV file with a header, or one JSON object a line. In CSV, lists and booleans are JSON."""

    def __init__(self, path: Path, format_: Format) -> None:
        self._path, self._part = path, _part_of(path)
        self._file = self._part.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file, lineterminator="\n") if format_ == "csv" else None
        self._header = True

    def write(self, columns: Columns) -> None:
        rows = zip(*columns.values(), strict=True)
        if self._csv is None:
            self._file.writelines(
                msgspec.json.encode(dict(zip(columns, row, strict=True))).decode() + "\n" for row in rows
            )
            return
        if self._header:
            self._csv.writerow(columns)
            self._header = False
        self._csv.writerows([csv_cell(value) for value in row] for row in rows)

    def close(self) -> None:
        self._file.close()
        self._part.replace(self._path)

    def discard(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


def open_columns(path: Path, format_: Format, texts: Collection[str] = ()) -> ColumnWriter:
    """The writer of a new file. `texts`: see `ParquetColumns`."""
    return ParquetColumns(path, texts) if format_ == "parquet" else TextColumns(path, format_)


def csv_cell(value: Any) -> Any:
    """What a cell of a CSV file has for a value."""
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict | bool) else value


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")

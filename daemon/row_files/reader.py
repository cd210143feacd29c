"""A file of rows in any format, as blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from inferd.daemon.row_files.csv_rows import CsvRows
from inferd.daemon.row_files.foreign import START_BYTES, describe_foreign
from inferd.daemon.row_files.layout import Layout
from inferd.daemon.row_files.ndjson_rows import ndjson_blocks
from inferd.daemon.row_files.options import (
    FORMATS,
    FileOptions,
    Format,
    format_of,
)
from inferd.daemon.row_files.parquet_rows import ParquetRows
from inferd.daemon.row_files.source import (
    each_named,
    named,
    open_source,
    text_lines,
    utf8_lines,
)

CSV_BLOCK_ROWS = 1_024
PARQUET_BLOCK_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class RowFile:
    """Rows, and their number if it is known."""

    blocks: Iterator[Any]
    """Each block is a list of rows (list, dict, or bytes of JSON), with an `InferenceError` for each invalid row, or an
    array (rows, features)."""
    count: int | None = None
    is_json: bool = False
    """Whether rows are bytes of JSON."""


@contextmanager
def open_row_file(
    given: str, options: FileOptions, layout: Layout, stdin: BinaryIO, *, raw_json: bool = False, live: bool = False
) -> Iterator[RowFile]:
    """Opens a file, or standard input (`-`); with `live`, each row of standard input is available at once.

    Raises `click.UsageError` if there is no such file. An error of the file as a whole is raised as an
    `InferenceError`, here or while reading the blocks.
    """
    format_ = _format(given, options.format)
    if format_ == "parquet":
        with closing(ParquetRows(Path(given), layout, options)) as table:
            yield RowFile(table.blocks(PARQUET_BLOCK_ROWS), table.count)
        return
    block_rows = 1 if live and given == "-" else CSV_BLOCK_ROWS
    with open_source(given, stdin) as source:
        where = "standard input" if given == "-" else given
        if format_ == "csv":
            with named(where):
                rows = CsvRows(text_lines(source, options.encoding, where), where, layout, options)
            yield RowFile(each_named(where, rows.blocks(block_rows)))
        else:
            lines = utf8_lines(source, options.encoding, where)
            is_json = raw_json and not options.skip_columns
            blocks = ndjson_blocks(lines, where, options.skip_columns, block_rows, raw=is_json)
            yield RowFile(each_named(where, blocks), is_json=is_json)


def _format(given: str, chosen: Format | None) -> Format:
    if given != "-" and not Path(given).is_file():
        raise click.UsageError(f"{given!r} is not a file")
    format_ = chosen or ("ndjson" if given == "-" else format_of(Path(given)))
    if format_ is None:
        raise click.UsageError(_unknown(given))
    if format_ == "parquet" and given == "-":
        raise click.UsageError("Parquet cannot be read from standard input: name the file")
    return format_


def _unknown(given: str) -> str:
    with named(given), Path(given).open("rb") as file:
        foreign = describe_foreign(file.read(START_BYTES))
    if foreign is not None:
        return f"{given} is {foreign}"
    return f"{given}: its suffix names no format; give --format {'|'.join(FORMATS)}, or convert the file"

"""Rows to predict, from where the command line names them: an argument, a CSV, NDJSON or Parquet file, or stdin."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, get_args

import click
import msgspec

from schemas.errors import InferenceError, MalformedError, SchemaMismatchError
from schemas.limits import DEFAULT_LIMITS
from schemas.strict import DECODE_ERRORS, printable, structural_fault

Format = Literal["csv", "ndjson", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
Row = list[Any] | dict[str, Any]
"""Values in feature order, or by feature name."""
Rows = Iterator[Row | InferenceError]
"""What cannot be read as a row is its error."""
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".json": "ndjson",
    ".jsonl": "ndjson",
    ".ndjson": "ndjson",
    ".parquet": "parquet",
}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan", re.ASCII | re.IGNORECASE)
_BOOLEANS = {"true": True, "false": False}
_PARQUET_ROWS = 1_024


@dataclass(frozen=True, slots=True)
class RowSource:
    """Rows, how many there are where that is known, and whether reading them may have to wait for somebody."""

    rows: Rows
    count: int | None
    waits: bool = False


def open_rows(
    given: str, format_: Format | None, text_columns: frozenset[str], skip_columns: Sequence[str], stdin: BinaryIO
) -> RowSource:
    """The rows that `given` names: JSON, a file, or `-` for standard input.

    `text_columns` keep their values as text, even where these look like numbers. `click.UsageError` where there is
    nothing to read.
    """
    if given.lstrip()[:1] in ("[", "{"):
        rows = _rows_of_argument(given)
        return RowSource(iter(rows), len(rows))
    if given == "-":
        return _from_stdin(stdin, format_ or "ndjson", text_columns, skip_columns)
    path = Path(given)
    if not path.is_file():
        raise click.UsageError(f"{given!r} is no file, and no JSON row such as '[1, 2.5]' or '{{\"age\": 41}}'")
    chosen = format_ or format_of(path)
    if chosen is None:
        raise click.UsageError(f"{given}: say its format with --format {'|'.join(FORMATS)}")
    if chosen == "parquet":
        return _from_parquet(path, skip_columns)
    return _from_text_file(path, chosen, text_columns, skip_columns)


def format_of(path: Path) -> Format | None:
    """The format that the suffix of a file names; None where it names none."""
    return _SUFFIXES.get(path.suffix.lower())


def _rows_of_argument(given: str) -> list[Row | InferenceError]:
    try:
        data = _strict_json(given.encode())
    except InferenceError as error:
        raise click.UsageError(f"the row is no JSON as it should be: {error.message}") from error
    if isinstance(data, list) and data and isinstance(data[0], list | dict):
        return data
    return [data]


def _from_stdin(
    stdin: BinaryIO, format_: Format, text_columns: frozenset[str], skip_columns: Sequence[str]
) -> RowSource:
    if format_ == "parquet":
        raise click.UsageError("Parquet cannot be read from standard input: name the file")
    if format_ == "ndjson":
        return RowSource(ndjson_rows(stdin, skip_columns), None, waits=True)
    text = (line.decode("utf-8-sig" if number == 0 else "utf-8", "replace") for number, line in enumerate(stdin))
    return RowSource(csv_rows(text, text_columns, skip_columns), None, waits=True)


def _from_text_file(
    path: Path, format_: Format, text_columns: frozenset[str], skip_columns: Sequence[str]
) -> RowSource:
    lines = _count_lines(path)
    if format_ == "ndjson":
        return RowSource(ndjson_rows(_lines(path), skip_columns), lines)
    return RowSource(csv_rows(text_lines(path), text_columns, skip_columns), max(lines - 1, 0))


def ndjson_rows(lines: Iterable[bytes], skip_columns: Sequence[str] = ()) -> Rows:
    """One row a line; empty lines are passed over."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _ndjson_row(line, number, skip_columns)


def _ndjson_row(line: bytes, number: int, skip_columns: Sequence[str]) -> Row | InferenceError:
    try:
        row = _strict_json(line)
    except InferenceError as error:
        return type(error)(f"line {number}: {error.message}")
    if not isinstance(row, list | dict):
        return MalformedError(f"line {number}: expected a row: a JSON array or object")
    return _without(row, skip_columns) if isinstance(row, dict) else row


def _strict_json(data: bytes) -> Any:
    """The value; an `InferenceError` for what is no JSON, repeats a key, or is nested too deep."""
    try:
        value = msgspec.json.decode(data)
    except DECODE_ERRORS as error:
        raise MalformedError(printable(str(error))) from None
    if fault := structural_fault(data.strip(), "json", DEFAULT_LIMITS.depth_max):
        raise fault
    return value


def csv_rows(
    lines: Iterable[str], text_columns: frozenset[str] = frozenset(), skip_columns: Sequence[str] = ()
) -> Rows:
    """Rows by the names in the header: numbers, `true` and `false`, other text; an empty field is a missing value."""
    table = csv.reader(lines)
    header = next(table, [])
    if repeated := {name for name in header if header.count(name) > 1}:
        raise MalformedError(f"the header names {', '.join(sorted(repeated))} more than once")
    texts = [name in text_columns for name in header]
    skipped = [name in skip_columns for name in header]
    for fields in table:
        if not fields:
            continue
        if len(fields) != len(header):
            yield SchemaMismatchError(
                f"line {table.line_num}: {len(fields)} fields, and the header has {len(header)} names"
            )
            continue
        yield {
            name: csv_value(field, text)
            for name, field, text, skip in zip(header, fields, texts, skipped, strict=True)
            if not skip
        }


def csv_value(field: str, is_text: bool) -> str | float | int | bool | None:
    """What a field of a CSV file says."""
    if not field:
        return None
    if is_text:
        return field
    if _NUMBER.fullmatch(field):
        return float(field)
    return _BOOLEANS.get(field.lower(), field)


def _from_parquet(path: Path, skip_columns: Sequence[str]) -> RowSource:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise click.ClickException("Parquet files need pyarrow: pip install 'inferd[files]'") from error
    try:
        table = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise MalformedError(f"{path} cannot be read as Parquet: {error}") from error
    columns = [name for name in table.schema_arrow.names if name not in skip_columns]
    batches = table.iter_batches(batch_size=_PARQUET_ROWS, columns=columns)
    rows: Rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
    return RowSource(rows, table.metadata.num_rows)


def _without(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in columns} if columns else row


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, as `csv.reader` takes them."""
    file: TextIO
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        yield from file


def _count_lines(path: Path) -> int:
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1_048_576):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")

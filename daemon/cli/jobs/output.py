"""Output of job commands: statuses as tables, and results as CSV, NDJSON or Parquet, one chunk at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

import click
import msgspec

from inferd.daemon.cli.output import OutputFormat, write_json, write_table
from inferd.daemon.column_files import ParquetColumns, csv_cell
from inferd.daemon.row_files import Format
from inferd.jobs import rows_of
from inferd.schemas.jobs import ChunkResult, JobStatus

LIST_COLUMNS = ("job", "status", "model", "rows", "done", "failed", "submitted", "took")
ERROR_COLUMNS = ("error_code", "error_message")


# -------------------------------------------------------------------------------------------------------------- status


def write_status(output: OutputFormat, status: JobStatus) -> None:
    """Writes a status as JSON or as a table."""
    if output == "json":
        write_json(status)
    else:
        write_table(("field", "value"), list(_facts(status)))


def _facts(status: JobStatus) -> Iterator[tuple[str, object]]:
    yield "job", status.job_id
    yield "status", status.status
    yield "model", _model(status)
    yield "rows", f"{status.input_count:,}"
    yield "processed", f"{status.processed:,}: {status.succeeded:,} succeeded, {status.failed:,} failed"
    yield "chunks", f"{status.chunks_done:,} of {status.chunks_total:,}"
    if status.attempt:
        yield "retries", status.attempt
    yield "submitted", _time(status.submitted_at)
    yield "started", _time(status.started_at)
    yield "finished", _time(status.finished_at)
    yield "took", took(status)
    if status.error:
        yield "error", f"{status.error.code}: {status.error.message}"
    for name in ("missing", "labels"):
        if value := getattr(status, name):
            yield name, msgspec.json.encode(value).decode()


def list_row(status: JobStatus) -> Sequence[object]:
    """The row of a job in the list of jobs."""
    return (
        status.job_id,
        status.status,
        _model(status),
        f"{status.input_count:,}",
        f"{status.processed:,}",
        f"{status.failed:,}",
        _time(status.submitted_at),
        took(status),
    )


def _model(status: JobStatus) -> str | None:
    return status.model_id if status.version is None else f"{status.model_id}:{status.version}"


def _time(unix_ms: int | None) -> str | None:
    return None if unix_ms is None else datetime.fromtimestamp(unix_ms / 1_000, UTC).isoformat(timespec="seconds")


def took(status: JobStatus) -> str | None:
    """The time from start to end; None if it has not ended."""
    if status.started_at is None or status.finished_at is None:
        return None
    return f"{(status.finished_at - status.started_at) / 1_000:.1f} s"


# ------------------------------------------------------------------------------------------------------------- results


class ResultWriter(Protocol):
    """Writes the chunks of a job, in order."""

    def write(self, chunk: ChunkResult, from_row: int) -> None:
        """Writes the rows of a chunk, starting at `from_row`."""

    def close(self) -> None:
        """Finishes the output."""


class NdjsonWriter:
    """Writes one line per row: `{"row", "prediction", …}` or `{"row", "error": {"code", "message"}}`."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, chunk: ChunkResult, from_row: int) -> None:
        lines = []
        for row in rows_of(chunk, from_row):
            line: dict[str, Any] = {"row": row.row, **row.outputs}
            if row.error is not None:
                line["error"] = row.error
            lines.append(msgspec.json.encode(line).decode())
        self._file.write("".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        self._file.flush()


class CsvWriter:
    """Writes a column per output, and two for the error; list values are JSON."""

    def __init__(self, file: TextIO, *, header: bool) -> None:
        self._file, self._header = file, header
        self._writer = csv.writer(file, lineterminator="\n")

    def write(self, chunk: ChunkResult, from_row: int) -> None:
        if self._header:
            self._writer.writerow(("row", *chunk.outputs, *ERROR_COLUMNS))
            self._header = False
        for row in rows_of(chunk, from_row):
            values = [csv_cell(row.outputs.get(output)) for output in chunk.outputs]
            error = ("", "") if row.error is None else (row.error.code, row.error.message)
            self._writer.writerow((row.row, *values, *error))

    def close(self) -> None:
        self._file.flush()


class ParquetWriter:
    """Writes a column per output, and two for the error; the file gets its final name once it is complete."""

    def __init__(self, path: Path) -> None:
        self._columns = ParquetColumns(path, texts=ERROR_COLUMNS)

    def write(self, chunk: ChunkResult, from_row: int) -> None:
        skipped = max(from_row - chunk.first_row, 0)
        columns: dict[str, Any] = {output: values[skipped:] for output, values in chunk.outputs.items()}
        count = len(columns["prediction"])
        first = chunk.first_row + skipped
        errors = {error.row - first: error for error in chunk.errors if error.row >= first}
        codes = [errors[place].code if place in errors else None for place in range(count)]
        messages = [errors[place].message if place in errors else None for place in range(count)]
        numbers = range(first, first + count)
        self._columns.write({"row": numbers, **columns, **dict(zip(ERROR_COLUMNS, (codes, messages), strict=True))})

    def close(self) -> None:
        self._columns.close()

    def discard(self) -> None:
        """Removes the incomplete file."""
        self._columns.discard()


def open_writer(path: Path, format_: Format, *, append: bool) -> tuple[ResultWriter, TextIO | None]:
    """The writer for a file, and the file to close after it; `append` keeps the content of a CSV or NDJSON file."""
    if format_ == "parquet":
        if append and path.exists():
            raise click.UsageError(f"{path}: cannot append to a Parquet file: choose another file, or omit --from-row")
        return ParquetWriter(path), None
    has_header = append and path.exists() and path.stat().st_size > 0
    file = path.open("a" if append else "w", encoding="utf-8", newline="")
    return (NdjsonWriter(file) if format_ == "ndjson" else CsvWriter(file, header=not has_header)), file

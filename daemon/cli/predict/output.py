"""Output of `inferd predict`, one row at a time: a table, or JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

import click

from inferd.daemon.cli.output import OutputFormat, write_table
from inferd.daemon.cli.predict.row_batches import Outcome
from inferd.daemon.printable import printable
from inferd.schemas.requests import Output

TABLE_ROWS_BUFFERED = 200
CELL_CHARS_MAX = 120


class RowWriter(Protocol):
    """Writes the outcomes of rows, in order."""

    def write(self, outcome: Outcome) -> None:
        """Writes one row."""

    def close(self) -> None:
        """Finishes the output."""


def row_writer(output: OutputFormat, outputs: Sequence[Output]) -> RowWriter:
    """The writer for `--output`."""
    return JsonLines() if output == "json" else StreamedTable(outputs)


class JsonLines:
    """Writes one line per row: `{"row", "prediction", …, "version"}` or `{"row", "error": {"code", "message"}}`."""

    def write(self, outcome: Outcome) -> None:
        """Writes one line."""
        import msgspec

        line: dict[str, Any] = {"row": outcome.row, **outcome.values}
        if outcome.error is not None:
            line["error"] = {"code": outcome.error.code, "message": outcome.error.message}
        else:
            line["version"] = outcome.version
        click.echo(msgspec.json.encode(line))

    def close(self) -> None:
        """Does nothing: lines are not buffered."""


class StreamedTable:
    """Lays out the first rows as a table; further rows are streamed with the same column widths."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs
        self._columns = ("row", *outputs, "error")
        self._first: list[list[str]] | None = []
        self._widths: list[int] = []

    def write(self, outcome: Outcome) -> None:
        """Writes one row, or buffers it while the table may still fit the buffer."""
        cells = self._cells(outcome)
        if self._first is None:
            self._write_line(cells)
            return
        self._first.append(cells)
        if len(self._first) == TABLE_ROWS_BUFFERED:
            self._start_streaming()

    def close(self) -> None:
        """Writes the buffered rows."""
        if not self._first:
            return
        failed = any(cells[-1] for cells in self._first)
        shown = slice(None) if failed else slice(-1)
        write_table(self._columns[shown], [cells[shown] for cells in self._first])

    def _cells(self, outcome: Outcome) -> list[str]:
        if outcome.error is not None:
            return [str(outcome.row), *["-"] * len(self._outputs), f"{outcome.error.code}: {outcome.error.message}"]
        return [str(outcome.row), *[_cell(outcome.values.get(output)) for output in self._outputs], ""]

    def _start_streaming(self) -> None:
        first, self._first = self._first or [], None
        self._widths = [max(map(len, column)) for column in zip(self._columns, *first, strict=True)]
        for cells in (list(self._columns), *first):
            self._write_line(cells)

    def _write_line(self, cells: Sequence[str]) -> None:
        line = "  ".join(printable(cell).ljust(width) for cell, width in zip(cells, self._widths, strict=True))
        click.echo(line.rstrip())


def _cell(value: Any) -> str:
    import msgspec

    if isinstance(value, str):
        return value
    text = msgspec.json.encode(value).decode()
    # Truncated on a terminal only.
    return text if len(text) <= CELL_CHARS_MAX or not sys.stdout.isatty() else f"{text[: CELL_CHARS_MAX - 1]}…"

"""What `inferd predict` writes, a row at a time: a table whose width the first rows decide, or JSON lines."""

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
    """Takes the outcomes of rows, in order."""

    def write(self, outcome: Outcome) -> None:
        """One row."""

    def close(self) -> None:
        """No more rows."""


def row_writer(output: OutputFormat, outputs: Sequence[Output]) -> RowWriter:
    """The writer that `--output` asks for."""
    return JsonLines() if output == "json" else GrowingTable(outputs)


class JsonLines:
    """`{"row", "prediction", …, "version"}` or `{"row", "error": {"code", "message"}}`, one a line."""

    def write(self, outcome: Outcome) -> None:
        """One line."""
        import msgspec

        line: dict[str, Any] = {"row": outcome.row, **outcome.values}
        if outcome.error is not None:
            line["error"] = {"code": outcome.error.code, "message": outcome.error.message}
        else:
            line["version"] = outcome.version
        click.echo(msgspec.json.encode(line))

    def close(self) -> None:
        """Nothing is held back."""


class GrowingTable:
    """A table of the first rows is laid out as a whole; longer ones go on in the widths of those."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs
        self._columns = ("row", *outputs, "error")
        self._first: list[list[str]] | None = []
        self._widths: list[int] = []

    def write(self, outcome: Outcome) -> None:
        """One row; kept while the table may still be laid out as a whole."""
        cells = self._cells(outcome)
        if self._first is None:
            self._write_line(cells)
            return
        self._first.append(cells)
        if len(self._first) == TABLE_ROWS_BUFFERED:
            self._go_on_by_line()

    def close(self) -> None:
        """Writes what is kept."""
        if not self._first:
            return
        failed = any(cells[-1] for cells in self._first)
        shown = slice(None) if failed else slice(-1)
        write_table(self._columns[shown], [cells[shown] for cells in self._first])

    def _cells(self, outcome: Outcome) -> list[str]:
        if outcome.error is not None:
            return [str(outcome.row), *["-"] * len(self._outputs), f"{outcome.error.code}: {outcome.error.message}"]
        return [str(outcome.row), *[_cell(outcome.values.get(output)) for output in self._outputs], ""]

    def _go_on_by_line(self) -> None:
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
    # Only a terminal has no room; whatever reads a pipe gets all of it.
    return text if len(text) <= CELL_CHARS_MAX or not sys.stdout.isatty() else f"{text[: CELL_CHARS_MAX - 1]}…"

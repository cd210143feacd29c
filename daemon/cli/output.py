"""Output of commands: results on standard output, everything else on standard error; and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import click

from inferd.daemon.printable import printable

OutputFormat = Literal["table", "json"]
EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE = 0, 1, 2, 3
EXIT_INTERRUPTED = 130
UNREACHABLE_NAMES = ("KafkaConnectionError", "KafkaTimeoutError", "NoBrokersAvailable", "NodeNotReadyError")


def write_json(value: Any) -> None:
    """Writes `value` (builtins, dataclasses, msgspec structs) as one JSON document to standard output."""
    import msgspec

    encoded = msgspec.json.encode(value)
    if sys.stdout.isatty():
        click.echo(msgspec.json.format(encoded, indent=2).decode())
    else:
        click.echo(encoded)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table to standard output: formatted on a terminal, else plain and never truncated. None becomes `-`."""
    cells = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _write_rich(columns, cells)
    else:
        for line in _plain_lines(columns, cells):
            click.echo(line)


def write_result(output: OutputFormat, value: Any, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes `value` as JSON, or `rows` as a table, depending on `--output`."""
    if output == "json":
        write_json(value)
    else:
        write_table(columns, rows)


def report(line: str) -> None:
    """Writes a line of progress to standard error."""
    click.echo(printable(line), err=True)


def report_error(line: str) -> None:
    """Writes one line `inferd: …` to standard error."""
    click.echo(f"inferd: {printable(' '.join(line.split()))}", err=True)


def error_lines(error: BaseException) -> tuple[str, ...]:
    """Messages for `error`, one line per problem."""
    problems = getattr(error, "problems", None)
    if isinstance(problems, tuple):
        return problems
    from inferd.daemon.errors import error_text

    return (error_text(error),)


def exit_code_of(error: BaseException) -> int | None:
    """Exit code of a command that failed with `error`; None for an unexpected error (a bug)."""
    from inferd.daemon.broker.errors import BrokerError
    from inferd.daemon.settings import SettingsError
    from inferd.schemas.errors import ModelServingError

    if isinstance(error, SettingsError):
        return EXIT_USAGE
    if any(_is_unreachable(cause) for cause in _causes(error)):
        return EXIT_UNREACHABLE
    if isinstance(error, (ModelServingError, BrokerError, OSError)) or _is_kafka_error(error):
        return EXIT_FAILED
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _is_unreachable(error: BaseException) -> bool:
    if isinstance(error, ConnectionError):
        return True
    # Looked up, not imported: its errors can occur only if aiokafka is loaded already.
    errors = sys.modules.get("aiokafka.errors")
    return errors is not None and isinstance(error, tuple(getattr(errors, name) for name in UNREACHABLE_NAMES))


def _is_kafka_error(error: BaseException) -> bool:
    errors = sys.modules.get("aiokafka.errors")
    return errors is not None and isinstance(error, errors.KafkaError)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(str(value))


def _plain_lines(columns: Sequence[str], cells: list[list[str]]) -> Iterator[str]:
    table = [list(columns), *cells]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    for row in table:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _write_rich(columns: Sequence[str], cells: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)

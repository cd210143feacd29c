"""`inferd labels`: sends what was true of requests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from inferd.daemon.cli.file_options import file_options
from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import report
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.row_files import FileOptions, Kind, Layout, open_row_file
from inferd.schemas.errors import InferenceError, InvalidValueError, SchemaMismatchError
from inferd.schemas.labels import Label


@dataclass(frozen=True, slots=True)
class _LabelLayout(Layout):
    """Ids are text, whatever they look like."""

    id_column: str = "id"

    def kind(self, name: str) -> Kind | None:
        return "text" if name == self.id_column else None


@click.group(epilog="Example: inferd labels send outcomes.csv --label churned")
def labels() -> None:
    """Send labels: what was true of requests, so that the quality of predictions is known.

    Workers read them if INFERD_LABELS_WINDOW_S is above 0.
    """


@labels.command(epilog="Example: inferd labels send outcomes.csv --id request --label churned")
@click.argument("rows", metavar="FILE")
@click.option("--id", "id_column", default="id", show_default=True, help="Column of the request ids.")
@click.option("--label", "label_column", default="label", show_default=True, help="Column of the labels.")
@click.option("--weight", "weight_column", help="Column of weights.  [default: all weigh 1]")
@file_options
@broker_options
def send(
    rows: str, id_column: str, label_column: str, weight_column: str | None, file: FileOptions, target: Target
) -> None:
    """Send the labels in FILE (.csv, .ndjson, .parquet; - for NDJSON on standard input); returns once Kafka has all.

    Other columns are left out. A label that comes a second time counts once.
    """
    layout = _LabelLayout("", id_column=id_column)
    columns = (id_column, label_column, weight_column)

    async def work() -> int:
        async with target.client() as client:
            with open_row_file(rows, file, layout, sys.stdin.buffer) as found:
                return await client.send_labels(_labels(found.blocks, rows, columns))

    count = run_with_broker(target.connection, work)
    report(f"sent {count:,} labels")


def _labels(blocks: Iterator[Any], where: str, columns: tuple[str, str, str | None]) -> Iterator[Label]:
    number = 0
    for block in blocks:
        for row in block:
            number += 1
            if isinstance(row, InferenceError):
                raise row
            yield _label(row, f"{where}: row {number}", *columns)


def _label(row: Any, where: str, id_column: str, label_column: str, weight_column: str | None) -> Label:
    for name in (id_column, label_column, weight_column):
        if name is not None and (not isinstance(row, dict) or row.get(name) is None):
            raise SchemaMismatchError(f"{where} has no {name!r}: name the columns with --id, --label and --weight")
    weight = row[weight_column] if weight_column is not None else 1.0
    if isinstance(weight, str):
        raise InvalidValueError(f"{where}: {weight_column!r} is not a number")
    return Label(str(row[id_column]), row[label_column], float(weight))

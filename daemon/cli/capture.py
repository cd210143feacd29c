"""`inferd capture`: exports captured requests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import report
from inferd.daemon.cli.predict.command import OUTPUTS_HELP, parse_outputs
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.cli.times import parse_earlier
from inferd.daemon.column_files import ColumnWriter, open_columns
from inferd.daemon.row_files import FORMATS, Format, format_of
from inferd.schemas.capture import columns_of
from inferd.schemas.errors import ServerError
from inferd.schemas.requests import ModelReference, Output

if TYPE_CHECKING:
    from inferd.schemas.capture import CapturedRequest

TEXTS = ("id", "alias", "variant")
"""Columns of text that may be empty for long."""


@click.group(epilog="Example: inferd capture export churn --since 2h -o rows.parquet")
def capture() -> None:
    """Export requests that workers have captured, with the features and outputs of their rows.

    Workers capture the share INFERD_CAPTURE_SHARE of the requests; by default none.
    """


@capture.command(epilog="Example: inferd capture export churn:4 --since 2026-12-24T18:00Z -o rows.csv")
@click.argument("model", metavar="NAME[:VERSION]")
@click.option(
    "-o", "--output-file", "path", required=True, type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write (.parquet, .csv, .ndjson).",
)  # fmt: skip
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Format of the file.  [default: from its suffix]")
@click.option(
    "--since", callback=parse_earlier, metavar="TIME",
    help="Requests scored since then: 2026-12-24T18:00Z, or a duration such as 2h.  [default: all]",
)  # fmt: skip
@click.option("--outputs", callback=parse_outputs, help=OUTPUTS_HELP)
@broker_options
def export(
    model: str,
    path: Path,
    format_: Format | None,
    since: datetime | None,
    outputs: tuple[Output, ...],
    target: Target,
) -> None:
    """Export captured requests to a model as a file with a row for each of their rows.

    A row has the id of its request, the version, alias and variant that scored it, the time, the values of the features
    as the model got them, and the outputs. Versions with different features need a file each.
    """
    reference = ModelReference.parse(model)
    if reference.alias is not None:
        raise click.UsageError(f"{model}: an alias names other versions at other times; give NAME or NAME:VERSION")
    chosen = format_ or format_of(path)
    if chosen is None:
        raise click.UsageError(f"{path}: unknown suffix; add --format {'|'.join(FORMATS)}")
    export_to = _Export(path, chosen, outputs)
    requests, rows = run_with_broker(target.connection, lambda: _write(target, reference, since, export_to))
    written = f"wrote {rows:,} rows of {requests:,} requests to {path}"
    report(written if requests else f"no captured requests to {reference}: wrote nothing")


@dataclass(frozen=True, slots=True)
class _Export:
    """What is written, and where."""

    path: Path
    format: Format
    outputs: tuple[Output, ...]


async def _write(target: Target, model: ModelReference, since: datetime | None, export_to: _Export) -> tuple[int, int]:
    """The number of requests and rows that were written."""
    requests = rows = 0
    writer: ColumnWriter | None = None
    first: CapturedRequest | None = None
    try:
        async with target.client() as client:
            async for captured in client.captured(str(model), since=since):
                first = first or captured
                _check_alike(first, captured)
                writer = writer or open_columns(export_to.path, export_to.format, TEXTS)
                columns = dict(columns_of(captured, export_to.outputs))
                writer.write(columns)
                requests, rows = requests + 1, rows + len(columns["id"])
        if writer is not None:
            writer.close()
    except BaseException:
        if writer is not None:
            writer.discard()
        raise
    return requests, rows


def _check_alike(first: CapturedRequest, captured: CapturedRequest) -> None:
    if list(first.features) != list(captured.features):
        one, other = (f"{each.model_id}:{each.version}" for each in (first, captured))
        raise ServerError(f"{one} and {other} have different features: name one version, such as {other}")

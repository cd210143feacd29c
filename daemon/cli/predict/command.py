"""The command `inferd predict`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import click

from inferd.daemon.cli.file_options import file_options
from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import EXIT_FAILED, report
from inferd.daemon.cli.predict.output import row_writer
from inferd.daemon.cli.predict.row_batches import Outcome, outcomes_in_order
from inferd.daemon.cli.predict.row_sources import RowSource, open_rows
from inferd.daemon.cli.read_ahead import read_ahead
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.row_files import FileOptions, Layout
from inferd.schemas.errors import InferenceError, InvalidValueError, ServerError
from inferd.schemas.requests import (
    DEFAULT_OUTPUTS,
    OUTPUTS,
    ModelReference,
    Output,
    check_outputs,
)

if TYPE_CHECKING:
    from inferd.client import Client


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """Arguments of `inferd predict`."""

    model: str
    rows: str
    file: FileOptions
    outputs: tuple[Output, ...]
    batch_rows: int
    window: int
    timeout_s: float


@dataclass(slots=True)
class Tally:
    """Counts of predicted and failed rows."""

    predicted: int = 0
    failed: int = 0
    started_at: float = field(default_factory=time.monotonic)

    def count(self, outcome: Outcome) -> None:
        """Counts a row."""
        if outcome.error is None:
            self.predicted += 1
        else:
            self.failed += 1

    def __str__(self) -> str:
        rows, seconds = self.predicted + self.failed, time.monotonic() - self.started_at
        return f"{rows:,} rows in {seconds:.1f} s ({rows / seconds:,.0f} rows/s), {self.failed:,} failed"


OUTPUTS_HELP = f"Comma-separated: {','.join(OUTPUTS)}, or the model's own outputs.  [default: prediction]"


def parse_outputs(_ctx: click.Context, _option: click.Parameter, text: str | None) -> tuple[Output, ...]:
    """Parses comma-separated outputs; returns them in the order of `OUTPUTS`, then the model's own."""
    if text is None:
        return DEFAULT_OUTPUTS
    names = [name.strip() for name in text.split(",")]
    try:
        return check_outputs(
            [*(name for name in OUTPUTS if name in names), *dict.fromkeys(own for own in names if own not in OUTPUTS)]
        )
    except InvalidValueError as error:
        raise click.BadParameter(error.message) from None


def parse_reference(_ctx: click.Context, _argument: click.Parameter, text: str) -> str:
    """Validates a model reference."""
    try:
        return str(ModelReference.parse(text))
    except InferenceError as error:
        raise click.BadParameter(error.message) from error


@click.command(
    epilog="""\b
Examples:
  inferd predict churn '{"age": 41, "plan": "pro"}'
  inferd predict churn:2 customers.csv --output json > predictions.jsonl
  tail -f rows.ndjson | inferd predict churn -"""
)
@click.argument("model", metavar="MODEL", callback=parse_reference)
@click.argument("rows", metavar="ROW|FILE|-", default="-")
@file_options
@click.option("--outputs", callback=parse_outputs, help=OUTPUTS_HELP)
@click.option("--batch-rows", type=click.IntRange(1), default=1, show_default=True, help="Rows per request.")
@click.option("--window", type=click.IntRange(1), default=512, show_default=True, help="Maximum requests in flight.")
@click.option("--timeout-s", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True,
              help="How long to wait for a result.")  # fmt: skip
@broker_options
@click.pass_context
def predict(ctx: click.Context, /, target: Target, **options: object) -> None:
    """Score rows with MODEL (NAME, NAME:VERSION or NAME@ALIAS) through Kafka, and print predictions in row order.

    Rows are a JSON row, a CSV file (its header names the features, an empty field is missing), an NDJSON file (a row,
    or an array of rows, per line), a Parquet file, or NDJSON on standard input; CSV and NDJSON also with gzip.

    Exit code 1 if any row fails.
    """
    chosen = PredictOptions(**options)  # type: ignore[arg-type]  # click passes these names
    tally = run_with_broker(target.connection, lambda: _predict(target, chosen))
    if tally.predicted + tally.failed > 1:
        report(str(tally))
    if tally.failed:
        ctx.exit(EXIT_FAILED)


async def _predict(target: Target, options: PredictOptions) -> Tally:
    tally = Tally()
    writer = row_writer(target.output, options.outputs)
    async with target.client() as client:
        layout = await _layout(client, options.model)
        predict_many = partial(
            client.predict_many,
            options.model,
            outputs=options.outputs,
            row_errors=options.batch_rows > 1,
            timeout_s=options.timeout_s,
            window=options.window,
        )
        try:
            with (
                open_rows(options.rows, options.file, layout, sys.stdin.buffer) as source,
                _progress(source) as advance,
            ):
                async for outcome in outcomes_in_order(predict_many, read_ahead(source.rows), options.batch_rows):
                    tally.count(outcome)
                    writer.write(outcome)
                    advance()
        finally:
            writer.close()
    return tally


async def _layout(client: Client, model: str) -> Layout:
    """The layout of rows, by name; without features if the model cannot be read."""
    from inferd.models import manifest_behind

    try:
        return Layout(model, manifest_behind(await client.models(), ModelReference.parse(model)))
    except (InferenceError, ServerError, TimeoutError):
        return Layout(model)


@contextmanager
def _progress(source: RowSource) -> Iterator[Callable[[], None]]:
    """Shows a bar if standard error is a terminal and standard output is not; yields the function that advances it."""
    if not sys.stderr.isatty() or sys.stdout.isatty() or source.waits:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield partial(progress.advance, progress.add_task("predicting", total=source.count))

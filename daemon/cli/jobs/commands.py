"""`inferd jobs`: score a file as a batch job, follow it, read its results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

import click

from inferd.daemon.cli.file_options import file_options
from inferd.daemon.cli.jobs.output import (
    LIST_COLUMNS,
    ParquetWriter,
    list_row,
    open_writer,
    write_status,
)
from inferd.daemon.cli.jobs.progress import shown_job
from inferd.daemon.cli.jobs.submit import (
    SubmitOptions,
    parse_deadline,
    parse_label,
    submit_file,
)
from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import (
    EXIT_FAILED,
    report,
    write_answer,
    write_json,
)
from inferd.daemon.cli.predict.command import parse_outputs, parse_reference
from inferd.daemon.cli.predict.output import row_writer
from inferd.daemon.cli.predict.row_batches import Outcome
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.row_files import FORMATS, Format, format_of
from inferd.schemas.errors import InferenceError
from inferd.schemas.jobs import ChunkResult, JobStatus, Phase
from inferd.schemas.requests import OUTPUTS, check_job_id

if TYPE_CHECKING:
    from inferd.client import Client

T = TypeVar("T")


def _parse_job_id(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    try:
        return None if text is None else check_job_id(text)
    except InferenceError as error:
        raise click.BadParameter(error.message) from error


job_argument = click.argument("job_id", metavar="JOB", callback=_parse_job_id)
timeout_option = click.option(
    "--timeout-s", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True,
    help="How long to wait for a worker's word.",
)  # fmt: skip


@click.group(epilog="Example: inferd jobs submit rows.parquet --model churn --watch")
def jobs() -> None:
    """Score files as batch jobs: every row ends as one prediction or one error, whatever happens to workers.

    Exit codes: 0 done, 1 the work failed (of submit --watch and watch: the job ended other than completed), 2 wrong
    usage, 3 broker unreachable.
    """


@jobs.command(
    epilog="""\b
Examples:
  inferd jobs submit customers.parquet --model churn --watch
  inferd jobs submit rows.csv --model churn@champion --skip-column id --label source=crm"""
)
@click.argument("rows", metavar="FILE|-")
@click.option("--model", required=True, callback=parse_reference, help="NAME, NAME:VERSION or NAME@ALIAS.")
@click.option("--job-id", callback=_parse_job_id, help="Name of the job.  [default: a new one]")
@file_options
@click.option("--outputs", callback=parse_outputs, help=f"Some of {','.join(OUTPUTS)}.  [default: prediction]")
@click.option("--chunk-rows", type=click.IntRange(1), help="Rows scored and published together.  [default: 1024]")
@click.option("--deadline", callback=parse_deadline, metavar="30m|TIME",
              help="When all rows must have come: 90s, 30m, 2h, 1d from now, or 2026-12-24T18:00Z.")  # fmt: skip
@click.option("--label", "labels", multiple=True, callback=parse_label, metavar="NAME=VALUE",
              help="Comes back in the job's statuses; may be given often.")  # fmt: skip
@click.option("--watch", is_flag=True, help="Stay until the job has ended.")
@click.option("--send-all", is_flag=True, help="Send again what the job has already, too.")
@timeout_option
@broker_options
@click.pass_context
def submit(ctx: click.Context, /, target: Target, watch: bool, **options: object) -> None:
    """Submit FILE (Parquet, CSV, NDJSON; - is NDJSON on standard input) as a job, and print its id.

    After an interruption, the same command with --job-id sends what is still missing. A line that is no row is sent as
    a row that fails, so that row numbers are those of the file.
    """
    chosen = SubmitOptions(**options)  # type: ignore[arg-type]  # click made them by these names
    job_id = run_with_broker(target.connection, lambda: _with_client(target, lambda c: submit_file(c, chosen)))
    if target.output == "json":
        write_json({"job_id": job_id})
    else:
        click.echo(job_id)
    if watch:
        _watch(ctx, target, job_id, tell=False)
    else:
        report(f"follow it: inferd jobs watch {job_id}")


@jobs.command("list", epilog="Example: inferd jobs list --status running")
@click.option("--status", "phase", type=click.Choice(get_args(Phase)), help="Only jobs of this status.")
@broker_options
def list_jobs(target: Target, phase: str | None) -> None:
    """List the jobs of the tenant, in the order of submission."""
    found = _ask(target, lambda client: client.list_jobs())
    chosen = [status for status in found if phase in (None, status.status)]
    write_answer(target.output, chosen, LIST_COLUMNS, map(list_row, chosen))


@jobs.command(epilog="Example: inferd jobs status job-4f3a9c0d12345678 --output json")
@job_argument
@broker_options
def status(job_id: str, target: Target) -> None:
    """Show how a job stands."""
    write_status(target.output, _ask(target, lambda client: client.job_status(job_id)))


@jobs.command(epilog="Example: inferd jobs watch job-4f3a9c0d12345678")
@job_argument
@broker_options
@click.pass_context
def watch(ctx: click.Context, job_id: str, target: Target) -> None:
    """Follow a job until it has ended, and show its last status.

    Rows a second, time left and failures go to standard error. Exit code 1 unless it is completed without failed rows.
    """
    _watch(ctx, target, job_id, tell=True)


@jobs.command(epilog="Example: inferd jobs results job-4f3a9c0d12345678 -o predictions.parquet")
@job_argument
@click.option("-o", "--output-file", "path", type=click.Path(dir_okay=False, path_type=Path),
              help="Write to this file (.parquet, .csv, .ndjson), and not to standard output.")  # fmt: skip
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Format of the file.  [default: by its suffix]")
@click.option("--from-row", type=click.IntRange(0), default=0, show_default=True,
              help="First row; a CSV or NDJSON file is then continued.")  # fmt: skip
@broker_options
def results(job_id: str, path: Path | None, format_: Format | None, from_row: int, target: Target) -> None:
    """Read the results of a job that has ended, in row order.

    Each row is a prediction or an error; failed rows are results, too, and leave the exit code 0.
    """
    if path is None:
        if format_ is not None:
            raise click.UsageError("--format is that of a file: name one with -o")
        _ask(target, lambda client: _print_results(client, target, job_id, from_row))
        return
    chosen = format_ or format_of(path)
    if chosen is None:
        raise click.UsageError(f"{path}: say its format with --format {'|'.join(FORMATS)}")
    _ask(target, lambda client: _write_results(client, job_id, path, chosen, from_row))


@jobs.command(epilog="Example: inferd jobs cancel job-4f3a9c0d12345678")
@job_argument
@timeout_option
@broker_options
def cancel(job_id: str, timeout_s: float, target: Target) -> None:
    """End a job. Once this has succeeded, no further result of it is published."""
    write_status(target.output, _ask(target, lambda client: client.cancel_job(job_id, timeout_s=timeout_s)))


@jobs.command(epilog="Example: inferd jobs retry job-4f3a9c0d12345678 --watch")
@job_argument
@click.option("--watch", is_flag=True, help="Stay until the job has ended again.")
@timeout_option
@broker_options
@click.pass_context
def retry(ctx: click.Context, job_id: str, watch: bool, timeout_s: float, target: Target) -> None:
    """Score the failed rows of a job that is completed_with_errors once more, with the same version of the model."""
    started = _ask(target, lambda client: client.retry_job(job_id, timeout_s=timeout_s))
    if watch:
        _watch(ctx, target, job_id, tell=True)
    else:
        write_status(target.output, started)


# ------------------------------------------------------------------------------------------------------------ carry out


def _ask(target: Target, question: Callable[[Client], Awaitable[T]]) -> T:
    return run_with_broker(target.connection, lambda: _with_client(target, question))


async def _with_client(target: Target, question: Callable[[Client], Awaitable[T]]) -> T:
    async with target.client() as client:
        return await question(client)


def _watch(ctx: click.Context, target: Target, job_id: str, *, tell: bool) -> None:
    """Follows a job; exit code 1 where it ends other than completed."""
    last = _ask(target, lambda client: _watched(client, job_id))
    if tell:
        write_status(target.output, last)
    if last.status != "completed":
        ctx.exit(EXIT_FAILED)


async def _watched(client: Client, job_id: str) -> JobStatus:
    last: JobStatus | None = None
    with shown_job() as show:
        async for last in client.watch_job(job_id):
            show(last)
    assert last is not None
    return last


async def _print_results(client: Client, target: Target, job_id: str, from_row: int) -> None:
    writer = None
    try:
        async for chunk in client.job_result_chunks(job_id, from_row):
            writer = writer or row_writer(target.output, tuple(chunk.outputs))
            for outcome in _outcomes(chunk, from_row):
                writer.write(outcome)
    finally:
        if writer is not None:
            writer.close()


def _outcomes(chunk: ChunkResult, from_row: int) -> list[Outcome]:
    from inferd.jobs import rows_of

    return [
        Outcome(row.row, dict(row.outputs), chunk.version, row.error.error() if row.error else None)
        for row in rows_of(chunk, from_row)
    ]


async def _write_results(client: Client, job_id: str, path: Path, format_: Format, from_row: int) -> None:
    next_row = from_row
    chunks = client.job_result_chunks(job_id, from_row)
    # What is wrong with the job is told before a file is touched.
    first = await anext(chunks, None)
    writer, file = open_writer(path, format_, append=from_row > 0)
    try:
        if first is not None:
            writer.write(first, from_row)
            next_row = first.first_row + len(first.outputs["prediction"])
        async for chunk in chunks:
            writer.write(chunk, from_row)
            next_row = chunk.first_row + len(chunk.outputs["prediction"])
        writer.close()
    except BaseException:
        if isinstance(writer, ParquetWriter):
            writer.discard()
        else:
            report(f"{path} has the rows before {next_row}; continue with --from-row {next_row}")
        raise
    finally:
        await chunks.aclose()
        if file is not None:
            file.close()
    report(f"rows {from_row:,} to {next_row - 1:,} are in {path}" if next_row > from_row else "there are no rows")

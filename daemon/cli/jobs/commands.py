"""The commands of `inferd jobs`."""

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
    parse_label,
    submit_file,
)
from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import (
    EXIT_FAILED,
    report,
    write_json,
    write_result,
)
from inferd.daemon.cli.predict.command import OUTPUTS_HELP, parse_outputs, parse_reference
from inferd.daemon.cli.predict.output import row_writer
from inferd.daemon.cli.predict.row_batches import Outcome
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.cli.times import parse_later
from inferd.daemon.row_files import FORMATS, Format, format_of
from inferd.schemas.errors import InferenceError
from inferd.schemas.jobs import ChunkResult, JobStatus, Phase
from inferd.schemas.requests import check_job_id

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
    help="How long to wait for a worker to respond.",
)  # fmt: skip


@click.group(epilog="Example: inferd jobs submit rows.parquet --model churn --watch")
def jobs() -> None:
    """Score files as batch jobs: every row ends as one prediction or one error, even if workers fail.

    Exit codes: 0 success, 1 failure (submit --watch and watch: the job ended with a status other than completed),
    2 wrong usage, 3 broker unreachable.
    """


@jobs.command(
    epilog="""\b
Examples:
  inferd jobs submit customers.parquet --model churn --watch
  inferd jobs submit rows.csv --model churn@champion --skip-column id --label source=crm"""
)
@click.argument("rows", metavar="FILE|-")
@click.option("--model", required=True, callback=parse_reference, help="NAME, NAME:VERSION or NAME@ALIAS.")
@click.option("--job-id", callback=_parse_job_id, help="Id of the job.  [default: a new one]")
@file_options
@click.option("--outputs", callback=parse_outputs, help=OUTPUTS_HELP)
@click.option("--chunk-rows", type=click.IntRange(1), help="Rows scored and published together.  [default: 1024]")
@click.option("--deadline", callback=parse_later, metavar="30m|TIME",
              help="When all rows must have arrived: 90s, 30m, 2h, 1d from now, or 2026-12-24T18:00Z.")  # fmt: skip
@click.option("--label", "labels", multiple=True, callback=parse_label, metavar="NAME=VALUE",
              help="Label shown in the job's status; repeatable.")  # fmt: skip
@click.option("--watch", is_flag=True, help="Wait until the job has ended.")
@click.option("--send-all", is_flag=True, help="Also send rows that the job has already.")
@timeout_option
@broker_options
@click.pass_context
def submit(ctx: click.Context, /, target: Target, watch: bool, **options: object) -> None:
    """Submit FILE (Parquet, CSV, NDJSON; - is NDJSON on standard input) as a job, and print its id.

    After an interruption, the same command with --job-id sends the missing rows. An invalid line is sent as a row that
    fails, so that row numbers match the file.
    """
    chosen = SubmitOptions(**options)  # type: ignore[arg-type]  # click passes these names
    job_id = run_with_broker(target.connection, lambda: _with_client(target, lambda c: submit_file(c, chosen)))
    if target.output == "json":
        write_json({"job_id": job_id})
    else:
        click.echo(job_id)
    if watch:
        _watch(ctx, target, job_id, show=False)
    else:
        report(f"watch it: inferd jobs watch {job_id}")


@jobs.command("list", epilog="Example: inferd jobs list --status running")
@click.option("--status", "phase", type=click.Choice(get_args(Phase)), help="Only jobs with this status.")
@broker_options
def list_jobs(target: Target, phase: str | None) -> None:
    """List the jobs of the tenant, in the order of submission."""
    found = _run(target, lambda client: client.list_jobs())
    chosen = [status for status in found if phase in (None, status.status)]
    write_result(target.output, chosen, LIST_COLUMNS, map(list_row, chosen))


@jobs.command(epilog="Example: inferd jobs status job-4f3a9c0d12345678 --output json")
@job_argument
@broker_options
def status(job_id: str, target: Target) -> None:
    """Show the status of a job."""
    write_status(target.output, _run(target, lambda client: client.job_status(job_id)))


@jobs.command(epilog="Example: inferd jobs watch job-4f3a9c0d12345678")
@job_argument
@broker_options
@click.pass_context
def watch(ctx: click.Context, job_id: str, target: Target) -> None:
    """Watch a job until it has ended, and show its last status.

    Progress goes to standard error. Exit code 1 unless the job completes without failed rows.
    """
    _watch(ctx, target, job_id, show=True)


@jobs.command(epilog="Example: inferd jobs results job-4f3a9c0d12345678 -o predictions.parquet")
@job_argument
@click.option("-o", "--output-file", "path", type=click.Path(dir_okay=False, path_type=Path),
              help="Write to this file (.parquet, .csv, .ndjson) instead of standard output.")  # fmt: skip
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Format of the file.  [default: from its suffix]")
@click.option("--from-row", type=click.IntRange(0), default=0, show_default=True,
              help="First row; above 0, an existing CSV or NDJSON file is appended to.")  # fmt: skip
@broker_options
def results(job_id: str, path: Path | None, format_: Format | None, from_row: int, target: Target) -> None:
    """Read the results of a job that has ended, in row order.

    Each row has a prediction or an error. Failed rows do not change the exit code.
    """
    if path is None:
        if format_ is not None:
            raise click.UsageError("--format needs an output file: add -o FILE")
        _run(target, lambda client: _print_results(client, target, job_id, from_row))
        return
    chosen = format_ or format_of(path)
    if chosen is None:
        raise click.UsageError(f"{path}: unknown suffix; add --format {'|'.join(FORMATS)}")
    _run(target, lambda client: _write_results(client, job_id, path, chosen, from_row))


@jobs.command(epilog="Example: inferd jobs cancel job-4f3a9c0d12345678")
@job_argument
@timeout_option
@broker_options
def cancel(job_id: str, timeout_s: float, target: Target) -> None:
    """Cancel a job. After that, none of its results are published."""
    write_status(target.output, _run(target, lambda client: client.cancel_job(job_id, timeout_s=timeout_s)))


@jobs.command(epilog="Example: inferd jobs retry job-4f3a9c0d12345678 --watch")
@job_argument
@click.option("--watch", is_flag=True, help="Wait until the job has ended again.")
@timeout_option
@broker_options
@click.pass_context
def retry(ctx: click.Context, job_id: str, watch: bool, timeout_s: float, target: Target) -> None:
    """Retry the failed rows of a job that is completed_with_errors, with the same model version."""
    started = _run(target, lambda client: client.retry_job(job_id, timeout_s=timeout_s))
    if watch:
        _watch(ctx, target, job_id, show=True)
    else:
        write_status(target.output, started)


# ------------------------------------------------------------------------------------------------------ implementation


def _run(target: Target, work: Callable[[Client], Awaitable[T]]) -> T:
    return run_with_broker(target.connection, lambda: _with_client(target, work))


async def _with_client(target: Target, work: Callable[[Client], Awaitable[T]]) -> T:
    async with target.client() as client:
        return await work(client)


def _watch(ctx: click.Context, target: Target, job_id: str, *, show: bool) -> None:
    """Watches a job to its end; exit code 1 if the status is not `completed`."""
    last = _run(target, lambda client: _watched(client, job_id))
    if show:
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
    # An error of the job is raised before the file is opened.
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
            report(f"{path} has the rows up to {next_row - 1}; continue with --from-row {next_row}")
        raise
    finally:
        await chunks.aclose()
        if file is not None:
            file.close()
    report(f"wrote rows {from_row:,} to {next_row - 1:,} to {path}" if next_row > from_row else "the job has no rows")

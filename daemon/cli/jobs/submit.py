"""`inferd jobs submit`: sends a file as the messages of a job."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING

import click

from inferd.daemon.cli.jobs.files import JobRows, open_job_rows
from inferd.daemon.cli.jobs.progress import shown_submission
from inferd.daemon.cli.output import report
from inferd.daemon.cli.read_ahead import read_ahead
from inferd.daemon.row_files import FileOptions, Layout
from inferd.errors import ResultTimeoutError
from inferd.jobs import SubmitProgress, new_job_id
from inferd.schemas.errors import JobNotFoundError, ServerError
from inferd.schemas.jobs import JobStatus
from inferd.schemas.models import CHAMPION, AliasKey, VersionKey
from inferd.schemas.requests import ModelReference, Output

if TYPE_CHECKING:
    from inferd.client import Client
    from inferd.models import ModelList

MESSAGES_AHEAD = 4


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """Arguments of `inferd jobs submit`."""

    rows: str
    model: str
    job_id: str | None
    file: FileOptions
    outputs: tuple[Output, ...]
    chunk_rows: int | None
    deadline: datetime | None
    labels: dict[str, str] | None
    send_all: bool
    timeout_s: float


def parse_label(_ctx: click.Context, _option: click.Parameter, texts: Sequence[str]) -> dict[str, str] | None:
    """Parses labels; None if there are none."""
    labels = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        labels[name] = value
    return labels or None


async def submit_file(client: Client, options: SubmitOptions) -> str:
    """Submits the file as a job; returns its id."""
    job_id = options.job_id or new_job_id()
    existing = await _status(client, job_id) if options.job_id is not None else None
    layout = await find_layout(client, options.model, existing)
    with open_job_rows(options.rows, options.file, layout, sys.stdin.buffer) as rows:
        if options.job_id is None:
            report(f"job {job_id}")
        await _submit_rows(client, options, layout, rows, job_id)
    return job_id


async def _submit_rows(client: Client, options: SubmitOptions, layout: Layout, rows: JobRows, job_id: str) -> None:
    started = time.monotonic()
    if options.rows != "-":
        # A file whose first rows cannot be read must not open a job.
        first = await asyncio.to_thread(lambda: list(islice(rows.messages, 1)))
        rows.messages = chain(first, rows.messages)
    try:
        progress = await _submit(client, options, layout, rows, job_id)
    except ResultTimeoutError as error:
        report(error.message)
        return
    except (ServerError, OSError, asyncio.CancelledError, KeyboardInterrupt):
        if options.rows != "-":
            report(f"to continue: {_continue_command(options, job_id)}")
        raise
    seconds = time.monotonic() - started
    report(f"{_summary(progress)} in {seconds:.1f} s ({(progress.rows - progress.skipped) / seconds:,.0f} rows/s)")
    _report_invalid(rows)


async def _submit(client: Client, options: SubmitOptions, layout: Layout, rows: JobRows, job_id: str) -> SubmitProgress:
    last = SubmitProgress(0, 0)
    with shown_submission(rows.count) as show:

        def on_progress(progress: SubmitProgress) -> None:
            nonlocal last
            last = progress
            show(progress)

        await client.submit_job(
            layout.model,
            read_ahead(rows.messages, MESSAGES_AHEAD),
            job_id=job_id,
            outputs=options.outputs,
            chunk_rows=options.chunk_rows,
            deadline=options.deadline,
            labels=options.labels,
            resume=not options.send_all,
            on_progress=on_progress,
            timeout_s=options.timeout_s,
        )
    return last


async def _status(client: Client, job_id: str) -> JobStatus | None:
    try:
        return await client.job_status(job_id)
    except JobNotFoundError:
        return None


async def find_layout(client: Client, model: str, existing: JobStatus | None) -> Layout:
    """The layout of rows, for the version that the existing job is pinned to, else for what `model` resolves to.

    A job whose rows are sent by position is opened with that version. Rows are sent by name if a split decides on the
    version, or if the models cannot be read.
    """
    try:
        models = await client.models()
    except ServerError:
        return Layout(model)
    return layout_for(models, ModelReference.parse(model), existing)


def layout_for(models: ModelList, reference: ModelReference, existing: JobStatus | None) -> Layout:
    """Like `find_layout`, for a list of models. Raises `ModelNotFoundError` or `VersionNotFoundError`."""
    from inferd.models import manifest_behind

    pinned = None
    if existing is not None and existing.model_id == reference.name and existing.version is not None:
        pinned = models.versions.get(VersionKey(reference.name, existing.version))
    alias = models.aliases.get(AliasKey(reference.name, reference.alias or CHAMPION))
    if reference.version is None and alias is not None and alias.split:
        return Layout(str(reference), pinned or manifest_behind(models, reference))
    manifest = pinned or manifest_behind(models, reference)
    return Layout(f"{manifest.model_id}:{manifest.version}", manifest, by_position=True)


def _summary(progress: SubmitProgress) -> str:
    rows = f"submitted {progress.rows:,} rows"
    return f"{rows} ({progress.skipped:,} of them sent before)" if progress.skipped else rows


def _report_invalid(rows: JobRows) -> None:
    if rows.invalid_count:
        report(f"{rows.invalid_count:,} invalid lines were sent as rows that fail; the first ones:")
        for problem in rows.first_problems:
            report(f"  {problem}")


def _continue_command(options: SubmitOptions, job_id: str) -> str:
    """The command that continues an interrupted submission."""
    given = [word for word in sys.argv[1:] if word not in ("-v", "-vv", "--verbose")]
    if options.job_id is None:
        given += ["--job-id", job_id]
    return shlex.join(["inferd", *given])

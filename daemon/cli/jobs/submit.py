"""Carrying out `inferd jobs submit`: a file as the messages of a job."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """What is submitted, and how."""

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


def parse_deadline(_ctx: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    """A time, or one that is so far from now."""
    if text is None:
        return None
    if duration := _DURATION.fullmatch(text):
        return datetime.now(UTC) + timedelta(**{_UNITS[duration[2]]: float(duration[1])})
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither like 90s, 30m, 2h, 1d nor like 2026-12-24T18:00Z") from error


def parse_label(_ctx: click.Context, _option: click.Parameter, texts: Sequence[str]) -> dict[str, str] | None:
    """Labels by name; None where there are none."""
    labels = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        labels[name] = value
    return labels or None


async def submit_file(client: Client, options: SubmitOptions) -> str:
    """The id of the job that the file has become."""
    job_id = options.job_id or new_job_id()
    before = await _status(client, job_id) if options.job_id is not None else None
    layout = await find_layout(client, options.model, before)
    with open_job_rows(options.rows, options.file, layout, sys.stdin.buffer) as rows:
        if options.job_id is None:
            report(f"job {job_id}")
        await _submit_rows(client, options, layout, rows, job_id)
    return job_id


async def _submit_rows(client: Client, options: SubmitOptions, layout: Layout, rows: JobRows, job_id: str) -> None:
    started = time.monotonic()
    if options.rows != "-":
        # A file that cannot be read from its start does not become a job.
        first = await asyncio.to_thread(lambda: list(islice(rows.messages, 1)))
        rows.messages = chain(first, rows.messages)
    try:
        progress = await _submit(client, options, layout, rows, job_id)
    except ResultTimeoutError as error:
        report(error.message)
        return
    except (ServerError, OSError, asyncio.CancelledError, KeyboardInterrupt):
        if options.rows != "-":
            report(f"to go on: {_again(options, job_id)}")
        raise
    seconds = time.monotonic() - started
    report(f"{_told(progress)} in {seconds:.1f} s ({(progress.rows - progress.skipped) / seconds:,.0f} a second)")
    _tell_unreadable(rows)


async def _submit(client: Client, options: SubmitOptions, layout: Layout, rows: JobRows, job_id: str) -> SubmitProgress:
    last = SubmitProgress(0, 0)
    with shown_submission(rows.count) as show:

        def follow(progress: SubmitProgress) -> None:
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
            on_progress=follow,
            timeout_s=options.timeout_s,
        )
    return last


async def _status(client: Client, job_id: str) -> JobStatus | None:
    try:
        return await client.job_status(job_id)
    except JobNotFoundError:
        return None


async def find_layout(client: Client, model: str, before: JobStatus | None) -> Layout:
    """How rows are laid out: for the version that a job is pinned to already, or else for the one that `model` means.

    A job whose rows go by position is opened with that version. They go by name where a split decides on the version,
    or the models cannot be read.
    """
    try:
        models = await client.models()
    except ServerError:
        return Layout(model)
    return layout_for(models, ModelReference.parse(model), before)


def layout_for(models: ModelList, reference: ModelReference, before: JobStatus | None) -> Layout:
    """As `find_layout`, for models that are known; `ModelNotFoundError` or `VersionNotFoundError`."""
    from inferd.models import manifest_behind

    pinned = None
    if before is not None and before.model_id == reference.name and before.version is not None:
        pinned = models.versions.get(VersionKey(reference.name, before.version))
    alias = models.aliases.get(AliasKey(reference.name, reference.alias or CHAMPION))
    if reference.version is None and alias is not None and alias.split:
        return Layout(str(reference), pinned or manifest_behind(models, reference))
    manifest = pinned or manifest_behind(models, reference)
    return Layout(f"{manifest.model_id}:{manifest.version}", manifest, by_position=True)


def _told(progress: SubmitProgress) -> str:
    rows = f"{progress.rows:,} rows submitted"
    return f"{rows}, {progress.skipped:,} of which the job had already," if progress.skipped else rows


def _tell_unreadable(rows: JobRows) -> None:
    if rows.unreadable_count:
        report(f"{rows.unreadable_count:,} lines are no rows, and were sent as rows that fail, the first of them:")
        for problem in rows.unreadable:
            report(f"  {problem}")


def _again(options: SubmitOptions, job_id: str) -> str:
    """The command that goes on where this one stopped."""
    given = [word for word in sys.argv[1:] if word not in ("-v", "-vv", "--verbose")]
    if options.job_id is None:
        given += ["--job-id", job_id]
    return shlex.join(["inferd", *given])

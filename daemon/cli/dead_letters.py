"""`inferd dead-letters`: lists, shows and redrives rejected records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import (
    report,
    write_json,
    write_result,
    write_table,
)
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.cli.times import parse_earlier
from inferd.daemon.dead_letter_entries import Entry, details_of, summary_of, text_of
from inferd.daemon.printable import printable
from inferd.daemon.value_view import view_of
from inferd.schemas.dead_letters import Omitted
from inferd.schemas.redrive import ATTEMPTS_MAX

if TYPE_CHECKING:
    pass

COLUMNS = ("dead letter", "time", "code", "source", "key", "bytes", "message")
KEY_CHARS_MAX = 40
PLACE = re.compile(r"(?P<partition>[0-9]{1,9}):(?P<offset>[0-9]{1,18})", re.ASCII)


@click.group("dead-letters", epilog="Example: inferd dead-letters list --last 10")
def dead_letters() -> None:
    """List, show and redrive rejected records."""


@dead_letters.command("list", epilog="Example: inferd dead-letters list --code malformed --last 50")
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, help="Number of newest records.")
@click.option("--all", "everything", is_flag=True, help="All records in the topic.")
@click.option("--code", help="Only records with this error code.")
@broker_options
def list_letters(last: int, everything: bool, code: str | None, target: Target) -> None:
    """List dead letters, oldest first: PARTITION:OFFSET, time, error, and the topic and offset of the record."""
    shown = _read(target, None if everything else last, code)
    if not shown and target.output == "table":
        report("no dead letters" if code is None else f"no dead letters with code {code}")
    write_result(target.output, [summary_of(entry) for entry in shown], COLUMNS, map(_row, shown))


@dead_letters.command(epilog="Example: inferd dead-letters show 2:17")
@click.argument("place", metavar="PARTITION:OFFSET")
@click.option("--raw", is_flag=True, help="Write only the value of the record, byte for byte.")
@broker_options
def show(place: str, raw: bool, target: Target) -> None:
    """Show one dead letter with its headers and value: as JSON if it can be decoded, else in hexadecimal."""
    match = PLACE.fullmatch(place)
    if match is None:
        raise click.UsageError(f"{printable(place, 60)!r} is not PARTITION:OFFSET, such as 2:17")
    entry = _read_one(target, int(match["partition"]), int(match["offset"]))
    if raw:
        click.echo(entry.value or b"", nl=False)
    elif target.output == "json":
        write_json(details_of(entry))
    else:
        _show_text(entry)


@dead_letters.command(
    epilog="""\b
Examples:
  inferd dead-letters redrive --code too_large --dry-run
  inferd dead-letters redrive --code too_large --since 2h
  inferd dead-letters redrive --route orders --limit 100"""
)
@click.option("--code", help="Only records with this error code.")
@click.option(
    "--since", callback=parse_earlier, metavar="TIME",
    help="Rejected since then: 2026-12-24T18:00Z, or a duration such as 2h.  [default: all]",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="At most so many.  [default: all]")
@click.option("--route", help="Those of this route, to its sources.  [default: those of the tenant's own topics]")
@click.option(
    "--attempts-max", type=click.IntRange(1), default=ATTEMPTS_MAX, show_default=True,
    help="Skip records that were redriven so often.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Send nothing; show how many would be sent.")
@broker_options
def redrive(*, target: Target, **options: Any) -> None:
    """Send dead letters again to the partition that they were read from.

    Each is sent once, however often the command is repeated, and also if it is killed: records and progress are written
    in transactions. A record that is rejected again is a new dead letter, with the number of attempts in its header
    inferd-redrive-attempts.
    """
    from inferd.schemas.redrive import RedriveReport

    def progress(so_far: RedriveReport) -> None:
        report(f"{so_far.redriven:,} sent of {so_far.read:,} read")

    async def run() -> RedriveReport:
        async with target.client() as client:
            return await client.redrive_dead_letters(**options, on_progress=progress)

    found = run_with_broker(target.connection, run)
    if target.output == "json":
        write_json(found)
        return
    report(f"{'would send' if found.dry_run else 'sent'} {found.redriven:,} again; read {found.read:,} dead letters")
    for reason, count in found.skipped.items():
        report(f"skipped {count:,}: {reason}")
    if not found.done:
        report("stopped at --limit: repeat the command for the others")


def _read(target: Target, last: int | None, code: str | None) -> list[Entry]:
    from inferd.daemon.dead_letter_log import read_entries

    topic = target.topics.name("dead-letters")
    return run_with_broker(target.connection, lambda: read_entries(target.connection, topic, last, code))


def _read_one(target: Target, partition: int, offset: int) -> Entry:
    from inferd.daemon.dead_letter_log import read_entry

    topic = target.topics.name("dead-letters")
    return run_with_broker(target.connection, lambda: read_entry(target.connection, topic, partition, offset))


def _row(entry: Entry) -> tuple[Any, ...]:
    place = f"{entry.partition}:{entry.offset}"
    if entry.letter is None:
        return place, _time(entry.timestamp_ms), None, None, _key(entry.key), entry.value_bytes, entry.problem
    letter = entry.letter
    source = f"{letter.topic} {letter.partition}:{letter.offset}"
    message = f"{letter.message}{_omitted(letter.omitted)}"
    return place, _time(entry.timestamp_ms), letter.code, source, _key(entry.key), entry.value_bytes, message


def _omitted(parts: Sequence[Omitted]) -> str:
    """Names the parts of a record that were too large to store, with their sizes."""
    text = ", ".join(f"{part.part} ({part.bytes} bytes)" for part in parts)
    return f"; omitted: {text}" if text else ""


def _show_text(entry: Entry) -> None:
    details = details_of(entry)
    source = details.get("source", {})
    rows = [
        ("code", details.get("code")),
        ("message", details.get("message", details.get("problem"))),
        ("written", _time(entry.timestamp_ms)),
        ("topic", source.get("topic")),
        ("partition", source.get("partition")),
        ("offset", source.get("offset")),
        ("worker", details.get("worker")),
        ("key", details["key"]),
        *((f"header {name}", value) for name, value in details["headers"]),
        *(("omitted", f"{o['part']}, {o['bytes']} bytes, SHA-256 {o['sha256']}") for o in details.get("omitted", ())),
        ("value", f"{details['value_bytes']} bytes, {details['value_format']}"),
    ]
    write_table(("field", "value"), rows)
    for line in view_of(entry.value).lines:
        click.echo(printable(line))


def _key(key: bytes | None) -> str | None:
    text = text_of(key)
    return None if text is None else printable(text, KEY_CHARS_MAX)


def _time(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1_000, UTC).isoformat(sep=" ", timespec="milliseconds")

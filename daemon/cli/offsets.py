"""`inferd offsets`: shows and moves the committed offsets of the workers' group."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import report, write_result
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.cli.times import parse_earlier
from inferd.schemas.topics import Stream

if TYPE_CHECKING:
    from inferd.offsets import PartitionOffsets

COLUMNS = ("topic", "partition", "committed", "first", "end", "lag")
PLAN_COLUMNS = ("topic", "partition", "committed", "new", "first", "end")
STATEFUL: tuple[Stream, ...] = (
    "jobs", "job-chunks", "job-results", "model-stats", "rollouts", "labels", "to-label",
)  # fmt: skip
"""Topics whose owners keep positions or state of their own."""


@click.group(epilog="Example: inferd offsets show")
def offsets() -> None:
    """Show or move the committed offsets of the workers' consumer group."""


@offsets.command(epilog="Example: inferd offsets show --output json")
@click.option("--group", help="The consumer group.  [default: INFERD_GROUP_ID, or the namespace]")
@broker_options
def show(group: str | None, target: Target) -> None:
    """Show committed offsets, ends and lag of each partition that the group has read."""
    from inferd.offsets import GroupOffsets

    found = run_with_broker(target.connection, GroupOffsets(target.connection, group or target.group).show)
    if not found and target.output == "table":
        report(f"group {group or target.group} has committed nothing")
    rows = [(o.topic, o.partition, o.committed, o.first, o.end, o.lag) for o in found]
    write_result(target.output, [_json(each) for each in found], COLUMNS, rows)


@offsets.command(
    epilog="""\b
Examples:
  inferd offsets reset --to-datetime 2h                     # shows what would change
  inferd offsets reset --to-datetime 2h --execute
  inferd offsets reset --topic orders --partition 3 --to-offset 1500 --execute"""
)
@click.option("--topic", help="The topic.  [default: the tenant's requests]")
@click.option(
    "--partition", "partitions", type=click.IntRange(0), multiple=True, help="Only this one; may be repeated."
)
@click.option("--to-earliest", is_flag=True, help="To the beginning of the log: process everything again.")
@click.option("--to-latest", is_flag=True, help="To its end: skip what waits.")
@click.option(
    "--to-datetime", callback=parse_earlier, metavar="TIME",
    help="To the first record since then: 2026-12-24T18:00Z, or a duration such as 2h.",
)  # fmt: skip
@click.option("--to-offset", type=click.IntRange(0), help="To this offset.")
@click.option("--shift-by", type=int, help="By so many offsets; negative: back.")
@click.option("--group", help="The consumer group.  [default: INFERD_GROUP_ID, or the namespace]")
@click.option("--execute", is_flag=True, help="Commit the new offsets. Without it, only show them.")
@broker_options
def reset(  # noqa: PLR0913  (each is an option of the command)
    *,
    topic: str | None,
    partitions: tuple[int, ...],
    to_earliest: bool,
    to_latest: bool,
    to_datetime: datetime | None,
    to_offset: int | None,
    shift_by: int | None,
    group: str | None,
    execute: bool,
    target: Target,
) -> None:
    """Move the offsets of a topic. It shows what would change; with --execute it changes it.

    All workers of the group must be stopped. What lies behind the new offset is processed again, with the same ids and
    bytes; what is skipped never gets results.
    """
    from inferd.offsets import Destination, GroupOffsets

    name = topic or target.topics.name("requests")
    if name in {target.topics.name(stream) for stream in STATEFUL}:
        raise click.UsageError(f"{name}: its owner keeps positions in its own state, and its offsets cannot be moved")
    given = (to_earliest, to_latest, to_datetime is not None, to_offset is not None, shift_by is not None)
    if sum(given) != 1:
        raise click.UsageError("give one of --to-earliest, --to-latest, --to-datetime, --to-offset, --shift-by")
    destination = Destination(to_earliest, to_latest, to_datetime, to_offset, shift_by)
    offsets_of = GroupOffsets(target.connection, group or target.group)

    async def run() -> list[tuple[PartitionOffsets, int]]:
        plan = await offsets_of.plan(name, partitions, destination)
        if execute:
            await offsets_of.commit(plan)
            async with target.client() as client:
                texts = {str(each.partition): f"{each.committed} -> {new}" for each, new in plan}
                await client.audit.note("offsets", name, group=offsets_of.group, **texts)
        return plan

    plan = run_with_broker(target.connection, run)
    rows = [(each.topic, each.partition, each.committed, new, each.first, each.end) for each, new in plan]
    write_result(target.output, [_json(each) | {"new": new} for each, new in plan], PLAN_COLUMNS, rows)
    if not execute:
        report("nothing was changed: add --execute to commit the new offsets")


def _json(each: PartitionOffsets) -> dict[str, object]:
    return {
        "topic": each.topic, "partition": each.partition, "committed": each.committed, "first": each.first,
        "end": each.end, "lag": each.lag,
    }  # fmt: skip

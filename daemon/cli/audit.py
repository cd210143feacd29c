"""`inferd audit`: shows who changed what."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

import click

from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import report, write_result
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.cli.times import parse_earlier
from inferd.schemas.audit import AuditRecord

COLUMNS = ("time", "action", "subject", "by", "origin", "details")


@click.command(epilog="Example: inferd audit --since 2d --action alias")
@click.option(
    "--since", callback=parse_earlier, metavar="TIME",
    help="Since then: 2026-12-24T18:00Z, or a duration such as 2h.  [default: all that the topic has]",
)  # fmt: skip
@click.option("--last", type=click.IntRange(1), default=50, show_default=True, help="Number of newest records.")
@click.option("--action", help="Only this action, such as deploy, alias, rollout, cancel.")
@click.option("--subject", help="Only what begins with this text, such as churn.")
@broker_options
def audit(since: datetime | None, last: int, action: str | None, subject: str | None, target: Target) -> None:
    """List who changed what, when and from where, oldest first.

    Commands, clients and workers write a record once an action has been accepted: deploys, aliases, removals,
    rollouts, routes, cancelled and retried jobs, and the commands of operators.
    """

    async def read() -> list[AuditRecord]:
        newest: deque[AuditRecord] = deque(maxlen=last)
        async with target.client() as client:
            async for record in client.audit_records(since=since):
                if action in (None, record.action) and record.subject.startswith(subject or ""):
                    newest.append(record)
        return list(newest)

    found = run_with_broker(target.connection, read)
    if not found and target.output == "table":
        report("no such actions")
    write_result(target.output, found, COLUMNS, map(_row, found))


def _row(record: AuditRecord) -> tuple[str | None, ...]:
    time = datetime.fromtimestamp(record.at / 1_000, UTC).isoformat(sep=" ", timespec="seconds")
    details = ", ".join(f"{name}={text}" for name, text in record.details.items())
    return time, record.action, record.subject, record.by, record.origin, details or None

"""`inferd replay`: scores past requests again with another version, as a job."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import click

from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import report, write_json, write_table
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.cli.times import parse_earlier
from inferd.schemas.errors import InvalidIdError
from inferd.schemas.requests import ModelReference

if TYPE_CHECKING:
    from inferd.replay import Comparison, Replayed


def _parse_model(_ctx: click.Context, parameter: click.Parameter, text: str) -> str:
    try:
        return str(ModelReference.parse(text))
    except InvalidIdError as error:
        raise click.BadParameter(error.message, param=parameter) from None


@click.command(
    epilog="""\b
Examples:
  inferd replay --from 2h --model churn@challenger --compare
  inferd replay --from 2026-12-24T18:00Z --to 2026-12-24T19:00Z --model churn:4"""
)
@click.option(
    "--from", "since", required=True, callback=parse_earlier, metavar="TIME",
    help="The first requests: 2026-12-24T18:00Z, or a duration such as 2h.",
)  # fmt: skip
@click.option("--to", "until", callback=parse_earlier, metavar="TIME", help="Requests before then.  [default: now]")
@click.option("--model", required=True, callback=_parse_model, help="The version or alias that scores them again.")
@click.option("--limit", type=click.IntRange(1), help="At most so many requests.")
@click.option("--job-id", help="Id of the job.  [default: random]")
@click.option("--compare", is_flag=True, help="Wait, and show how the predictions differ from those answered then.")
@broker_options
def replay(
    *, since: datetime, until: datetime | None, target: Target, compare: bool, **options: str | int | None
) -> None:
    """Score past requests to a model again, as a job. No worker is stopped, and no offset is moved.

    The requests are those to the same model, whatever version or alias they named. --compare reads the results and, if
    there are labels, tells which version was better.
    """

    async def run() -> Replayed:
        async with target.client() as client:
            return await client.replay(
                since=since, until=until, compare=compare, on_progress=report, **options  # type: ignore[arg-type]
            )  # fmt: skip

    done = run_with_broker(target.connection, run)
    if target.output == "json":
        write_json(done)
        return
    if done.skipped:
        report(f"{done.skipped:,} requests could not be decoded, and were left out")
    if done.comparison is None:
        write_table(("job", "requests", "rows"), [(done.job_id, done.requests, done.rows)])
        report(f"results: inferd jobs results {done.job_id}")
        return
    write_table(("figure", "value"), [("job", done.job_id), ("requests", done.requests), *_facts(done.comparison)])


def _facts(found: Comparison) -> Iterator[tuple[str, object]]:
    yield "rows compared", found.rows
    yield "without an earlier prediction", found.missing
    yield "that failed now", found.failed
    if found.equal is not None:
        yield "equal predictions", f"{100 * found.equal:.2f} %"
    for name, value in found.differences.items():
        yield f"difference {name}", f"{value:.6g}"
    if found.mean_shift is not None:
        yield "mean of new minus old", f"{found.mean_shift:.6g}"
    if found.labelled:
        yield "labelled rows", found.labelled
    if found.auc_before is not None and found.auc_after is not None:
        yield "AUC then", f"{found.auc_before:.4f}"
        yield "AUC now", f"{found.auc_after:.4f}"

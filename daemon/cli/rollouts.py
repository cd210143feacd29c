"""`inferd rollouts`: gives a new version its requests step by step, and takes them away when a guard is breached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import EXIT_FAILED, report, write_json, write_result, write_table
from inferd.daemon.cli.session import run_with_broker
from inferd.schemas.errors import InvalidValueError
from inferd.schemas.models import CHAMPION, AliasKey, alias_text
from inferd.schemas.requests import ModelReference
from inferd.schemas.rollouts import (
    REQUESTS_MIN,
    Measure,
    Rollout,
    RolloutEvent,
    RolloutStatus,
    parse_guard,
    parse_guards,
    parse_steps,
)

if TYPE_CHECKING:
    from inferd.client import Client

T = TypeVar("T")
COLUMNS = ("model", "alias", "to", "phase", "step", "requests", "started", "why")
DEFAULT_STEPS = "1%:30m,10%:2h,50%:2h,100%"


def _by_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--by", "changed_by", help="Who does it, for the history.  [default: USER@HOST]")(command)


def _parse_steps(_ctx: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    try:
        return [str(step) for step in parse_steps(text)]
    except InvalidValueError as error:
        raise click.BadParameter(error.message, param=parameter) from None


def _parse_guards(_ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> list[str]:
    try:
        return [str(guard) for guard in parse_guards(texts)]
    except InvalidValueError as error:
        raise click.BadParameter(error.message, param=parameter) from None


@click.group(epilog="Example: inferd rollouts start churn --to 4 --steps 1%:30m,10%:2h,100% --guard 'errors < 0.5%'")
def rollouts() -> None:
    """Roll out a version in steps, with automatic rollback if a guard is breached.

    Exit codes: 0 success, 1 failure (watch: the rollout ended otherwise than promoted), 2 wrong usage, 3 broker
    unreachable.
    """


@rollouts.command(
    epilog="""\b
Examples:
  inferd rollouts start churn --to 4 --steps 1%:30m,10%:2h,50%:2h,100% --guard 'errors < 0.5%' --guard 'p99 < 1.5x'
  inferd rollouts start churn@canary --to 4 --steps 10%:10m:5000,100% --watch"""
)
@click.argument("reference", metavar="NAME[@ALIAS]")
@click.option("--to", type=click.IntRange(1), required=True, metavar="VERSION", help="The new version.")
@click.option(
    "--steps", default=DEFAULT_STEPS, show_default=True, callback=_parse_steps, metavar="SHARE:TIME[:REQUESTS],…",
    help="Share of the requests, least time, least number of requests; shadow:TIME may come first, 100% is the last.",
)  # fmt: skip
@click.option(
    "--guard", "guards", multiple=True, callback=_parse_guards, metavar="'METRIC < LIMIT'",
    help="What the new version must not exceed, such as 'errors < 0.5%', 'errors < champion + 1%', 'p99 < 80ms',"
    " 'p99 < 1.5x', 'disagreement < 10%'; may be repeated.",
)  # fmt: skip
@click.option(
    "--requests-min", type=click.IntRange(0), default=REQUESTS_MIN, show_default=True,
    help="Requests that the new version must have had in each step that names no number.",
)  # fmt: skip
@click.option(
    "--guard-requests-min", type=click.IntRange(1), default=REQUESTS_MIN, show_default=True,
    help="Requests of the new version in a step before a guard can be breached.",
)  # fmt: skip
@click.option("--revision", type=click.IntRange(0), help="Fail if the alias has another revision than this one.")
@click.option("--watch", "watched", is_flag=True, help="Wait until the rollout has ended.")
@_by_option
@broker_options
@click.pass_context
def start(ctx: click.Context, /, reference: str, target: Target, watched: bool, **options: Any) -> None:
    """Start a rollout: NAME@ALIAS (default: champion) moves from the version it points at to --to.

    While it runs, anybody else's change of the alias ends it, and is kept.
    """
    key = _key(reference)
    status = _run(target, lambda client: client.rollouts.start(key.model_id, alias=key.alias, **options))
    _write(target, status)
    if not options["guards"]:
        report("the rollout has no guards: nothing but `inferd rollouts abort` rolls it back")
    if watched:
        _watch(ctx, target, key.model_id)
    else:
        report(f"watch it: inferd rollouts watch {key.model_id}")


@rollouts.command("list", epilog="Example: inferd rollouts list --output json")
@broker_options
def list_rollouts(target: Target) -> None:
    """List the newest rollout of each model."""
    found = _run(target, lambda client: client.rollouts.list())
    write_result(target.output, list(found.values()), COLUMNS, [_row(status) for status in found.values()])


@rollouts.command(epilog="Example: inferd rollouts status churn")
@click.argument("name")
@broker_options
def status(name: str, target: Target) -> None:
    """Show the newest rollout of the model NAME: its guards, what they measured, and what happened."""
    found = _run(target, lambda client: client.rollouts.status(name))
    if target.output == "json":
        write_json(found)
        return
    write_table(("field", "value"), _facts(found))


@rollouts.command(epilog="Example: inferd rollouts watch churn")
@click.argument("name")
@broker_options
@click.pass_context
def watch(ctx: click.Context, name: str, target: Target) -> None:
    """Watch the rollout of the model NAME until it has ended, and show its last status.

    Progress goes to standard error. Exit code 1 unless it was promoted.
    """
    _watch(ctx, target, name)


@rollouts.command(epilog="Example: inferd rollouts pause churn")
@click.argument("name")
@_by_option
@broker_options
def pause(name: str, changed_by: str | None, target: Target) -> None:
    """Stay in the running step. Guards still roll back."""
    _write(target, _run(target, lambda client: client.rollouts.pause(name, changed_by=changed_by)))


@rollouts.command(epilog="Example: inferd rollouts resume churn")
@click.argument("name")
@_by_option
@broker_options
def resume(name: str, changed_by: str | None, target: Target) -> None:
    """Go on after a pause."""
    _write(target, _run(target, lambda client: client.rollouts.resume(name, changed_by=changed_by)))


@rollouts.command(epilog="Example: inferd rollouts promote churn")
@click.argument("name")
@_by_option
@broker_options
def promote(name: str, changed_by: str | None, target: Target) -> None:
    """Give all requests to the new version now, and end the rollout."""
    _write(target, _run(target, lambda client: client.rollouts.promote(name, changed_by=changed_by)))


@rollouts.command(epilog="Example: inferd rollouts abort churn")
@click.argument("name")
@_by_option
@broker_options
def abort(name: str, changed_by: str | None, target: Target) -> None:
    """Return the alias to what it was before the start, and end the rollout; also after it was promoted."""
    _write(target, _run(target, lambda client: client.rollouts.abort(name, changed_by=changed_by)))


def _run(target: Target, use: Callable[[Client], Awaitable[T]]) -> T:
    async def run() -> T:
        async with target.client() as client:
            return await use(client)

    return run_with_broker(target.connection, run)


def _watch(ctx: click.Context, target: Target, name: str) -> None:
    last: RolloutStatus | None = None

    async def follow(client: Client) -> None:
        nonlocal last
        shown: list[RolloutEvent] = []
        async for each in client.rollouts.watch(name):
            last = each
            for event in each.rollout.events if each.rollout is not None else ():
                if event not in shown:
                    shown.append(event)
                    report(f"{_time(event.at)}  {_event(event)}")
            if each.rollout is not None and not each.rollout.ended:
                report(f"{_time(each.at)}  {_progress(each)}")

    _run(target, follow)
    assert last is not None, "the newest status is always shown"
    _write(target, last)
    if last.rollout is None or last.rollout.phase != "promoted":
        ctx.exit(EXIT_FAILED)


def _write(target: Target, status: RolloutStatus) -> None:
    write_result(target.output, status, COLUMNS, [_row(status)])


def _key(reference: str) -> AliasKey:
    parsed = ModelReference.parse(reference)
    if parsed.version is not None:
        raise click.UsageError(f"{reference}: expected NAME or NAME@ALIAS; the new version is --to")
    return AliasKey(parsed.name, parsed.alias or CHAMPION)


def _row(status: RolloutStatus) -> list[object]:
    rollout = status.rollout
    if rollout is None:
        return [None] * len(COLUMNS)
    return [
        rollout.model_id, rollout.alias, rollout.version, rollout.phase, rollout.steps[rollout.step], status.requests,
        _time(rollout.started_at), _why(rollout),
    ]  # fmt: skip


def _why(rollout: Rollout) -> str | None:
    """Why it ended, if it was neither promoted nor aborted."""
    if (breach := rollout.breach) is not None:
        measured = _amount(breach.guard, breach.value)
        return f"{breach.guard} was {measured} after {breach.requests} requests in the step {breach.step}"
    if rollout.superseded_by is not None:
        return f"the alias was changed by {rollout.superseded_by}"
    return None


def _facts(status: RolloutStatus) -> Iterator[tuple[str, object]]:
    yield from zip(COLUMNS, _row(status), strict=True)
    if (rollout := status.rollout) is None:
        return
    yield "steps", ", ".join(rollout.steps)
    yield "before", alias_text(rollout.base)
    yield "id", rollout.id
    for measure in status.measures:
        yield f"guard {measure.guard}", _measured(measure)
    for event in rollout.events:
        yield _time(event.at), _event(event)


def _progress(status: RolloutStatus) -> str:
    rollout = status.rollout
    assert rollout is not None, "it is running"
    measured = ", ".join(f"{measure.guard}: {_measured(measure)}" for measure in status.measures)
    return f"{rollout.phase} {rollout.steps[rollout.step]}, {status.requests} requests; {measured or 'no guards'}"


def _measured(measure: Measure) -> str:
    if measure.value is None or measure.limit is None:
        return "not enough requests yet"
    return f"{_amount(measure.guard, measure.value)} (limit {_amount(measure.guard, measure.limit)})"


def _amount(guard: str, value: float) -> str:
    metric = parse_guard(guard).metric
    if metric in ("errors", "disagreement"):
        return f"{100 * value:.3g} %"
    return f"{value:.3g} ms" if metric in ("p50", "p95", "p99") else f"{value:.3g}"


def _event(event: RolloutEvent) -> str:
    revision = f" (revision {event.revision})" if event.revision is not None else ""
    return f"{event.what}{revision}{f' by {event.by}' if event.by else ''}"


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1_000, UTC).isoformat(timespec="seconds")

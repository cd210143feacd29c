"""`inferd pause`, `resume` and `pauses`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import report, write_result
from inferd.daemon.cli.session import run_with_broker
from inferd.schemas.models import Pause, PauseKey

if TYPE_CHECKING:
    from inferd.client import Client

T = TypeVar("T")
COLUMNS = ("paused", "name", "since", "by", "reason")


def _options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--by", "changed_by", help="Who does it, for the audit.  [default: USER@HOST]")(command)
    command = click.option("--route", help="The route.")(command)
    return click.option("--model", help="The model, without a version.")(command)


@click.command(epilog="Example: inferd pause --model churn --reason 'its features are wrong since 3:10'")
@_options
@click.option("--reason", help="Shown in /status and by `inferd pauses`.")
@broker_options
def pause(model: str | None, route: str | None, reason: str | None, changed_by: str | None, target: Target) -> None:
    """Let the requests and chunks of --model wait, or the records of --route.

    They stay in their topics until `inferd resume`, also if workers restart, and their results follow then. Later
    requests of the same partition wait, too. Requests over HTTP fail with model_not_ready.
    """
    _check(model, route)
    done = _run(
        target, lambda client: client.pause(model=model, route=route, reason=reason, changed_by=changed_by)
    )  # fmt: skip
    key = PauseKey("route", route) if route is not None else PauseKey("model", model or "")
    _write(target, {key: done})


@click.command(epilog="Example: inferd resume --model churn")
@_options
@broker_options
def resume(model: str | None, route: str | None, changed_by: str | None, target: Target) -> None:
    """Process what waits since `inferd pause`."""
    _check(model, route)
    if not _run(target, lambda client: client.resume(model=model, route=route, changed_by=changed_by)):
        report("it was not paused")


@click.command(epilog="Example: inferd pauses --output json")
@broker_options
def pauses(target: Target) -> None:
    """List the models and routes that are paused."""
    found = _run(target, lambda client: client.pauses())
    if not found and target.output == "table":
        report("nothing is paused")
    _write(target, found)


def _check(model: str | None, route: str | None) -> None:
    if (model is None) == (route is None):
        raise click.UsageError("give either --model or --route")


def _run(target: Target, use: Callable[[Client], Awaitable[T]]) -> T:
    async def run() -> T:
        async with target.client() as client:
            return await use(client)

    return run_with_broker(target.connection, run)


def _write(target: Target, found: dict[PauseKey, Pause]) -> None:
    shown = [
        {"kind": key.kind, "name": key.name, "at": each.at, "by": each.by, "reason": each.reason}
        for key, each in found.items()
    ]
    rows = [(key.kind, key.name, _time(each.at), each.by, each.reason) for key, each in found.items()]
    write_result(target.output, shown, COLUMNS, rows)


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1_000, UTC).isoformat(sep=" ", timespec="seconds")

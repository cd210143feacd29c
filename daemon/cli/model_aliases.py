"""`inferd models alias`, `aliases`, `rollback` and `promote`: moves aliases, and shows their history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import report, write_result
from inferd.daemon.cli.session import run_with_broker
from inferd.schemas.errors import InvalidIdError
from inferd.schemas.models import (
    Alias,
    AliasKey,
    AliasRevision,
    AliasTarget,
    NoEarlierTargetError,
    SplitShare,
    alias_text,
    check_model_name,
    earlier_target,
    revisions,
)
from inferd.schemas.requests import ModelReference

if TYPE_CHECKING:
    from inferd.client import Client

COLUMNS = ("alias", "revision", "target", "changed", "by", "what")


class SharesType(click.ParamType):
    """`VERSION`, or `VERSION=WEIGHT`."""

    name = "version[=weight]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> SplitShare:
        """One share of a split; a version alone has the weight 1."""
        version, equals, weight = str(value).partition("=")
        try:
            return SplitShare(int(version), float(weight) if equals else 1.0)
        except ValueError:
            self.fail(f"{value!r} is neither VERSION nor VERSION=WEIGHT", param, ctx)


def author_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --revision and --by."""
    command = click.option(
        "--revision", type=click.IntRange(0), help="Fail if the alias has another revision than this one."
    )(command)
    return click.option("--by", "changed_by", help="Who changes it, for the history.  [default: USER@HOST]")(command)


@click.command(epilog="Example: inferd models alias churn@champion 3, or a split: inferd models alias churn 3=90 4=10")
@click.argument("reference", metavar="NAME[@ALIAS]")
@click.argument("shares", metavar="VERSION[=WEIGHT]...", type=SharesType(), nargs=-1, required=True)
@click.option(
    "--shadow", metavar="VERSION", type=click.IntRange(1), multiple=True,
    help="A version that scores the requests after they are answered; repeatable.",
)  # fmt: skip
@author_options
@broker_options
def alias(
    reference: str,
    shares: tuple[SplitShare, ...],
    shadow: tuple[int, ...],
    revision: int | None,
    changed_by: str | None,
    target: Target,
) -> None:
    """Point NAME@ALIAS (default: champion) at a version, or split its requests between several.

    Weights are relative. Without --shadow the alias has no shadow versions afterwards. If somebody else changes the
    alias at the same time, one of the two fails.
    """
    key = _key(reference)
    to = AliasTarget(
        version=shares[0].version if len(shares) == 1 else None,
        split=list(shares) if len(shares) > 1 else None,
        shadow=list(shadow) or None,
    )
    _change(
        target,
        key,
        lambda client: client.set_alias(key.model_id, key.alias, to, revision=revision, changed_by=changed_by),
    )


@click.command(epilog="Example: inferd models aliases churn")
@click.argument("name")
@broker_options
def aliases(name: str, target: Target) -> None:
    """List the aliases of NAME with their history: target, revision, when it changed, and by whom.

    The newest 20 earlier revisions of each alias are kept. The history of a removed alias is kept, too.
    """
    check_model_name(name)

    async def run() -> dict[str, Alias]:
        async with target.client() as client:
            models = await client.models()
            logs = {key.alias: log.newest for key, log in sorted(models.alias_logs.items(), key=str)
                    if key.model_id == name}  # fmt: skip
            return {alias: newest for alias, newest in logs.items() if newest is not None}

    found = run_with_broker(target.connection, run)
    write_result(target.output, found, COLUMNS, _rows(found))


@click.command(epilog="Example: inferd models rollback churn@champion")
@click.argument("reference", metavar="NAME[@ALIAS]")
@author_options
@broker_options
def rollback(reference: str, revision: int | None, changed_by: str | None, target: Target) -> None:
    """Point NAME@ALIAS (default: champion) at what it pointed at before its last change.

    Called again, it undoes the change before that one, and so on. It never returns to a target that was rolled back:
    set that with `inferd models alias`.
    """
    key = _key(reference)
    changed = _change(
        target,
        key,
        lambda client: client.rollback_alias(key.model_id, key.alias, revision=revision, changed_by=changed_by),
    )
    report(f"{key} points at {alias_text(changed)} again, as in revision {changed.restores}; {_next(key, changed)}")


@click.command(epilog="Example: inferd models promote churn@challenger --to champion")
@click.argument("reference", metavar="NAME@ALIAS")
@click.option("--to", required=True, help="The alias to change.")
@author_options
@broker_options
def promote(reference: str, to: str, revision: int | None, changed_by: str | None, target: Target) -> None:
    """Point the alias --to at what NAME@ALIAS points at."""
    source = _key(reference)
    key = AliasKey(source.model_id, check_model_name(to))
    _change(
        target,
        key,
        lambda client: client.promote_alias(
            source.model_id, source.alias, to, revision=revision, changed_by=changed_by
        ),
    )


COMMANDS = (alias, aliases, rollback, promote)


def _change(target: Target, key: AliasKey, change: Callable[[Client], Awaitable[Alias]]) -> Alias:
    async def run() -> Alias:
        async with target.client() as client:
            return await change(client)

    changed = run_with_broker(target.connection, run)
    write_result(target.output, changed, COLUMNS, [_row(key.alias, changed)])
    return changed


def _key(reference: str) -> AliasKey:
    parsed = ModelReference.parse(reference)
    if parsed.version is not None:
        raise InvalidIdError(f"{reference} is a version: expected NAME@ALIAS")
    return AliasKey(parsed.name, parsed.alias or "champion")


def _rows(found: dict[str, Alias]) -> Iterator[tuple[object, ...]]:
    for name, newest in found.items():
        for number, revision in enumerate(revisions(newest)):
            yield _row(name if number == 0 else "", revision)


def _row(name: str, revision: AliasRevision) -> tuple[object, ...]:
    what = f"rollback to revision {revision.restores}" if revision.restores is not None else None
    text = "removed" if revision.removed else alias_text(revision)
    return name, revision.revision, text, revision.changed_at, revision.changed_by, what


def _next(key: AliasKey, changed: Alias) -> str:
    try:
        return f"another rollback leads to {alias_text(earlier_target(key, changed))}"
    except NoEarlierTargetError:
        return "there is nothing before it"

"""Changes of aliases beside any number of other clients: the first change of a revision in the log wins."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from inferd.models.model_list import ModelList, check_alias_target
from inferd.schemas.errors import VersionNotFoundError
from inferd.schemas.limits import Limits
from inferd.schemas.models import (
    Alias,
    AliasChangedError,
    AliasChangeKey,
    AliasKey,
    AliasTarget,
    alias_text,
    earlier_target,
    encode_alias,
    next_revision,
    target_of,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What an alias is changed to; `target` None removes it. `restores`: the revision that a rollback restores."""

    target: AliasTarget | None
    restores: int | None = None


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes an alias, and the revision that they know; None if they change whatever there is."""

    name: str | None = None
    revision: int | None = None


class AliasTopic(Protocol):
    """The `models` topic of a tenant."""

    async def read(self, timeout_s: float) -> ModelList:
        """The models, from the whole log: everything that was acknowledged before the call."""

    async def write_changes(self, changes: dict[AliasChangeKey, bytes | None]) -> None:
        """Write records in order; returns once all are acknowledged."""


Decide = Callable[[ModelList, Alias | None], Decision]
"""Decides by the models, and the newest revision of the alias."""


class AliasChanges:
    """Changes aliases of one tenant."""

    def __init__(self, topic: AliasTopic, limits: Limits, now: Callable[[], float]) -> None:
        """`now`: Unix time in seconds."""
        self._topic, self._limits, self._now = topic, limits, now

    async def set(self, key: AliasKey, target: AliasTarget, author: Author, timeout_s: float) -> Alias:
        """Points the alias at `target`; see `Client.set_alias`."""

        def decide(models: ModelList, _newest: Alias | None) -> Decision:
            check_alias_target(models, key, target)
            return Decision(target_of(target))

        return await self._change(key, decide, author, timeout_s)

    async def rollback(self, key: AliasKey, author: Author, timeout_s: float) -> Alias:
        """Points the alias at its earlier target; see `Client.rollback_alias`."""

        def decide(models: ModelList, newest: Alias | None) -> Decision:
            if newest is None:
                raise _no_alias(key)
            earlier = earlier_target(key, newest)
            check_alias_target(models, key, earlier)
            return Decision(target_of(earlier), restores=earlier.revision)

        return await self._change(key, decide, author, timeout_s)

    async def promote(self, source: AliasKey, key: AliasKey, author: Author, timeout_s: float) -> Alias:
        """Points the alias `key` at what `source` points at; see `Client.promote_alias`."""

        def decide(models: ModelList, _newest: Alias | None) -> Decision:
            if source not in models.aliases:
                raise _no_alias(source)
            target = target_of(models.aliases[source])
            check_alias_target(models, key, target)
            return Decision(target)

        return await self._change(key, decide, author, timeout_s)

    async def remove(self, key: AliasKey, author: Author, timeout_s: float) -> Alias:
        """Removes the alias; its history is kept."""
        return await self._change(key, lambda _models, _newest: Decision(None), author, timeout_s)

    async def _change(self, key: AliasKey, decide: Decide, author: Author, timeout_s: float) -> Alias:
        """The alias after the change; `AliasChangedError` if somebody else has changed it since it was read."""
        models = await self._topic.read(timeout_s)
        newest = models.newest_revision(key)
        known = 0 if newest is None else newest.revision
        if author.revision is not None and author.revision != known:
            raise _changed(key, newest, f"it has revision {known}, not {author.revision}")
        decision = decide(models, newest)
        if newest is not None and target_of(newest) == (decision.target or AliasTarget()):
            return newest
        changed_at = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")
        changed = next_revision(newest, decision.target, changed_at, author.name or default_author(), decision.restores)
        change = AliasChangeKey.new(key)
        await self._topic.write_changes({change: encode_alias(changed, limits=self._limits)})
        models = await self._topic.read(timeout_s)
        log = models.alias_logs.get(key)
        if log is None or change not in log.counted:
            await self._topic.write_changes({change: None})
            raise _changed(key, models.newest_revision(key), f"revision {changed.revision} is another change")
        await self._topic.write_changes(dict.fromkeys(log.before(change)))
        return changed


def default_author() -> str:
    """The user and the machine that this process runs on."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # no name for the user id
        return socket.gethostname()


def _no_alias(key: AliasKey) -> VersionNotFoundError:
    return VersionNotFoundError(f"model {key.model_id!r} has no alias {key.alias!r}")


def _changed(key: AliasKey, newest: Alias | None, why: str) -> AliasChangedError:
    there = "it was never set" if newest is None else "it was removed" if newest.removed else alias_text(newest)
    by = f" by {newest.changed_by}" if newest is not None and newest.changed_by else ""
    return AliasChangedError(f"{key} was changed in the meantime: {why}; now: {there}{by}. Nothing was changed")

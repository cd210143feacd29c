"""Changes of an alias: its next revision, and which of concurrent changes count. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from inferd.schemas.models.errors import NoEarlierTargetError
from inferd.schemas.models.model import Alias, AliasChangeKey, AliasKey, AliasRevision, AliasTarget

HISTORY_MAX = 20
"""Earlier revisions that an alias keeps."""
HISTORY_SHARES_MAX = 1_000
"""Versions that all of them may name: older ones with large splits are dropped first."""
CHANGED_BY_CHARS_MAX = 128


def target_of(alias: AliasTarget) -> AliasTarget:
    """What an alias or one of its revisions points at, without the rest."""
    return AliasTarget(alias.version, alias.split, alias.shadow)


def next_revision(
    current: Alias | None,
    target: AliasTarget | None,
    changed_at: str,
    changed_by: str | None,
    restores: int | None = None,
) -> Alias:
    """The alias after a change of `current`, its newest revision if there is one. `target` None removes the alias."""
    target = target or AliasTarget()
    return Alias(
        target.version,
        target.split,
        target.shadow,
        revision=(current.revision if current is not None else 0) + 1,
        changed_at=changed_at,
        changed_by=changed_by[:CHANGED_BY_CHARS_MAX] if changed_by else None,
        restores=restores,
        removed=target == AliasTarget(),
        history=_bounded([newest_of(current), *(current.history or ())]) if current is not None else None,
    )


def newest_of(alias: Alias) -> AliasRevision:
    """The newest revision, without the earlier ones."""
    fields = {name: getattr(alias, name) for name in AliasRevision.__struct_fields__}
    return AliasRevision(**fields)


def without_history(aliases: Mapping[str, Alias]) -> dict[str, Alias]:
    """The aliases without their earlier revisions."""
    return {name: msgspec.structs.replace(alias, history=None) for name, alias in aliases.items()}


def revisions(alias: Alias) -> list[AliasRevision]:
    """All known revisions, newest first."""
    return [newest_of(alias), *(alias.history or ())]


def earlier_target(key: AliasKey, alias: Alias) -> AliasRevision:
    """The revision that a rollback restores: the one before the newest change that was not rolled back.

    Rollbacks undo one change after the other, as undo does in an editor, and never return to what was rolled back.
    `NoEarlierTargetError` if no earlier revision is known.
    """
    history = alias.history or []
    known = {each.revision: each for each in reversed(history)}
    uncounted = bool(history) and history[0].revision == alias.revision
    at = alias.restores if alias.restores is not None else alias.revision + uncounted
    while (at := at - 1) in known:
        found = known[at]
        if found.restores is not None:
            at = found.restores
            found = known.get(at, found)
        if not found.removed and target_of(found) != target_of(alias):
            return msgspec.structs.replace(found, revision=at)
    raise NoEarlierTargetError(
        f"{key} has no earlier target that is known (revision {alias.revision}, and {len(history)} earlier"
        " ones): set it with `inferd models alias`"
    )


@dataclass(slots=True)
class AliasLog:
    """An alias according to the records of `models`, applied in the order of the log.

    Each change has a key of its own and says which revision it is. It counts if its revision is higher than that of the
    last change that counted: of two changes made at the same time, the first in the log wins, and everybody who reads
    the log sees the same one. The author of a change that counts may delete all earlier changes, since none of them can
    decide anything after it: whatever part of them a reader still sees, the revision after it is the same.

    A record under the key of the alias itself, without revisions, counts always: other programs write these.
    """

    changed: Alias | None = None
    """The last change that counted."""
    plain: Alias | None = None
    """The last record under the key of the alias itself, if it came after that."""
    pending: dict[AliasChangeKey, None] = field(default_factory=dict)
    """Changes that were not deleted, in the order of the log."""
    counted: set[AliasChangeKey] = field(default_factory=set)
    """Changes that counted when they were read."""

    def apply(self, key: AliasKey | AliasChangeKey, alias: Alias | None) -> None:
        """Apply one record; None is a tombstone."""
        if isinstance(key, AliasKey):
            self.plain = alias
        elif alias is None:
            self.pending.pop(key, None)
        else:
            self.pending[key] = None
            if self.changed is None or alias.revision > self.changed.revision:
                self.changed, self.plain = alias, None
                self.counted.add(key)

    @property
    def newest(self) -> Alias | None:
        """The newest revision with those before it; that of a removal, too."""
        plain, changed = self.plain, self.changed
        if plain is None or changed is None:
            return plain or changed
        history = _bounded([newest_of(changed), *(changed.history or ())])
        return Alias(plain.version, plain.split, plain.shadow, revision=changed.revision, history=history)

    @property
    def current(self) -> Alias | None:
        """The alias; None if there is none, or none any longer."""
        newest = self.newest
        return None if newest is None or newest.removed else newest

    def before(self, key: AliasChangeKey) -> list[AliasChangeKey]:
        """The changes before `key`: they can be deleted once it counted."""
        pending = list(self.pending)
        return pending[: pending.index(key)] if key in self.pending else []


def _bounded(history: list[AliasRevision]) -> list[AliasRevision]:
    kept: list[AliasRevision] = []
    shares = 0
    for revision in history[:HISTORY_MAX]:
        shares += 1 + len(revision.split or ()) + len(revision.shadow or ())
        if kept and shares > HISTORY_SHARES_MAX:
            break
        kept.append(revision)
    return kept

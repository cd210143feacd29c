"""The history of an alias: which of concurrent changes count, what is left of them, and what a rollback restores."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.codec import decode_alias, encode_alias
from inferd.schemas.errors import InvalidValueError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import (
    HISTORY_MAX,
    Alias,
    AliasChangeKey,
    AliasKey,
    AliasLog,
    AliasRevision,
    AliasTarget,
    NoEarlierTargetError,
    SplitShare,
    check_alias,
    earlier_target,
    next_revision,
    revisions,
    target_of,
)

KEY = AliasKey("churn", "champion")


def changed(alias: Alias | None, version: int | None, restores: int | None = None) -> Alias:
    target = None if version is None else AliasTarget(version=version)
    return check_alias(next_revision(alias, target, "2026-11-30T08:00:00+00:00", "ana", restores))


def alias_of(*versions: int | None) -> Alias:
    alias: Alias | None = None
    for version in versions:
        alias = changed(alias, version)
    assert alias is not None
    return alias


def rolled_back(alias: Alias) -> Alias:
    earlier = earlier_target(KEY, alias)
    return changed(alias, earlier.version, earlier.revision)


def test_a_change_keeps_those_before_it() -> None:
    alias = alias_of(3, 4)
    assert (alias.version, alias.revision, alias.changed_by) == (4, 2, "ana")
    assert alias.history == [AliasRevision(version=3, revision=1, changed_at=alias.changed_at, changed_by="ana")]
    removed = changed(alias, None)
    assert (removed.removed, removed.revision, [each.version for each in revisions(removed)]) == (True, 3, [None, 4, 3])


def test_rollbacks_undo_one_change_after_the_other_and_never_return() -> None:
    alias = alias_of(1, 2, 3)
    alias = rolled_back(alias)
    assert (alias.version, alias.revision, alias.restores) == (2, 4, 2)
    alias = rolled_back(alias)
    assert (alias.version, alias.restores) == (1, 1)
    with pytest.raises(NoEarlierTargetError, match="churn@champion"):
        rolled_back(alias)
    again = rolled_back(changed(alias, 7))
    assert (again.version, again.restores) == (1, 1), "what was there before 7"


def test_a_rollback_skips_removals_and_equal_targets() -> None:
    assert rolled_back(alias_of(1, 2, None)).version == 2
    with pytest.raises(NoEarlierTargetError):
        rolled_back(alias_of(1, None, 1))


@given(st.lists(st.one_of(st.integers(1, 9), st.just("rollback")), min_size=1, max_size=15))
def test_a_rollback_is_undo(steps: list[int | str]) -> None:
    alias, undo = changed(None, 10), [10]
    for step in steps:
        if isinstance(step, int):
            if step != alias.version:
                alias = changed(alias, step)
                undo.append(step)
        elif len(undo) > 1:
            alias = rolled_back(alias)
            undo.pop()
        else:
            with pytest.raises(NoEarlierTargetError):
                rolled_back(alias)
        assert alias.version == undo[-1]


def test_the_history_is_bounded() -> None:
    alias = alias_of(*range(1, 100))
    assert [each.revision for each in alias.history or ()] == list(range(98, 98 - HISTORY_MAX, -1))
    shares = [SplitShare(version, 1.0) for version in range(1, 901)]
    wide: Alias | None = None
    for weight in range(1, 6):
        target = AliasTarget(split=[SplitShare(each.version, float(weight)) for each in shares])
        wide = next_revision(wide, target, "2026-11-30T08:00:00+00:00", "x" * 1_000)
    assert wide is not None
    assert len(wide.history or ()) == 1
    assert len(encode_alias(wide)) < DEFAULT_LIMITS.manifest_bytes_max
    assert len(wide.changed_by or "") == 128


@pytest.mark.parametrize(
    "alias",
    [
        Alias(revision=1),
        Alias(version=1, revision=-1),
        Alias(version=1, removed=True),
        Alias(version=1, changed_by="x" * 129),
        Alias(version=1, history=[AliasRevision()]),
        Alias(version=1, history=[AliasRevision(version=0)]),
        Alias(version=1, history=[AliasRevision(version=1)] * (HISTORY_MAX + 1)),
    ],
)
def test_invalid_histories_are_rejected(alias: Alias) -> None:
    with pytest.raises(InvalidValueError):
        check_alias(alias)


def test_a_record_without_revision_is_an_alias_as_before() -> None:
    log = AliasLog()
    log.apply(KEY, decode_alias(b"\x81\xa7version\x03"))
    assert log.current == Alias(version=3)
    assert changed(log.newest, 4).history == [AliasRevision(version=3)]
    log.apply(KEY, None)
    assert log.current is log.newest is None


def test_a_record_of_another_program_counts_and_its_tombstone_brings_back_what_was_before() -> None:
    log, change = AliasLog(), AliasChangeKey.new(KEY)
    log.apply(change, alias_of(1, 2))
    log.apply(KEY, Alias(version=9))
    assert log.current is not None
    assert (log.current.version, log.current.revision) == (9, 2)
    assert earlier_target(KEY, log.current).version == 2
    log.apply(KEY, None)
    assert log.current == alias_of(1, 2)
    log.apply(KEY, Alias(version=9))
    log.apply(AliasChangeKey.new(KEY), changed(log.newest, 3))
    log.apply(KEY, None)
    assert log.current is not None
    assert (log.current.version, [each.version for each in log.current.history or ()]) == (3, [9, 2, 1])


@given(st.randoms(use_true_random=False))
def test_what_counts_does_not_depend_on_what_was_deleted(rng: random.Random) -> None:
    """Clients write changes of the revision that they read some time ago; winners delete earlier changes, and losers
    their own; a reader of any compacted log sees the same alias as one that has read all."""
    records: list[tuple[AliasKey | AliasChangeKey, Alias | None]] = []
    full, known = AliasLog(), list[Alias | None]([None])
    for number in range(rng.randrange(1, 40)):
        kind = rng.random()
        if kind < 0.1:
            record: tuple[AliasKey | AliasChangeKey, Alias | None] = (KEY, Alias(version=1_000 + number))
        else:
            base = known[-1] if kind < 0.5 else rng.choice(known)
            record = (AliasChangeKey.new(KEY), changed(base, number + 1 if rng.random() < 0.9 else None))
        records.append(record)
        full.apply(*record)
        if isinstance(record[0], AliasChangeKey) and rng.random() < 0.7:  # otherwise its author dies
            gone = full.before(record[0]) if record[0] in full.counted else [record[0]]
            for each in gone:
                records.append((each, None))
                full.apply(each, None)
        known.append(full.newest)
    last = {str(key): place for place, (key, _) in enumerate(records)}
    clean = rng.randrange(len(records) + 1)  # compaction has reached this record
    compacted = AliasLog()
    for place, (key, alias) in enumerate(records):
        later = last[str(key)]
        if place >= clean or (later == place and alias is not None):
            compacted.apply(key, alias)
    assert compacted.newest is not None
    assert full.newest is not None
    assert (target_of(compacted.newest), compacted.newest.revision) == (target_of(full.newest), full.newest.revision)

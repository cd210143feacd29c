"""Transitions of rollouts: single ones, and a stateful test against a simple model of the log.

In the model, owners die before and after each commit, read the log with any delay, and others change the alias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd.schemas.errors import InvalidValueError, ModelNotReadyError, ModelServingError, VersionNotFoundError
from inferd.schemas.models import (
    Alias,
    AliasChangedError,
    AliasChangeKey,
    AliasKey,
    AliasLog,
    AliasTarget,
    SplitShare,
    earlier_target,
    next_revision,
    revisions,
    target_of,
)
from inferd.schemas.rollouts import (
    METRICS,
    AbortRollout,
    GuardUnavailableError,
    PauseRollout,
    PromoteRollout,
    ResumeRollout,
    Rollout,
    RolloutConflictError,
    RolloutMessage,
    RolloutNotFoundError,
    RolloutStatus,
    StartRollout,
    decode_rollout_status,
    encode_rollout_status,
)
from inferd.streams.rollouts import (
    Change,
    Compared,
    Figures,
    Terms,
    advance,
    author_of,
    is_settled,
    measures_of,
    target_of_rollout,
    tick,
)

KEY = AliasKey("m", "champion")
STEPS = ["shadow:10s", "1%:10s", "50%:10s:7", "100%:10s"]
GUARDS = ["errors < 10%", "p99 < 2x"]
GOOD = Compared(Figures(100, {"errors": 0.0, "p99": 5}), Figures(100, {"errors": 0.0, "p99": 5}))
FEW = Compared(Figures(5, {"errors": 1.0}), Figures(100, {"errors": 0.0}))
ERRORS = Compared(Figures(100, {"errors": 0.5, "p99": 5}), Figures(100, {"errors": 0.0, "p99": 5}))
SLOW = Compared(Figures(100, {"errors": 0.0, "p99": 50}), Figures(100, {"errors": 0.0, "p99": 5}))
SECOND = 1_000


def message_id(number: int) -> str:
    return f"{number:032x}"


def start(number: int = 1, **fields: object) -> StartRollout:
    given: dict[str, object] = {"steps": STEPS, "guards": GUARDS, "requests_min": 10, "guard_requests_min": 10}
    return StartRollout(id=message_id(number), **({"to": 4} | given | fields))  # type: ignore[arg-type]


def alias(version: int = 3, revision: int = 7) -> Alias:
    return Alias(version=version, revision=revision, changed_by="ana")


def terms(of: Alias | None, measured: Sequence[str] = METRICS) -> Terms:
    return Terms(of, {3, 4, 5, 6}, {3, 4, 5}, measured)  # type: ignore[arg-type]


@dataclass
class World:
    """One owner that reads the log at once."""

    log: AliasLog = field(default_factory=AliasLog)
    rollout: Rollout | None = None
    now_ms: int = 0

    def __post_init__(self) -> None:
        self.log.apply(AliasChangeKey.new(KEY), alias())

    def take(self, change: Change) -> Change:
        self.rollout = change.rollout
        for key, record in change.records.items():
            self.log.apply(key, record)
        return change

    def send(self, message: RolloutMessage) -> Change:
        return self.take(advance(self.rollout, "m", message, self.now_ms, terms(self.log.newest)))

    def tick(self, seconds: float = 0, compared: Compared = GOOD) -> Change:
        assert self.rollout is not None
        self.now_ms += round(seconds * SECOND)
        return self.take(tick(self.rollout, self.now_ms, self.log.newest, compared))

    @property
    def running(self) -> Rollout:
        assert self.rollout is not None
        return self.rollout

    @property
    def target(self) -> AliasTarget:
        newest = self.log.newest
        assert newest is not None
        return target_of(newest)


def started(**fields: Any) -> World:
    world = World()
    assert world.send(start(**fields)).rejection is None
    world.tick()
    return world


def test_a_good_version_is_promoted_step_by_step() -> None:
    world = started()
    seen = [world.target]
    for _ in range(4):
        world.tick(9)
        assert world.target == seen[-1], "no step ends before its time"
        world.tick(1)
        seen.append(world.target)
        world.tick()
    assert seen == [
        AliasTarget(version=3, shadow=[4]),
        AliasTarget(split=[SplitShare(3, 99), SplitShare(4, 1)]),
        AliasTarget(split=[SplitShare(3, 50), SplitShare(4, 50)]),
        AliasTarget(version=4),
        AliasTarget(version=4),
    ]
    assert world.running.phase == "promoted"
    assert is_settled(world.running)
    assert world.log.newest is not None
    assert world.log.newest.revision == 11


def test_a_step_lasts_until_it_had_its_requests() -> None:
    world = started(steps=["1%:1s", "10%:1s:500", "100%"], guards=[])
    few = Compared(Figures(9))
    world.tick(100, few)
    assert world.running.step == 0
    world.tick(1, Compared(Figures(10)))
    world.tick()
    world.tick(100, Compared(Figures(499)))
    assert world.running.step == 1
    world.tick(0, Compared(Figures(500)))
    world.tick(0, Compared())
    assert world.running.phase == "promoted"


@pytest.mark.parametrize("compared", [ERRORS, SLOW])
def test_a_breach_returns_the_alias_at_once_and_says_why(compared: Compared) -> None:
    world = started()
    world.tick(10)
    world.tick()
    before = world.log.newest
    change = world.tick(1, compared)
    assert len([record for record in change.records.values() if record is not None]) == 1
    assert world.running.phase == "rolled_back"
    assert world.target == AliasTarget(version=3)
    breach = world.running.breach
    assert breach is not None
    assert breach.step == "1%:10s"
    if compared is ERRORS:
        assert (breach.guard, breach.value, breach.limit, breach.champion) == ("errors < 10%", 0.5, 0.1, None)
    else:
        assert (breach.guard, breach.value, breach.limit, breach.champion) == ("p99 < 2x", 50, 10, 5)
    world.tick()
    assert is_settled(world.running)
    newest = world.log.newest
    assert newest is not None
    assert before is not None
    assert (newest.revision, newest.restores) == (before.revision + 1, 7)


def test_after_a_return_a_rollback_of_the_alias_leads_to_what_was_before_it() -> None:
    world = World()
    world.log = AliasLog()
    world.log.apply(AliasChangeKey.new(KEY), first := next_revision(None, AliasTarget(version=1), "", "ana"))
    world.log.apply(AliasChangeKey.new(KEY), next_revision(first, AliasTarget(version=3), "", "ana"))
    world.send(start())
    world.tick()
    world.tick(1, ERRORS)
    newest = world.log.newest
    assert newest is not None
    assert earlier_target(KEY, newest).version == 1


def test_few_requests_breach_nothing() -> None:
    world = started()
    world.tick(1, FEW)
    assert world.running.phase == "running"
    assert [(m.guard, m.value, m.limit) for m in measures_of(world.running, FEW)] == [
        ("errors < 10%", None, 0.1),
        ("p99 < 2x", None, None),
    ]


def test_a_breach_before_the_last_move_was_read_is_kept_and_returns_the_alias_later() -> None:
    world = World()
    world.send(start())
    stale = alias()
    world.take(tick(world.running, 1, stale, ERRORS))
    assert world.running.phase == "rolled_back"
    assert not is_settled(world.running)
    world.take(tick(world.running, 2, stale, GOOD))
    assert world.target == AliasTarget(version=3, shadow=[4]), "nothing is written before the last move was read"
    world.tick()
    assert world.target == AliasTarget(version=3)


def test_a_pause_stops_the_clock_and_not_the_guards() -> None:
    world = started()
    world.tick(6)
    world.send(PauseRollout(id=message_id(2)))
    world.tick(1_000)
    assert (world.running.phase, world.running.step) == ("paused", 0)
    assert world.send(PauseRollout(id=message_id(3))).rejection is None
    world.send(ResumeRollout(id=message_id(4)))
    world.tick(3)
    assert world.running.step == 0
    world.tick(1)
    assert world.running.step == 1
    world.tick()
    world.send(PauseRollout(id=message_id(5)))
    world.tick(1, ERRORS)
    assert world.running.phase == "rolled_back"


def test_while_the_model_is_paused_the_clock_stands_and_no_guard_is_looked_at() -> None:
    world = started()
    world.tick(6)
    held = world.running.step

    def tick_paused(seconds: float) -> None:
        world.now_ms += round(seconds * SECOND)
        world.take(tick(world.running, world.now_ms, world.log.newest, ERRORS, model_paused=True))

    tick_paused(1)
    tick_paused(1_000)
    assert (world.running.phase, world.running.step) == ("running", held)
    world.tick(0)
    world.tick(2)
    assert world.running.step == held, "9 of 10 seconds"
    world.tick(1)
    assert world.running.step == held + 1
    world.tick()
    tick_paused(1)
    world.send(PauseRollout(id=message_id(2)))
    tick_paused(1_000)
    world.send(ResumeRollout(id=message_id(3)))
    tick_paused(0)
    tick_paused(1_000)
    world.tick(0)
    world.tick(8)
    assert world.running.step == held + 1
    world.tick(2)
    assert world.running.step == held + 2


def test_promote_skips_the_rest_and_abort_takes_it_back() -> None:
    world = started()
    world.send(PromoteRollout(id=message_id(2), by="ana"))
    assert world.target == AliasTarget(version=4)
    world.tick()
    assert is_settled(world.running)
    world.send(AbortRollout(id=message_id(3)))
    assert (world.running.phase, world.target) == ("aborted", AliasTarget(version=3))
    assert [event.by for event in world.running.events if event.what == "promoted"] == ["ana"]


def test_anybody_elses_change_ends_it_and_is_kept() -> None:
    world = started()
    newest = world.log.newest
    world.log.apply(AliasChangeKey.new(KEY), next_revision(newest, AliasTarget(version=5), "", "bo"))
    for compared in (GOOD, ERRORS):
        world.tick(100, compared)
        assert (world.running.phase, world.target) == ("superseded", AliasTarget(version=5))
    assert world.running.superseded_by == "bo: 5"
    assert isinstance(world.send(AbortRollout(id=message_id(2))).rejection, RolloutConflictError)
    assert world.send(start(3)).rejection is None, "another one may start from there"
    assert world.running.base == AliasTarget(version=5)


def test_a_record_without_revision_ends_it_too() -> None:
    world = started()
    world.log.apply(KEY, Alias(version=4))
    world.tick()
    assert (world.running.phase, world.running.superseded_by) == ("superseded", "another program: 4")


def test_shadows_of_the_alias_stay() -> None:
    world = World()
    world.log.apply(
        AliasChangeKey.new(KEY), next_revision(world.log.newest, AliasTarget(version=3, shadow=[5, 4]), "", "")
    )
    world.send(start(steps=["shadow:1s", "100%"]))
    assert world.target == AliasTarget(version=3, shadow=[5, 4])
    world.tick()
    world.tick(1)
    assert world.target == AliasTarget(version=4, shadow=[5])


@pytest.mark.parametrize(
    ("fields", "of", "error", "says"),
    [
        ({}, None, VersionNotFoundError, "inferd models alias m@champion VERSION"),
        ({}, Alias(removed=True, revision=4), VersionNotFoundError, "has no alias"),
        ({}, Alias(split=[SplitShare(3, 1), SplitShare(5, 1)], revision=1), InvalidValueError, "is a split"),
        ({}, alias(4), InvalidValueError, "points at version 4 already"),
        ({}, alias(9), VersionNotFoundError, "no version 9"),
        ({"to": 6}, alias(), ModelNotReadyError, "m:6 is not loaded yet"),
        ({"revision": 6}, alias(), AliasChangedError, "revision 7, not 6"),
        ({"steps": ["100%"], "guards": ["disagreement < 1%"]}, alias(), GuardUnavailableError, "needs a shadow step"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(
    fields: dict[str, Any], of: Alias | None, error: type[ModelServingError], says: str
) -> None:
    change = advance(None, "m", start(**fields), 0, terms(of))
    assert isinstance(change.rejection, error)
    assert says in change.rejection.message
    assert (change.rollout, change.records) == (None, {})


@pytest.mark.parametrize("metric", METRICS)
def test_a_guard_that_nothing_measures_is_refused(metric: str) -> None:
    measured = [each for each in METRICS if each != metric]
    text = {"auc": "auc > 0.5", "psi": "psi < 1"}.get(metric, f"{metric} < 50%")
    text = text.replace("50%", "50ms") if metric.startswith("p") and metric != "psi" else text
    change = advance(None, "m", start(guards=[text]), 0, terms(alias(), measured))
    assert isinstance(change.rejection, GuardUnavailableError)
    assert "needs" in change.rejection.message


def test_messages_that_do_not_fit_the_phase_are_refused() -> None:
    message = PauseRollout(id=message_id(2))
    assert isinstance(advance(None, "m", message, 0, terms(alias())).rejection, RolloutNotFoundError)
    world = started()
    assert isinstance(world.send(start(2)).rejection, RolloutConflictError)
    other = PauseRollout(id=message_id(2), rollout=message_id(9))
    assert isinstance(world.send(other).rejection, RolloutConflictError)
    world.rollout = tick(world.running, 0, alias(), ERRORS).rollout
    assert isinstance(world.send(start(2)).rejection, RolloutConflictError), "it still returns the alias"
    world.tick()
    world.tick()
    assert world.send(start(2)).rejection is None
    for late in (PauseRollout, PromoteRollout, AbortRollout, ResumeRollout):
        world = started()
        world.tick(0, ERRORS)
        assert isinstance(world.send(late(id=message_id(2))).rejection, RolloutConflictError)


class Rollouts(RuleBasedStateMachine):
    """Owners that come and go, beside others who change the alias."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[AliasChangeKey, Alias | None]] = [(AliasChangeKey.new(KEY), alias())]
        self.read = 1
        self.stored: bytes | None = None
        self.now_ms = 0
        self.messages = 0
        self.breached: dict[str, AliasTarget] = {}
        """Rollouts of which a breach was stored, with what the alias was before them."""
        self.written: dict[str, list[AliasTarget]] = {}

    # ------------------------------------------------------------------ the simple model

    def view(self, records: int) -> AliasLog:
        log = AliasLog()
        for key, record in self.log[:records]:
            log.apply(key, record)
        return log

    @property
    def rollout(self) -> Rollout | None:
        return None if self.stored is None else decode_rollout_status(self.stored).rollout

    def commit(self, change: Change, dies: bool) -> None:
        """One transaction, or none of it."""
        if dies:
            return
        self.log += change.records.items()
        rollout = change.rollout
        self.stored = encode_rollout_status(RolloutStatus(rollout=rollout)) if rollout is not None else None
        if rollout is None:
            return
        if rollout.breach is not None:
            self.breached.setdefault(rollout.id, rollout.base)
        for record in change.records.values():
            if record is not None:
                self.written.setdefault(rollout.id, []).append(target_of(record))

    # ------------------------------------------------------------------ what happens

    @rule(
        kind=st.sampled_from([PauseRollout, ResumeRollout, PromoteRollout, AbortRollout]),
        dies=st.booleans(),
    )
    def send(self, kind: type[PauseRollout], dies: bool) -> None:
        self.messages += 1
        self.take(kind(id=message_id(self.messages)), dies)

    @rule(steps=st.sampled_from([STEPS, ["10%:5s", "100%"], ["100%"]]), dies=st.booleans())
    def start(self, steps: list[str], dies: bool) -> None:
        self.messages += 1
        to = 5 if self.messages % 2 else 4
        message = StartRollout(
            id=message_id(self.messages), to=to, steps=steps, guards=GUARDS, requests_min=10, guard_requests_min=10
        )
        self.take(message, dies)

    def take(self, message: RolloutMessage, dies: bool) -> None:
        change = advance(self.rollout, "m", message, self.now_ms, terms(self.view(self.read).newest))
        self.commit(change, dies)

    @precondition(lambda self: self.rollout is not None)
    @rule(compared=st.sampled_from([GOOD, GOOD, FEW, ERRORS, SLOW]), dies=st.booleans())
    def time_passes(self, compared: Compared, dies: bool) -> None:
        assert self.rollout is not None
        self.now_ms += 6 * SECOND
        self.commit(tick(self.rollout, self.now_ms, self.view(self.read).newest, compared), dies)

    @rule(records=st.integers(1, 3))
    def log_is_read(self, records: int) -> None:
        self.read = min(len(self.log), self.read + records)

    @rule(records=st.integers(0, 8))
    def another_worker_takes_over(self, records: int) -> None:
        """Its view of the log is as old as it likes."""
        self.read = max(0, len(self.log) - records)

    @rule(behind=st.integers(0, 2), version=st.integers(3, 5))
    def somebody_changes_the_alias(self, behind: int, version: int) -> None:
        newest = self.view(max(1, len(self.log) - behind)).newest
        self.log.append((AliasChangeKey.new(KEY), next_revision(newest, AliasTarget(version=version), "", "bo")))

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def a_rollout_follows_only_itself(self) -> None:
        """What a rollout writes counts only after its own changes, or after the one that it started from."""
        log, authors = AliasLog(), dict[int, str | None]()
        for key, record in self.log:
            before = log.changed
            log.apply(key, record)
            if log.changed is not before and log.changed is not None:
                author = log.changed.changed_by
                if author not in {"bo", "ana"}:
                    previous = authors.get(log.changed.revision - 1)
                    first = self.starts().get(author or "", -1) == log.changed.revision - 1
                    assert previous == author or first, "somebody else's change was overwritten"
                authors[log.changed.revision] = author

    def starts(self) -> dict[str, int]:
        """By author: the revision that its first change follows."""
        found: dict[str, int] = {}
        for _, record in self.log:
            if record is not None and (record.changed_by or "").startswith("rollout"):
                found.setdefault(record.changed_by or "", record.revision - 1)
        return found

    @invariant()
    def no_move_is_made_twice(self) -> None:
        for targets in self.written.values():
            assert len({repr(target) for target in targets}) == len(targets)

    @invariant()
    def no_breach_is_forgotten(self) -> None:
        rollout = self.rollout
        if rollout is None:
            assert not self.breached
        elif rollout.id in self.breached:
            assert rollout.breach is not None
            assert rollout.phase == "rolled_back"
            assert target_of_rollout(rollout) == self.breached[rollout.id]

    def teardown(self) -> None:
        """Without further faults, an ended rollout settles: the alias is what it asks for, or what others made it."""
        for _ in range(4):
            self.read = len(self.log)
            if self.rollout is not None and self.rollout.ended:
                self.time_passes(GOOD, dies=False)
        self.read = len(self.log)
        rollout = self.rollout
        if rollout is None or not rollout.ended:
            return
        assert is_settled(rollout)
        newest = self.view(len(self.log)).newest
        assert newest is not None
        if newest.changed_by == author_of(rollout):
            assert target_of(newest) == target_of_rollout(rollout)
        else:
            assert "bo" in {revision.changed_by for revision in revisions(newest)}


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
